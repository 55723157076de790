"""Compose is killed and the engine is not: the kernel was short of memory. No release is blamed for that."""

from __future__ import annotations

from collections.abc import Iterator
from datetime import datetime, timedelta
from pathlib import Path

import pytest

from fleet_agent.containers.compose import ComposeRuntime
from fleet_agent.containers.compose_program import find_compose
from fleet_agent.engine import api, failure_memory
from fleet_agent.engine.dependencies import Dependencies, SystemClock
from fleet_agent.model import EngineStatus, Outcome, Release, ReportState
from tests.support.engine_harness import Fleet, rows
from tests.support.own_project import own

pytestmark = pytest.mark.docker

ROLE = """\
description: case
health: {grace_s: 1, successes: 2, interval_s: 0.3, watch_s: 0.5, deadline_s: 15, failure_budget: 1}
"""
COMPOSE = """\
services:
  web:
    image: busybox:stable
    command: [sh, -c, '%s']
    stop_grace_period: 1s
    init: true
    environment: {V: "%s"}
  other: {image: busybox:stable, command: [sleep, "1000000"], init: true, stop_grace_period: 1s}
"""
RUNNING = {"web": "running", "other": "running"}


class Impatient(SystemClock):
    """Sleeps a tenth of what it should between tries; the time may be moved on."""

    ahead = timedelta()

    def sleep(self, seconds: float) -> None:
        super().sleep(seconds / 10 if seconds > 1 else seconds)

    def corrected(self) -> datetime:
        return super().corrected() + self.ahead


class Device:
    """Its Compose is killed at each `up` as often as `kills` says, once `armed`."""

    def __init__(self, folder: Path) -> None:
        self.fleet = Fleet(folder / "repo")
        self.kills, self.armed = folder / "kills", folder / "armed"
        program = folder / "compose"
        program.write_text(
            f"""#!/bin/sh
left=$(cat {self.kills} 2>/dev/null || echo 0)
stack=$(echo "$*" | sed 's/.*--file //; s/ .*//')
case "$*" in *" up "*)
    grep -q "$(cat {self.armed} 2>/dev/null || echo nothing)" "$stack" || left=0
    if [ "$left" -gt 0 ]; then echo $((left - 1)) > {self.kills}; kill -9 $$; fi;;
esac
exec {" ".join(find_compose() or [])} "$@"
"""
        )
        program.chmod(0o755)
        self.clock = Impatient()
        self.dependencies = Dependencies(runtime=ComposeRuntime([str(program)]), clock=self.clock)
        self.config = self.fleet.config(folder / "device", runtime="docker", project=own("killed"))
        self.v1 = self.release("v1", "exec sleep 100000")

    def release(self, version: str, command: str) -> Release:
        edits = {"compose.yaml": COMPOSE % (command, version), "role.yaml": ROLE}
        return self.fleet.release(version, edits=edits)

    def kill_compose(self, times: int, *, starting: str) -> None:
        """The next `times` that it starts this release."""
        self.kills.write_text(str(times))
        self.armed.write_text(f'"V": "{starting}"')

    def to(self, release: Release) -> EngineStatus:
        return api.converge(self.config, self.fleet.directive(release), dependencies=self.dependencies)

    @property
    def bad(self) -> list[str]:
        return [known.message for known in failure_memory.load(self.config.paths.known_bad).bad.values()]


@pytest.fixture
def device(tmp_path: Path) -> Iterator[Device]:
    found = Device(tmp_path)
    status = found.to(found.v1)
    assert status.state is ReportState.HEALTHY, status
    yield found
    runtime = ComposeRuntime()
    runtime.down(found.config.project)
    runtime.down(found.config.safe_project)


def running(status: EngineStatus) -> dict[str, str]:
    return {service.service: service.state for service in status.services}


def test_killed_while_starting_it_is_tried_again(device: Device) -> None:
    v2 = device.release("v2", "exec sleep 200000")
    device.kill_compose(1, starting="v2")
    status = device.to(v2)
    assert (status.state, status.current, running(status)) == (ReportState.HEALTHY, v2, RUNNING), status
    assert device.kills.read_text().strip() == "0"


@pytest.mark.full
def test_killed_each_time_while_starting_the_release_is_not_held_bad(device: Device) -> None:
    v2 = device.release("v2", "exec sleep 200000")
    device.kill_compose(100, starting="v2")
    status = device.to(v2)
    assert (status.state, status.current, running(status)) == (ReportState.ROLLED_BACK, device.v1, RUNNING)
    row = rows(device.config)[-1]
    assert (row.outcome, row.error_kind) == (Outcome.ROLLED_BACK, "compose_killed")
    assert row.error == "Compose was killed (signal 9), perhaps for lack of memory."
    assert device.bad == []
    device.kill_compose(0, starting="v2")
    device.clock.ahead = timedelta(hours=2)
    status = device.to(v2)
    assert (status.state, status.current, running(status)) == (ReportState.HEALTHY, v2, RUNNING)


def test_killed_while_going_back_it_is_tried_again(device: Device) -> None:
    v2 = device.release("v2", "exit 3")
    device.kill_compose(1, starting="v1")
    status = device.to(v2)
    assert (status.state, status.current, running(status)) == (ReportState.ROLLED_BACK, device.v1, RUNNING)
    assert [row.outcome for row in rows(device.config)] == [Outcome.SUCCEEDED, Outcome.ROLLED_BACK]


def test_killed_each_time_while_going_back_the_device_comes_back_by_itself(device: Device) -> None:
    v2 = device.release("v2", "exit 3")
    device.kill_compose(100, starting="v1")
    status = device.to(v2)
    assert (status.state, running(status)) == (ReportState.SAFE_MODE, {}), status
    assert "the previous release did not come back: Compose was killed (signal 9)" in status.reason
    device.kill_compose(0, starting="v1")
    device.clock.ahead = timedelta(hours=2)
    status = api.recover(device.config, dependencies=device.dependencies)
    assert (status.state, status.current, running(status)) == (ReportState.HEALTHY, device.v1, RUNNING)
    assert device.bad == ["Web exited with code 3."]
