"""One-shot services: done when they ended well, and run once for each of their configurations."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from fleet_agent.containers import compose_file
from fleet_agent.containers.simulated import World
from fleet_agent.engine import api
from fleet_agent.engine.dependencies import Dependencies
from fleet_agent.model import ReportState
from tests.support.engine_harness import COMPOSE_YAML, Fleet

ONCE = (
    COMPOSE_YAML.format(behavior="")
    + """\
    depends_on: {migrate: {condition: service_completed_successfully}}
  migrate:
    image: busybox:stable
    command: [migrate, "%s"]
    labels: {fleet.simulate: "%s"}
"""
)


def world(root: Path) -> World:
    return World.model_validate_json((root / "state" / "simulated.json").read_bytes())


def runs(root: Path) -> int:
    """Changes when it runs again."""
    return world(root).containers["fleet"]["migrate"].id


def test_it_runs_again_only_for_its_own_configuration(
    fleet: Fleet, root: Path, dependencies: Dependencies
) -> None:
    config = fleet.config(root)

    def to(version: str, arguments: str, rest: str = "") -> None:
        release = fleet.release(version, edits={"compose.yaml": ONCE % (arguments, "done") + rest})
        status = api.converge(config, fleet.directive(release), dependencies=dependencies)
        assert (status.state, status.current) == (ReportState.HEALTHY, release), status

    to("once-1", "a")
    first = runs(root)
    to("once-2", "a")
    assert api.drift(config) == []
    broken = world(root)
    del broken.containers["fleet"]["web"]
    (root / "state" / "simulated.json").write_text(broken.model_dump_json())
    assert api.recover(config, dependencies=dependencies).state is ReportState.HEALTHY
    assert set(world(root).containers["fleet"]) == {"web", "clock", "migrate"}
    assert api.restart(config, dependencies=dependencies).state is ReportState.HEALTHY
    assert runs(root) == first
    # Its network is made anew, and what ended there is not on the new one; it ended well all the same.
    to("network", "a", "networks: {default: {labels: {of: network}}}\n")
    assert api.drift(config) == []
    assert runs(root) == first
    to("once-3", "b")
    assert runs(root) != first
    # Going back is a change back.
    last = runs(root)
    assert api.rollback(config, dependencies=dependencies).current == fleet.release("network")
    assert runs(root) != last
    # Somebody removed it: that asks for another run.
    broken = world(root)
    del broken.containers["fleet"]["migrate"]
    (root / "state" / "simulated.json").write_text(broken.model_dump_json())
    assert api.recover(config, dependencies=dependencies).state is ReportState.HEALTHY
    assert "migrate" in world(root).containers["fleet"]


def test_one_that_fails_is_a_failure_of_its_release(
    fleet: Fleet, root: Path, dependencies: Dependencies
) -> None:
    config = fleet.config(root)
    good = fleet.release("once-1", edits={"compose.yaml": ONCE % ("a", "done")})
    api.converge(config, fleet.directive(good), dependencies=dependencies)
    bad = fleet.release("once-fails", edits={"compose.yaml": ONCE % ("c", "crash")})
    status = api.converge(config, fleet.directive(bad), dependencies=dependencies)
    assert (status.state, status.current) == (ReportState.ROLLED_BACK, good)
    assert status.error == "Migrate exited with code 1."


def test_a_service_that_nobody_waits_for_may_not_end(
    fleet: Fleet, root: Path, dependencies: Dependencies
) -> None:
    config = fleet.config(root)
    edited = (ONCE % ("a", "done")).replace("service_completed_successfully", "service_started")
    release = fleet.release("ends", edits={"compose.yaml": edited})
    status = api.converge(config, fleet.directive(release), dependencies=dependencies)
    assert (status.state, status.error) == (ReportState.SAFE_MODE, "Migrate exited with code 0.")


@pytest.mark.parametrize(
    ("depends_on", "found"),
    [
        ({"a": {"condition": "service_completed_successfully"}}, {"a"}),
        ({"a": {"condition": "service_started"}}, set()),
        (["a"], set()),
        (None, set()),
    ],
)
def test_who_is_waited_for(depends_on: object, found: set[str]) -> None:
    compose = json.loads(json.dumps({"services": {"a": {}, "b": {"depends_on": depends_on}}}))
    assert compose_file.awaited(compose) == found
