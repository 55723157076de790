"""Docker itself ends in the middle of an update, for a moment or for good: what comes of it is defined."""

from __future__ import annotations

import asyncio
import signal
import subprocess
import threading
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import TypeVar

import pytest

from fleet_agent.daemon.docker_watch import DockerWatch
from fleet_agent.engine import api
from fleet_agent.engine.config import EngineConfig
from fleet_agent.engine.dependencies import Dependencies, Direct
from fleet_agent.errors import FleetError, Kind
from fleet_agent.model import EngineStatus, Outcome, Release, ReportState
from tests.support.engine_harness import Fleet, rows
from tests.support.own_docker import OwnDocker, own_docker
from tests.support.own_project import own
from tests.support.patience import PATIENCE_S

pytestmark = pytest.mark.docker

T = TypeVar("T")
ROLE = """\
description: Two services.
health: {grace_s: 1, successes: 2, interval_s: 0.2, watch_s: 0.5, deadline_s: 60, failure_budget: 1}
"""
#: Docker starts neither again by itself. `web` takes its time to end, so that Compose is met while it waits.
COMPOSE = """\
services:
  web:
    image: busybox:stable
    command: [sh, -c, "trap '' TERM; while :; do sleep 1; done"]
    stop_grace_period: 2s
    environment: {V: "${FLEET_RELEASE_VERSION}"}
  clock: {image: busybox:stable, init: true, command: [sleep, "1000000"], stop_grace_period: 1s}
"""
RUNNING = {"web": "running", "clock": "running"}


class Device:
    """On `old`, with a Docker of its own."""

    def __init__(self, root: Path, fleet: Fleet, docker: OwnDocker) -> None:
        self.fleet, self.docker = fleet, docker
        self.config: EngineConfig = fleet.config(
            root, runtime="docker", project=own("restarts"), docker_patience_s=PATIENCE_S
        )
        edits = {"role.yaml": ROLE, "compose.yaml": COMPOSE}
        self.old, self.new = (fleet.release(v, edits=edits) for v in ("r1", "r2"))
        self.runs(self.update(self.old), self.old)

    def update(
        self, release: Release, *, patience_s: float = PATIENCE_S, dependencies: Dependencies | None = None
    ) -> EngineStatus:
        config = self.config.model_copy(update={"docker_patience_s": patience_s})
        return api.converge(
            config, self.fleet.directive(release), dependencies=dependencies or Dependencies()
        )

    def runs(self, status: EngineStatus, release: Release) -> None:
        assert (status.phase, status.current) == ("steady", release), status
        assert {s.service: s.state for s in status.services} == RUNNING


@pytest.fixture
def device(tmp_path: Path) -> Iterator[Device]:
    with own_docker() as docker:
        yield Device(tmp_path / "device", Fleet(tmp_path / "repo"), docker)


class At(Direct):
    """Does something once, as `effect` begins after the links were swapped."""

    def __init__(self, effect: str, action: Callable[[], None]) -> None:
        self.effect, self.action = effect, action
        self.swapped = self.done = False

    def perform(self, name: str, action: Callable[[], T]) -> T:
        self.swapped = self.swapped or name == "link app_current"
        if self.swapped and not self.done and name == self.effect:
            self.done = True
            self.action()
        return action()


BY = pytest.mark.parametrize("by", [signal.SIGTERM, signal.SIGKILL], ids=["restarted", "killed"])


@BY
def test_docker_restarted_while_compose_works_is_waited_for(device: Device, by: signal.Signals) -> None:
    restarting = threading.Thread(target=lambda: device.docker.restart(by))

    def as_web_is_stopped() -> None:
        """Compose has sent SIGTERM to the old container, which does not heed it."""
        told = subprocess.Popen(
            ["docker", "--host", device.docker.host, "events", "--since", "0", "--filter", "event=kill"],
            stdout=subprocess.PIPE,
        )  # fmt: skip

        def wait() -> None:
            assert told.stdout is not None
            told.stdout.readline()
            restarting.start()
            told.communicate()

        threading.Thread(target=wait).start()

    effects = At("compose up", as_web_is_stopped)
    status = device.update(device.new, dependencies=Dependencies(effects=effects))
    assert restarting.ident is not None, "Docker was never restarted"
    restarting.join()
    device.runs(status, device.new)
    assert [row.outcome for row in rows(device.config)] == [Outcome.SUCCEEDED] * 2


@BY
def test_what_a_restarted_docker_dropped_in_probation_is_started_again(
    device: Device, by: signal.Signals
) -> None:
    """Too short to be missed in any round: only that its containers have ended would be seen."""
    effects = At("docker list", lambda: device.docker.restart(by))
    status = device.update(device.new, dependencies=Dependencies(effects=effects))
    assert effects.done
    device.runs(status, device.new)
    assert [row.outcome for row in rows(device.config)] == [Outcome.SUCCEEDED] * 2


@BY
def test_a_docker_that_dies_at_rest_is_noticed_when_it_returns(by: signal.Signals) -> None:
    """Not before it answers again, and once."""
    told: list[bool] = []

    async def watched(docker: OwnDocker) -> None:
        returned = asyncio.Event()

        def on_return() -> None:
            told.append(docker.docker("version", check=False).returncode == 0)
            returned.set()

        watching = asyncio.create_task(DockerWatch(on_return, docker.host, retry_s=0.1).run())
        async with asyncio.timeout(PATIENCE_S):
            await asyncio.sleep(0.5)
            assert told == []
            await asyncio.to_thread(docker.restart, by)
            await returned.wait()
        watching.cancel()

    with own_docker() as docker:
        asyncio.run(watched(docker))
    assert told == [True]


def test_docker_down_before_the_swap_ends_the_attempt_and_touches_nothing(device: Device) -> None:
    """Killed, so that its containers go on without it."""
    device.docker.stop(signal.SIGKILL)
    status = device.update(device.new, patience_s=0.5)
    row = rows(device.config)[-1]
    assert (row.outcome, row.error_kind) == (Outcome.FAILED, Kind.DOCKER_UNAVAILABLE)
    assert row.error == "Docker does not answer."
    assert (status.phase, status.current) == ("steady", device.old)
    device.docker.start()
    device.runs(api.recover(device.config), device.old)


@BY
def test_docker_gone_for_good_after_the_swap_is_for_the_next_start(
    device: Device, by: signal.Signals
) -> None:
    dependencies = Dependencies(effects=At("compose up", lambda: device.docker.stop(by)))
    with pytest.raises(FleetError) as caught:
        device.update(device.new, patience_s=0.5, dependencies=dependencies)
    assert caught.value.kind is Kind.DOCKER_UNAVAILABLE
    device.docker.start()
    status = api.recover(device.config)
    device.runs(status, device.old)
    assert status.state is ReportState.ROLLED_BACK
    row = rows(device.config)[-1]
    assert (row.outcome, row.error_kind, row.failed_phase) == (
        Outcome.ROLLED_BACK, Kind.DOCKER_UNAVAILABLE, "starting",
    )  # fmt: skip
    # It was Docker's fault: the release is taken again when that works.
    device.runs(
        api.converge(device.config, device.fleet.directive(device.new), operator_requested=True), device.new
    )
