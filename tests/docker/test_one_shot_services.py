"""A service that others wait for runs once for each of its configurations, and is done when it ended well."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import docker
import pytest

from fleet_agent.containers.compose import ComposeRuntime
from fleet_agent.engine import api
from fleet_agent.engine.config import EngineConfig
from fleet_agent.model import EngineStatus, ReportState
from tests.support.engine_harness import Fleet
from tests.support.own_project import own

pytestmark = pytest.mark.docker

PROJECT = own("once")
ROLE = """\
description: Has a migration.
health:
  {grace_s: 1, successes: 2, interval_s: 0.3, watch_s: 0.5, deadline_s: 15, failure_budget: 1,
   checks: [{kind: container}, {kind: compose}]}
"""
COMPOSE = """\
services:
  migrate:
    image: busybox:stable
    command: [sh, -c, 'echo %(migration)s >> /data/log']
    volumes: [data:/data]
    restart: "no"
  web:
    image: busybox:stable
    command: [sleep, "1000000"]
    init: true
    stop_grace_period: 1s
    environment: {V: "%(web)s"}
    volumes: [data:/data]
    depends_on: {migrate: {condition: service_completed_successfully}}
  %(third)s: {image: busybox:stable, command: [sleep, "1000000"], init: true, stop_grace_period: 1s}
volumes: {data: {}}
"""


class Device:
    def __init__(self, folder: Path) -> None:
        self.fleet, self.docker, self.count = Fleet(folder / "repo"), docker.from_env(), 0
        self.config: EngineConfig = self.fleet.config(folder / "device", runtime="docker", project=PROJECT)

    def to(self, *, web: str = "1", migration: str = "first", third: str = "other") -> EngineStatus:
        self.count += 1
        compose = COMPOSE % {"web": web, "migration": migration, "third": third}
        edits = {"compose.yaml": compose, "role.yaml": ROLE, "note": str(self.count)}
        release = self.fleet.release(f"r{self.count}", edits=edits)
        return api.converge(self.config, self.fleet.directive(release))

    @property
    def ran(self) -> list[str]:
        """What the migration wrote, each time that it ran."""
        web = self.docker.containers.get(f"{PROJECT}-web-1")
        return bytes(web.exec_run(["cat", "/data/log"]).output).decode().split()  # type: ignore[arg-type]

    @property
    def states(self) -> dict[str, str]:
        return {c.service: c.state for c in ComposeRuntime().services(PROJECT)}


@pytest.fixture
def device(tmp_path: Path) -> Iterator[Device]:
    found = Device(tmp_path)
    yield found
    ComposeRuntime().down(PROJECT)
    found.docker.volumes.get(f"{PROJECT}_data").remove()


def test_it_runs_once_for_each_configuration_and_at_no_repair(device: Device) -> None:
    status = device.to()
    assert status.state is ReportState.HEALTHY, status
    assert device.states == {"migrate": "exited", "web": "running", "other": "running"}
    assert api.recover(device.config).state is ReportState.HEALTHY
    # One that does not wait for it; then the one that does.
    assert device.to(third="bystander").state is ReportState.HEALTHY
    assert device.to(web="2").state is ReportState.HEALTHY
    assert device.states == {"migrate": "exited", "web": "running", "other": "running"}
    for service in ("web", "other"):
        device.docker.containers.get(f"{PROJECT}-{service}-1").remove(force=True)
        assert api.recover(device.config).state is ReportState.HEALTHY
    assert api.restart(device.config).state is ReportState.HEALTHY
    assert device.ran == ["first"]
    assert api.drift(device.config) == []
    assert device.to(migration="second").state is ReportState.HEALTHY
    assert device.ran == ["first", "second"]
