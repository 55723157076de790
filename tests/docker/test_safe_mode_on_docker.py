"""Safe mode against a real engine: the page is up without a pull, says why, and goes when a fix works."""

from __future__ import annotations

import json
import urllib.request
from collections.abc import Iterator
from pathlib import Path

import pytest

from fleet_agent.containers.compose import ComposeRuntime
from fleet_agent.engine import api
from fleet_agent.engine.config import EngineConfig
from fleet_agent.engine.dependencies import Dependencies, Direct
from fleet_agent.model import Outcome, ReportState
from fleetctl.stack.ports import free_ports
from tests.support.engine_harness import Fleet, rows
from tests.support.own_project import own

pytestmark = pytest.mark.docker

(PORT,) = free_ports(1)
SAFE_MODE = Path(__file__).resolve().parents[2] / "roles" / "common" / "safe-mode"
ROLE = """\
description: Works or does not.
health: {grace_s: 0.2, successes: 2, interval_s: 0.2, watch_s: 0.3, deadline_s: 10, failure_budget: 0}
"""
COMPOSE = """\
services:
  app: {image: "busybox:stable", init: true, stop_grace_period: 1s, command: %s}
"""


def edits(command: str) -> dict[str, str]:
    common = {
        f"/roles/common/safe-mode/{file.relative_to(SAFE_MODE)}": file.read_text()
        for file in SAFE_MODE.rglob("*")
        if file.is_file()
    }
    return {"role.yaml": ROLE, "compose.yaml": COMPOSE % command, **common}


@pytest.fixture
def device(tmp_path: Path) -> Iterator[tuple[EngineConfig, Fleet]]:
    fleet = Fleet(tmp_path / "repo")
    config = fleet.config(tmp_path / "device", runtime="docker", project=own("safe"))
    config.paths.env_file.write_text(f"SAFE_MODE_PORT={PORT}\n")
    yield config, fleet
    ComposeRuntime().down(config.project)
    ComposeRuntime().down(config.safe_project)


class NoNetwork(Direct):
    """Git and the registry are away."""

    def perform(self, name, action):  # type: ignore[no-untyped-def]
        assert name not in ("git fetch", "docker pull"), f"{name} in safe mode"
        return super().perform(name, action)


def said() -> dict[str, object]:
    """What the page's program interface says; the page may need a moment to listen."""
    for _ in range(100):
        try:
            with urllib.request.urlopen(f"http://127.0.0.1:{PORT}/status.json", timeout=2) as answer:
                found: dict[str, object] = json.load(answer)
                return found
        except OSError:
            import time

            time.sleep(0.1)
    raise AssertionError("the safe-mode page never answered")


def test_first_release_that_fails_shows_the_page_and_a_fix_takes_it_away(
    device: tuple[EngineConfig, Fleet],
) -> None:
    config, fleet = device
    bad = fleet.release("v1", edits=edits('["sh", "-c", "echo no luck; exit 4"]'))
    status = api.converge(config, fleet.directive(bad))
    assert (status.state, status.phase) == (ReportState.SAFE_MODE, "safe_mode")
    facts = said()
    assert facts["reason"] == (
        "Safe mode: there is no earlier release to go back to. "
        "v1 failed in probation: App exited with code 4."
    )
    assert facts["kind"] == "container_exited"
    assert rows(config)[0].outcome is Outcome.FAILED
    good = fleet.release("v2", edits=edits('[sleep, "1000000"]'))
    status = api.converge(config, fleet.directive(good))
    assert (status.state, status.current) == (ReportState.HEALTHY, good)
    assert ComposeRuntime().services(config.safe_project) == ()


def test_operator_enters_and_leaves_without_network(device: tuple[EngineConfig, Fleet]) -> None:
    config, fleet = device
    good = fleet.release("v1", edits=edits('[sleep, "1000000"]'))
    api.converge(config, fleet.directive(good))
    dependencies = Dependencies(effects=NoNetwork())
    status = api.enter_safe_mode(config, reason="looking at something", dependencies=dependencies)
    assert status.state is ReportState.SAFE_MODE
    assert ComposeRuntime().services(config.project) == ()
    assert said()["reason"] == "Safe mode: looking at something."
    # It stays over a restart of the agent.
    assert api.recover(config, dependencies=dependencies).state is ReportState.SAFE_MODE
    status = api.leave_safe_mode(config, dependencies=dependencies)
    assert (status.state, status.current) == (ReportState.HEALTHY, good)
    assert ComposeRuntime().services(config.safe_project) == ()
