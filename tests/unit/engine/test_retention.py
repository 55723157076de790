"""What stays on the disk, and until when."""

from __future__ import annotations

import json
from pathlib import Path

from fleet_agent.engine import api
from fleet_agent.engine.dependencies import Dependencies
from tests.support.engine_harness import COMPOSE_YAML, Fleet


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
