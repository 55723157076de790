"""What runs is compared whole with what should run: number, names, networks; and what differs is replaced."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path
from typing import TypeVar

import docker
import pytest

from fleet_agent.containers.base import Container
from fleet_agent.containers.compose import ComposeRuntime
from fleet_agent.engine import api
from fleet_agent.engine.config import EngineConfig
from fleet_agent.engine.dependencies import Dependencies, Direct
from fleet_agent.model import EngineStatus, Outcome, ReportState
from tests.support.engine_harness import Fleet, rows
from tests.support.own_project import own

pytestmark = pytest.mark.docker

T = TypeVar("T")
PROJECT = own("whole")
NETWORK = f"{PROJECT}_default"
ROLE = """\
description: Has replicas and a network of its own.
health: {grace_s: 1, successes: 2, interval_s: 0.3, watch_s: 0.5, deadline_s: 15, failure_budget: 1}
"""
COMPOSE = """\
services:
  web:
    image: busybox:stable
    command: [sleep, "1000000"]
    init: true
    stop_grace_period: 1s
    deploy: {{replicas: {replicas}}}
  other:
    image: busybox:stable
    command: [sleep, "1000000"]
    init: true
    stop_grace_period: 1s
networks: {{default: {{ipam: {{config: [{{subnet: 10.{subnet}.1.0/24}}]}}}}}}
"""


class Killed(BaseException):
    """The engine and its Compose are gone in this instant."""


class Device:
    def __init__(self, folder: Path) -> None:
        self.fleet = Fleet(folder / "repo")
        self.docker = docker.from_env()
        self.config: EngineConfig = self.fleet.config(
            folder / "device", runtime="docker", project=PROJECT, safe_mode_after=100
        )
        self.count = 0

    def to(
        self, *, replicas: int = 2, subnet: int = 217, dependencies: Dependencies | None = None
    ) -> EngineStatus:
        self.count += 1
        compose = COMPOSE.format(replicas=replicas, subnet=subnet)
        edits = {"compose.yaml": compose, "role.yaml": ROLE, "note": str(self.count)}
        release = self.fleet.release(f"r{self.count}", edits=edits)
        return api.converge(
            self.config, self.fleet.directive(release), dependencies=dependencies or Dependencies()
        )

    def recover(self) -> EngineStatus:
        return api.recover(self.config)

    @property
    def containers(self) -> tuple[Container, ...]:
        return ComposeRuntime().services(PROJECT)

    @property
    def runs(self) -> list[tuple[str, str, list[str]]]:
        """Name, state and networks of each container."""
        return sorted((c.name, c.state, sorted(c.networks)) for c in self.containers)


WHOLE = [(f"{PROJECT}-{name}", "running", [NETWORK]) for name in ("other-1", "web-1", "web-2")]


@pytest.fixture(scope="module")
def device(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Device]:
    found = Device(tmp_path_factory.mktemp("whole"))
    status = found.to()
    assert status.state is ReportState.HEALTHY, status
    assert found.runs == WHOLE
    yield found
    runtime = ComposeRuntime()
    runtime.down(found.config.project)
    runtime.down(found.config.safe_project)


def test_a_replica_that_is_missing_or_stopped_is_reported_and_repaired(device: Device) -> None:
    before = {c.name: c.id for c in device.containers}
    device.docker.containers.get(f"{PROJECT}-web-2").remove(force=True)
    assert api.drift(device.config) == ["web has 1 of 2 containers"]
    assert device.recover().state is ReportState.HEALTHY
    assert device.runs == WHOLE
    device.docker.containers.get(f"{PROJECT}-web-1").stop(timeout=1)
    assert api.drift(device.config) == ["web is exited"]
    assert device.recover().state is ReportState.HEALTHY
    assert device.runs == WHOLE
    assert api.drift(device.config) == []
    after = {c.name: c.id for c in device.containers}
    assert {name for name, found in after.items() if found != before[name]} == {f"{PROJECT}-web-2"}


def test_only_the_replica_that_differs_is_replaced(device: Device) -> None:
    before = {c.name: c.id for c in device.containers}
    device.docker.networks.get(NETWORK).disconnect(f"{PROJECT}-web-1")
    assert api.drift(device.config) == [f"web is not on the network {NETWORK}"]
    assert device.recover().state is ReportState.HEALTHY
    assert api.drift(device.config) == []
    kept = {name for name, found in before.items() if found in {c.id for c in device.containers}}
    assert kept == before.keys() - {f"{PROJECT}-web-1"}
    assert [c.networks.keys() for c in device.containers] == [{NETWORK}] * 3
    # Back to the numbers that the other tests know.
    assert device.to(replicas=1).state is device.to().state is ReportState.HEALTHY
    assert device.runs == WHOLE


def test_what_was_changed_by_hand_is_told_and_replaced(device: Device) -> None:
    """A network taken away, a name as a killed Compose leaves it; and nothing else is touched."""
    before = {c.service: c.id for c in device.containers if c.service == "web"}
    device.docker.networks.get(NETWORK).disconnect(f"{PROJECT}-other-1")
    assert api.drift(device.config) == [f"other is not on the network {NETWORK}"]
    assert device.recover().state is ReportState.HEALTHY
    assert device.runs == WHOLE
    device.docker.containers.get(f"{PROJECT}-other-1").rename(f"0123456789ab_{PROJECT}-other-1")
    assert api.drift(device.config) == [
        f"the container {PROJECT}-other-1 is named 0123456789ab_{PROJECT}-other-1"
    ]
    assert device.recover().state is ReportState.HEALTHY
    assert device.runs == WHOLE
    assert {c.service: c.id for c in device.containers if c.service == "web"} == before


def test_going_back_from_a_network_that_another_container_holds_leaves_all_on_it(device: Device) -> None:
    device.docker.containers.run(
        "busybox:stable",
        ["sleep", "1000"],
        name=f"{PROJECT}-foreign",
        network=NETWORK,
        detach=True,
        init=True,
    )
    try:
        status = device.to(subnet=218)
    finally:
        device.docker.containers.get(f"{PROJECT}-foreign").remove(force=True)
    assert (status.state, rows(device.config)[-1].outcome) == (
        ReportState.ROLLED_BACK,
        Outcome.ROLLED_BACK,
    )
    assert device.runs == WHOLE
    assert api.drift(device.config) == []


class DiesWithTheNetwork(Direct):
    """Compose got as far as to stop the containers and to replace the network."""

    def __init__(self, device: Device) -> None:
        self._device = device

    def perform(self, name: str, action: Callable[[], T]) -> T:
        if name != "compose up":
            return action()
        network = self._device.docker.networks.get(NETWORK)
        for container in self._device.containers:
            self._device.docker.containers.get(container.id).stop(timeout=1)
            network.disconnect(container.id, force=True)
        network.remove()
        raise Killed


def test_killed_while_the_network_is_replaced_all_end_on_it(device: Device) -> None:
    with pytest.raises(Killed):
        device.to(subnet=219, dependencies=Dependencies(effects=DiesWithTheNetwork(device)))
    status = device.recover()
    assert (status.state, status.current and status.current.version) == (
        ReportState.HEALTHY,
        f"r{device.count}",
    )
    assert device.runs == WHOLE
    assert [c["Subnet"] for c in device.docker.networks.get(NETWORK).attrs["IPAM"]["Config"]] == [
        "10.219.1.0/24"
    ]


def test_no_replicas_is_no_failure(device: Device) -> None:
    status = device.to(replicas=0, subnet=219)
    assert status.state is ReportState.HEALTHY, status
    assert [name for name, _, _ in device.runs] == [f"{PROJECT}-other-1"]
    assert api.drift(device.config) == []
    assert device.to(subnet=219).state is ReportState.HEALTHY
    assert device.runs == WHOLE
