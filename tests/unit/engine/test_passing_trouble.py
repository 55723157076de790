"""What soon passes is tried again, is held against no release, and ends safe mode without anybody."""

from __future__ import annotations

from collections.abc import Mapping
from contextlib import suppress
from dataclasses import replace
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest

from fleet_agent.containers import docker_errors
from fleet_agent.containers.base import ComposeStack
from fleet_agent.containers.simulated import SimulatedRuntime
from fleet_agent.engine import api, failure_memory
from fleet_agent.engine import journal as journals
from fleet_agent.engine.config import EngineConfig
from fleet_agent.engine.dependencies import Dependencies, Direct
from fleet_agent.engine.git_source import GitSource
from fleet_agent.errors import ContainerError, Kind, ReleaseError, tool_failed
from fleet_agent.model import Outcome, Release, ReportState
from fleet_agent.support.processes import CompletedProcess
from tests.support.engine_harness import ROLE_YAML, FakeClock, Fleet, rows

KILLED = "Compose was killed (signal 9), perhaps for lack of memory."


class Trouble(SimulatedRuntime):
    """Starting a release whose version holds `of` fails `left` times."""

    of, left = "", 0
    error = ContainerError(Kind.COMPOSE_KILLED, KILLED, retryable=True)
    resolves = True

    def up(self, stack: ComposeStack) -> None:
        if self.of and f'"VERSION": "{self.of}' in stack.file.read_text() and self.left:
            self.left -= 1
            raise self.error
        super().up(stack)

    def config(self, folder: Path, environment: Mapping[str, str], project: str) -> dict[str, Any]:
        if not self.resolves:
            raise self.error
        return super().config(folder, environment, project)


class Device:
    def __init__(self, fleet: Fleet, root: Path) -> None:
        self.fleet, self.config = fleet, fleet.config(root)
        self.runtime, self.clock = Trouble(root / "state" / "simulated.json"), FakeClock()
        self.dependencies = Dependencies(clock=self.clock, runtime=self.runtime)
        self.v1 = fleet.release("v1")
        fleet.on_v1(self.config, self.dependencies)

    def to(self, release: Release) -> Any:
        return api.converge(self.config, self.fleet.directive(release), dependencies=self.dependencies)

    def recover(self, *, after: timedelta = timedelta()) -> Any:
        self.clock.at += after
        return api.recover(self.config, dependencies=self.dependencies)

    def strand(self) -> Any:
        """A bad release, and Compose is killed whenever it starts the one before: safe mode."""
        self.runtime.of, self.runtime.left = "v1", 1000
        status = self.to(self.fleet.release("bad-crash", "crash"))
        assert (status.state, status.services) == (ReportState.SAFE_MODE, ()), status
        return status


@pytest.fixture
def device(fleet: Fleet, root: Path) -> Device:
    return Device(fleet, root)


def bad(config: EngineConfig) -> list[str]:
    return [known.message for known in failure_memory.load(config.paths.known_bad).bad.values()]


TAKEN = "Compose could not start the services: Bind for 0.0.0.0:80 failed: port is already allocated."


@pytest.mark.parametrize(("kind", "message"), [(Kind.COMPOSE_KILLED, KILLED), (Kind.PORT_CONFLICT, TAKEN)])
def test_it_is_tried_again_a_few_times_and_then_the_release_is_not_blamed(
    device: Device, kind: Kind, message: str
) -> None:
    v2 = device.fleet.release("v2")
    device.runtime.of, device.runtime.error = "v2", ContainerError(kind, message, retryable=True)
    device.runtime.left = 1000
    status = device.to(v2)
    assert (status.state, status.current) == (ReportState.ROLLED_BACK, device.v1)
    assert (status.error_kind, status.error) == (kind, message)
    assert 1000 - device.runtime.left == 5
    assert bad(device.config) == []
    assert rows(device.config)[-1].evidence["passing"] is True
    device.runtime.left = 2
    device.clock.at += timedelta(hours=2)
    status = device.to(v2)
    assert (status.state, status.current) == (ReportState.HEALTHY, v2)


def test_a_port_that_a_program_of_the_device_holds_is_not_waited_for(device: Device) -> None:
    device.runtime.of, device.runtime.left = "v2", 1000
    device.runtime.error = ContainerError(Kind.PORT_CONFLICT, "Port 80 is taken.")
    assert device.to(device.fleet.release("v2")).state is ReportState.ROLLED_BACK
    assert 1000 - device.runtime.left == 1
    assert bad(device.config) == ["Port 80 is taken."]
    assert "passing" not in rows(device.config)[-1].evidence


@pytest.mark.parametrize(
    ("said", "passes"),
    [
        ("Bind for 0.0.0.0:8080 failed: port is already allocated", True),
        ("listen tcp4 0.0.0.0:1: bind: address already in use", False),
    ],
)
def test_only_docker_is_waited_for_to_let_go_of_a_port(said: str, passes: bool) -> None:
    error = docker_errors.compose_failed("start the services", CompletedProcess(1, "", f"Error: {said}\n"))
    assert (error.kind, error.retryable) == (Kind.PORT_CONFLICT, passes)


@pytest.mark.parametrize(("exit_code", "signal"), [(-9, 9), (137, 9), (-11, 11), (1, None), (0, None)])
def test_which_signal_ended_a_program(exit_code: int, signal: int | None) -> None:
    assert CompletedProcess(exit_code, "", "").killed_by == signal


HUNG = "Compose did not finish within 300 s and was killed."


def test_a_start_that_hangs_is_rolled_back_and_held_against_the_release_at_the_third_time(
    device: Device,
) -> None:
    """Each time what ran before is started by the same Compose: then it is the release."""
    v2 = device.fleet.release("v2")
    device.runtime.of, device.runtime.left = "v2", 1000
    device.runtime.error = ContainerError(Kind.COMPOSE_HUNG, HUNG, retryable=True)
    waits = []
    for n in range(1, 4):
        assert bad(device.config) == []
        device.clock.at += timedelta(hours=2)
        status = device.to(v2)
        assert (status.state, status.current) == (ReportState.ROLLED_BACK, device.v1)
        # A hang takes minutes, so it is not repeated at once.
        assert 1000 - device.runtime.left == n
        trouble = failure_memory.load(device.config.paths.known_bad).trouble
        waits += [one.failures for one in trouble.values()]
        assert device.to(v2).current == device.v1
    assert (bad(device.config), waits) == ([f"{HUNG} That was so 3 times."], [1, 2])
    assert 1000 - device.runtime.left == 3


def test_a_start_that_hangs_because_docker_does_is_held_against_no_release(device: Device) -> None:
    """What ran before hangs as well; the device comes back by itself, and then the release is tried again."""
    v2 = device.fleet.release("v2")
    device.runtime.of, device.runtime.left = "v", 1000
    device.runtime.error = ContainerError(Kind.COMPOSE_HUNG, HUNG, retryable=True)
    for _ in range(4):
        device.clock.at += timedelta(hours=2)
        status = device.to(v2)
        assert status.state is ReportState.SAFE_MODE
    assert bad(device.config) == []
    device.runtime.left = 0
    assert device.recover(after=timedelta(hours=2)).current == device.v1
    assert device.to(v2).current == v2


def test_a_validate_that_hangs_is_tried_later_and_known_bad_at_the_third_time(device: Device) -> None:
    role = ROLE_YAML + "validate: {timeout_s: 0.2}\n"
    hung = device.fleet.release("hung-check", edits={"validate": "#!/bin/sh\nsleep 60\n", "role.yaml": role})
    for held in ([], [], ["The role's validate did not finish within 0.2 s. That was so 3 times."]):
        device.clock.at += timedelta(hours=2)
        status = device.to(hung)
        assert (status.current, status.error_kind) == (device.v1, Kind.VALIDATE_ENDLESS)
        assert bad(device.config) == held


class Unverified(GitSource):
    """Its programs are killed the first `left` times."""

    left = 0

    def verify(self, release: Release) -> str | None:
        if self.left:
            self.left -= 1
            raise tool_failed("git cat-file was killed (signal 9)", error=ReleaseError)
        return super().verify(release)


def test_a_signature_that_could_not_be_verified_is_tried_again_and_then_later(device: Device) -> None:
    source = Unverified(device.config, Direct())
    device.dependencies = replace(device.dependencies, source=source)
    v2, v3 = device.fleet.release("v2"), device.fleet.release("v3")
    source.left = 3
    assert device.to(v2).current == v2
    source.left = 1000
    status = device.to(v3)
    assert (status.current, status.error_kind) == (v2, Kind.TOOL_FAILED)
    assert (1000 - source.left, bad(device.config)) == (5, [])
    source.left = 0
    assert device.to(v3).current == v2
    device.clock.at += timedelta(hours=2)
    assert device.to(v3).current == v3


@pytest.mark.parametrize("signers", ["", None])
def test_signers_that_cannot_be_read_are_no_fault_of_a_release(device: Device, signers: str | None) -> None:
    file = device.config.allowed_signers
    assert file is not None
    text, v2 = file.read_text(), device.fleet.release("v2")
    file.unlink()
    if signers is not None:
        file.write_text(signers)
    assert device.to(v2).current == device.v1
    assert bad(device.config) == []
    file.write_text(text)
    device.clock.at += timedelta(hours=2)
    assert device.to(v2).current == v2


@pytest.mark.parametrize(
    ("said", "kind"),
    [
        ("fatal error: runtime: out of memory", Kind.COMPOSE_KILLED),
        ("fork/exec /usr/bin/x: resource temporarily unavailable", Kind.COMPOSE_KILLED),
        ("write /tmp/x: no space left on device", Kind.DISK_FULL),
        ("container init was OOM-killed (memory limit too low?): cannot allocate memory", None),
        ("services.web.imag Additional property imag is not allowed", None),
    ],
)
def test_what_a_device_has_too_little_of_is_no_fault_of_a_compose_file(said: str, kind: Kind | None) -> None:
    error = docker_errors.passing("resolve the compose file", CompletedProcess(2, "", f"{said}\n"))
    assert (error and error.kind) == kind


def test_compose_killed_while_it_resolves_is_tried_later(device: Device) -> None:
    v2 = device.fleet.release("v2")
    device.runtime.resolves = False
    status = device.to(v2)
    assert (status.phase, status.error) == ("steady", KILLED)
    assert bad(device.config) == []
    device.runtime.resolves = True
    device.clock.at += timedelta(hours=2)
    assert device.to(v2).current == v2


def test_a_validate_that_was_killed_is_tried_later(device: Device) -> None:
    killed = device.fleet.release("v2-killed", edits={"validate": "#!/bin/sh\nkill -9 $$\n"})
    status = device.to(killed)
    assert status.error == "The role's validate was killed (signal 9), perhaps for lack of memory."
    assert bad(device.config) == []


def test_a_device_comes_back_from_safe_mode_by_itself_after_waits_that_grow(device: Device) -> None:
    status = device.strand()
    assert "1000" not in status.reason
    made = len(rows(device.config))
    waits = []
    for _ in range(9):
        at = status.next_try_at
        waits.append((at - device.clock.corrected()).total_seconds())
        # Not before its time.
        left = device.runtime.left
        assert device.recover().next_try_at == at
        assert device.runtime.left == left
        device.clock.at += at - device.clock.corrected()
        status = device.recover()
        assert (status.state, status.services, status.error) == (ReportState.SAFE_MODE, (), KILLED)
        assert device.runtime.left < left
    for n, wait in enumerate(waits):
        ceiling = min(3600, 30 * 2**n)
        assert ceiling / 2 - 1 <= wait <= ceiling
    assert len(rows(device.config)) == made
    assert status.reason.startswith("Safe mode: the previous release did not come back: Compose was killed")
    assert f"v1 will be tried again at {status.next_try_at:%H:%M} UTC." in status.reason
    device.runtime.left = 0
    status = device.recover(after=timedelta(hours=1, seconds=1))
    assert (status.state, status.current, status.next_try_at) == (ReportState.HEALTHY, device.v1, None)
    assert status.reason.startswith("Left safe mode on its own: ")
    assert [row.outcome for row in rows(device.config)][made:] == [Outcome.SUCCEEDED]
    assert bad(device.config) == ["Web exited with code 1."]
    assert not device.config.paths.in_safe_mode.exists()


def test_who_is_sent_to_safe_mode_stays_there(device: Device) -> None:
    device.strand()
    device.runtime.left = 0
    status = api.enter_safe_mode(device.config, reason="a look", dependencies=device.dependencies)
    assert status.next_try_at is None
    assert status.reason.startswith("Safe mode: a look. Before: the previous release did not come back")
    assert device.recover(after=timedelta(hours=2)).state is ReportState.SAFE_MODE
    # A fix that fails does not end that.
    device.to(device.fleet.release("bad-again", "crash"))
    assert device.recover(after=timedelta(hours=2)).state is ReportState.SAFE_MODE
    assert api.leave_safe_mode(device.config, dependencies=device.dependencies).current == device.v1


def test_one_that_was_told_to_leave_safe_mode_and_could_not_goes_on_trying(device: Device) -> None:
    api.enter_safe_mode(device.config, dependencies=device.dependencies)
    device.runtime.of, device.runtime.left = "v1", 1000
    status = api.leave_safe_mode(device.config, dependencies=device.dependencies)
    assert (status.state, status.next_try_at is not None) == (ReportState.SAFE_MODE, True)
    device.runtime.left = 0
    assert device.recover(after=timedelta(hours=2)).state is ReportState.HEALTHY


def test_a_first_release_that_fails_has_nothing_to_come_back_to(fleet: Fleet, root: Path) -> None:
    config, dependencies = fleet.config(root), Dependencies(clock=FakeClock())
    status = api.converge(
        config, fleet.directive(fleet.release("bad-crash", "crash")), dependencies=dependencies
    )
    assert (status.state, status.next_try_at) == (ReportState.SAFE_MODE, None)


def test_a_try_that_dies_is_finished_and_one_that_kills_the_engine_waits_longer(device: Device) -> None:
    device.strand()
    due = device.config.paths.journal
    before = journals.load(due)
    assert before is not None
    assert before.safe_mode is not None

    class Dies(Trouble):
        def up(self, stack: ComposeStack) -> None:
            if "VERSION" in stack.file.read_text():
                raise KeyboardInterrupt
            super().up(stack)

    device.clock.at += timedelta(hours=2)
    dying = Dependencies(clock=device.clock, runtime=Dies(device.config.paths.state / "simulated.json"))
    for _ in range(2):
        with pytest.raises(KeyboardInterrupt):
            api.recover(device.config, dependencies=dying)
    device.runtime.left = 0
    status = device.recover()
    assert (status.state, status.services) == (ReportState.SAFE_MODE, ())
    after = journals.load(due)
    assert after is not None
    assert after.safe_mode is not None
    assert (after.safe_mode.tries, after.safe_mode.reason) == (1, before.safe_mode.reason)
    assert device.recover(after=timedelta(hours=2)).state is ReportState.HEALTHY


class MachineOffError(BaseException):
    """The power went, or the engine was killed: nothing after this runs."""


@pytest.mark.parametrize(("where", "blamed"), [("fetch", False), ("verify", False), ("check", True)])
def test_a_machine_that_goes_off_before_a_release_is_verified_blames_no_release(
    device: Device, monkeypatch: pytest.MonkeyPatch, where: str, blamed: bool
) -> None:
    """Whoever runs the Git host could make it bad otherwise. Preparing what was verified counts as before."""

    def off(*_: object, **__: object) -> None:
        raise MachineOffError

    v2 = device.fleet.release("v2")
    with monkeypatch.context() as patch:
        patch.setattr(GitSource, where, off)
        for _ in range(5):
            with suppress(MachineOffError):
                device.to(v2)
            device.clock.at += timedelta(hours=2)
            device.recover()
    assert bool(bad(device.config)) is blamed
    device.clock.at += timedelta(hours=2)
    assert device.to(v2).current == (device.v1 if blamed else v2)
