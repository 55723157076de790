"""From the checks that a role declares to the code that runs them."""

from __future__ import annotations

from collections.abc import Sequence

from fleet_agent.health.base import HealthCheck
from fleet_agent.health.command import CommandSucceeds
from fleet_agent.health.compose import ComposeHealthy
from fleet_agent.health.container import ContainerRuns
from fleet_agent.health.file import FileIsRecent
from fleet_agent.health.http import HttpResponds
from fleet_agent.health.log import LogIsQuiet
from fleet_agent.health.tcp import TcpOpens
from fleet_agent.roles.schema import (
    Check,
    CommandCheck,
    ComposeCheck,
    ContainerCheck,
    FileCheck,
    HttpCheck,
    LogCheck,
    TcpCheck,
)


def make(declared: Sequence[Check], *, reachable: bool) -> list[HealthCheck]:
    """The checks to run; containers are always looked at, declared or not.

    If nothing is `reachable` (simulated containers), only what the runtime itself knows is checked.
    """
    checks = [one(check) for check in declared if reachable or isinstance(check, _RUNTIME_KNOWS)]
    if not any(isinstance(check, ContainerCheck) for check in declared):
        checks.insert(0, ContainerRuns(ContainerCheck(kind="container")))
    if not any(isinstance(check, ComposeCheck) for check in declared):
        checks.append(ComposeHealthy(ComposeCheck(kind="compose")))
    return checks


_RUNTIME_KNOWS = (ContainerCheck, ComposeCheck, CommandCheck)


def one(check: Check) -> HealthCheck:  # noqa: PLR0911  one line a kind
    """The code for one declared check."""
    match check:
        case HttpCheck():
            return HttpResponds(check)
        case TcpCheck():
            return TcpOpens(check)
        case ContainerCheck():
            return ContainerRuns(check)
        case ComposeCheck():
            return ComposeHealthy(check)
        case LogCheck():
            return LogIsQuiet(check)
        case CommandCheck():
            return CommandSucceeds(check)
        case FileCheck():
            return FileIsRecent(check)
