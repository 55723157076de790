"""What stays on the disk, and until when."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import replace
from datetime import timedelta
from pathlib import Path
from typing import TypeVar

import pytest

from fleet_agent.engine import api, disk_space
from fleet_agent.engine.dependencies import Dependencies, Direct
from fleet_agent.model import Action
from fleet_agent.support.sizes import MIB
from tests.support.engine_harness import COMPOSE_YAML, FakeClock, Fleet

T = TypeVar("T")


def _with_image(tag: str, behavior: str = "") -> dict[str, str]:
    return {"compose.yaml": COMPOSE_YAML.format(behavior=behavior).replace("busybox:stable", f"app:{tag}", 1)}


def _images(root: Path) -> set[str]:
    return set(json.loads((root / "state" / "simulated.json").read_text())["images"])


def test_images_of_the_previous_release_stay_and_older_ones_go(
    fleet: Fleet, root: Path, dependencies: Dependencies
) -> None:
    config = fleet.config(root)
    for tag in ("1", "2", "3"):
        api.converge(
            config,
            fleet.directive(fleet.release(f"image-{tag}", edits=_with_image(tag))),
            dependencies=dependencies,
        )
    assert _images(root) == {"app:2", "app:3", "busybox:stable"}


def test_images_of_a_bad_release_go_and_the_previous_ones_stay(
    fleet: Fleet, root: Path, dependencies: Dependencies
) -> None:
    config = fleet.config(root)
    for tag in ("1", "2"):
        api.converge(
            config,
            fleet.directive(fleet.release(f"image-{tag}", edits=_with_image(tag))),
            dependencies=dependencies,
        )
    bad = fleet.release("image-bad", edits=_with_image("bad", "crash"))
    api.converge(config, fleet.directive(bad), dependencies=dependencies)
    assert _images(root) == {"app:1", "app:2", "busybox:stable"}
    assert {folder.name for folder in config.paths.releases.iterdir()} == {
        fleet.release("image-1").commit_sha,
        fleet.release("image-2").commit_sha,
    }


def test_gone_image_of_the_running_release_is_brought_back(
    fleet: Fleet, root: Path, dependencies: Dependencies
) -> None:
    config = fleet.config(root)
    api.converge(
        config, fleet.directive(fleet.release("image-1", edits=_with_image("1"))), dependencies=dependencies
    )
    world = json.loads((root / "state" / "simulated.json").read_text())
    (root / "state" / "simulated.json").write_text(json.dumps({**world, "images": [], "containers": {}}))
    assert api.recover(config, dependencies=dependencies).state == "healthy"
    assert _images(root) == {"app:1", "busybox:stable"}


# What is here of a release that is not given up for good


TWO = (
    COMPOSE_YAML.format(behavior="")
    .replace("busybox:stable", "first:2", 1)
    .replace("busybox:stable", "second:2")
)


def _world(root: Path, **changes: object) -> None:
    file = root / "state" / "simulated.json"
    file.write_text(json.dumps({**json.loads(file.read_text()), **changes}))


class Killed(BaseException):
    """The engine is gone in this instant."""


class KilledWhilePulling(Direct):
    """As it begins to pull the second image."""

    pulls = 0

    def perform(self, name: str, action: Callable[[], T]) -> T:
        self.pulls += name == "docker pull"
        if self.pulls == 2:
            raise Killed
        return action()


@pytest.mark.parametrize("how", ["its registry is away", "killed", "superseded"])
@pytest.mark.parametrize("ahead", [False, True], ids=["update", "prefetch"])
def test_images_that_are_here_stay_for_the_next_try(
    fleet: Fleet, root: Path, clock: FakeClock, how: str, ahead: bool
) -> None:
    config, dependencies = fleet.config(root), Dependencies(clock=clock)
    fleet.on_v1(config, dependencies)
    two = fleet.release("two-images", edits={"compose.yaml": TWO})
    asked = fleet.directive(None, Action.RUN, prefetch=two) if ahead else fleet.directive(two)
    match how:
        case "killed":
            with pytest.raises(Killed):
                killed = replace(dependencies, effects=KilledWhilePulling())
                api.converge(config, asked, dependencies=killed)
            api.recover(config, dependencies=dependencies)
        case "superseded":
            held = fleet.directive(None, Action.HOLD)
            newest = iter([None, None, None, None])
            superseded = replace(dependencies, newest=lambda: next(newest, held))
            _world(root, absent_images=["second:2"])
            api.converge(config, asked, dependencies=superseded)
        case _:
            _world(root, absent_images=["second:2"])
            api.converge(config, asked, dependencies=dependencies)
    assert _images(root) == {"busybox:stable", "first:2"}
    # Also after the looks of some days.
    clock.at += timedelta(days=30)
    api.recover(config, dependencies=dependencies)
    assert _images(root) == {"busybox:stable", "first:2"}
    # Another release works: that one is given up for good.
    api.converge(config, fleet.directive(fleet.release("v2")), dependencies=dependencies)
    assert _images(root) == {"busybox:stable"}
    there = {folder.name for folder in config.paths.releases.iterdir()}
    assert there == {fleet.release("v1").commit_sha, fleet.release("v2").commit_sha}


@pytest.mark.parametrize("why", ["nobody asked for it any more", "the disk is full", "it is bad"])
def test_what_is_given_up_for_good_goes(
    fleet: Fleet, root: Path, clock: FakeClock, monkeypatch: pytest.MonkeyPatch, why: str
) -> None:
    config, dependencies = fleet.config(root), Dependencies(clock=clock)
    fleet.on_v1(config, dependencies)
    _world(root, absent_images=["second:2"])
    two = fleet.release("two-images", edits={"compose.yaml": TWO})
    api.converge(config, fleet.directive(two), dependencies=dependencies)
    assert "first:2" in _images(root)
    match why:
        case "the disk is full":
            monkeypatch.setattr(disk_space, "free_bytes", lambda _: 15 * MIB)
        case "it is bad":
            _world(root, absent_images=[])
            crashing = {"compose.yaml": TWO.replace('simulate: ""', 'simulate: "crash"')}
            bad = fleet.release("bad-two", edits=crashing)
            api.converge(config, fleet.directive(bad), dependencies=dependencies)
        case _:
            clock.at += timedelta(days=41)
    api.recover(config, dependencies=dependencies)
    assert _images(root) == {"busybox:stable"}
