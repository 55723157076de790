"""Secrets of the .env stay on the device, whoever quotes them: a service, a check, Compose, `validate`."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from datetime import datetime
from pathlib import Path

import pytest
from loguru import logger

from fleet_agent.containers.base import CommandResult, ComposeStack, LogLine
from fleet_agent.containers.simulated import SimulatedRuntime
from fleet_agent.engine import api
from fleet_agent.engine.config import EngineConfig
from fleet_agent.engine.dependencies import Dependencies
from fleet_agent.errors import ContainerError, FleetError, Kind
from fleet_agent.model import Progress, ReportState
from tests.support.engine_harness import ROLE_YAML, FakeClock, Fleet, rows

SECRET = "correct-horse-battery"
#: Where a secret may be: what Compose and the checks are given (mode 0600), and the world outside.
ITS_PLACES = {".env", "compose.json", "stack.json", "simulated.json"}
ASKS = ROLE_YAML + '  checks: [{kind: command, service: web, command: [check, "${PASSWORD}"]}]\n'


class Talkative(SimulatedRuntime):
    """From `speak` on everything quotes the secret, and nothing starts or is well."""

    speaks = False

    def execute(self, project: str, service: str, command: Sequence[str], timeout_s: float) -> CommandResult:
        if self.speaks:
            return CommandResult(1, f"{'x' * 190} login {SECRET} failed")
        return super().execute(project, service, command, timeout_s)

    def logs(self, project: str, *, lines: int, since: datetime | None = None) -> list[LogLine]:
        del project, lines, since
        return [LogLine("web", f"token {SECRET}")]

    def up(self, stack: ComposeStack) -> None:
        if self.speaks:
            raise ContainerError(Kind.COMPOSE_FAILED, f"Compose: {SECRET}.", evidence={"output": [SECRET]})
        super().up(stack)

    def restart(self, stack: ComposeStack) -> None:
        if self.speaks:
            raise ContainerError(Kind.COMPOSE_FAILED, f"Compose: {SECRET}.")
        super().restart(stack)


class Device:
    """A device on v1, whose every word outside is kept."""

    def __init__(self, fleet: Fleet, root: Path) -> None:
        self.fleet, self.config = fleet, fleet.config(root)
        self.config.paths.env_file.write_text(f"PASSWORD={SECRET}\n")
        self.runtime = Talkative(root / "state" / "simulated.json")
        self.dependencies = Dependencies(clock=FakeClock(), runtime=self.runtime)
        self.said: list[str] = []
        self.to("asks", role=ASKS)

    def to(self, version: str, **edits: str) -> None:
        named = {"role": "role.yaml", "validate": "validate"}
        release = self.fleet.release(version, edits={named[key]: text for key, text in edits.items()})
        self.do(
            lambda: api.converge(
                self.config, self.fleet.directive(release), self.hear, dependencies=self.dependencies
            )
        )

    def hear(self, progress: Progress) -> None:
        self.said.append(progress.model_dump_json())

    def do(self, what: Callable[[], object]) -> None:
        try:
            self.said.append(repr(what()))
        except FleetError as error:
            self.said.append(f"{error!r} {error} {error.message} {error.evidence}")

    def told(self, config: EngineConfig) -> str:
        """Everything that leaves the engine: status, progress, rows, and its own files."""
        files = [
            f"{file.name}: {file.read_bytes().decode(errors='replace')}"
            for file in (config.paths.root / "state").rglob("*")
            if file.is_file() and file.name not in ITS_PLACES
        ]
        return "\n".join([*self.said, *files, *(row.model_dump_json() for row in rows(config))])


@pytest.fixture
def device(fleet: Fleet, root: Path) -> Device:
    return Device(fleet, root)


@pytest.fixture
def logged() -> Iterator[list[str]]:
    """The journal of systemd, down to what only a debugging eye sees."""
    lines: list[str] = []
    sink = logger.add(lambda message: lines.append(str(message)), level="TRACE", diagnose=False)
    yield lines
    logger.remove(sink)


def _unhealthy_at_rest(device: Device) -> None:
    device.runtime.speaks = True
    device.do(lambda: api.recover(device.config, device.hear, dependencies=device.dependencies))
    device.do(lambda: api.restart(device.config, device.hear, dependencies=device.dependencies))
    assert api.status(device.config).state is ReportState.DEGRADED


def _previous_one_does_not_come_back(device: Device) -> None:
    device.runtime.speaks = True
    device.to("another")
    assert api.status(device.config).state is ReportState.SAFE_MODE


def _refused_by_validate(device: Device) -> None:
    device.to("refused", validate=f'#!/bin/sh\necho "{"y" * 290} $PASSWORD"\nexit 1\n')
    assert api.status(device.config).error_kind == "validate_failed"


def _another_role_file_without_the_secret(device: Device) -> None:
    """The new release declares no secret any more, and the old one still speaks."""
    device.runtime.speaks = True
    device.to("forgets", role=ROLE_YAML.replace("secret: true, ", ""))
    assert api.status(device.config).state is ReportState.SAFE_MODE


@pytest.mark.parametrize(
    "what",
    [
        _unhealthy_at_rest,
        _previous_one_does_not_come_back,
        _refused_by_validate,
        _another_role_file_without_the_secret,
    ],
)
def test_secrets_leave_by_no_way(device: Device, logged: list[str], what: Callable[[Device], None]) -> None:
    what(device)
    told = device.told(device.config)
    assert SECRET[:8] not in told
    assert SECRET[:8] not in "".join(logged)
    assert "***" in told
