"""Health: the checks in role.yaml, and the role's own `validate`."""

from __future__ import annotations

from collections.abc import Iterator

from fleet_agent.errors import FleetError
from fleet_agent.roles.schema import CommandCheck, ComposeCheck, ContainerCheck, LogCheck
from fleetctl.role_check.findings import Finding, error, warning
from fleetctl.role_check.subject import Subject


def checked_services_exist(subject: Subject) -> Iterator[Finding]:
    for check in subject.role.health.checks:
        named: tuple[str, ...] = ()
        if isinstance(check, ContainerCheck):
            named = (*check.services, *check.completed)
        elif isinstance(check, ComposeCheck | LogCheck):
            named = check.services
        elif isinstance(check, CommandCheck):
            named = (check.service,)
        for name in named:
            if name not in subject.services:
                yield error(
                    "service_unknown",
                    f"A {check.kind} check refers to service {name}, which is not in compose.yaml.",
                )


def health_is_declared(subject: Subject) -> Iterator[Finding]:
    if not subject.role.health.checks:
        yield warning(
            "checks_missing", "role.yaml declares no health checks, so a bad update is harder to detect."
        )


def validate_can_run(subject: Subject) -> Iterator[Finding]:
    try:
        file = subject.role.validate_file
    except FleetError as refused:
        yield error("validate_not_executable", refused.message)
        return
    if file is not None:
        with file.open("rb") as handle:
            start = handle.read(4)
        if not start.startswith(b"#!") and start != b"\x7fELF":
            yield error(
                "validate_not_executable", "validate is neither a script that starts with #! nor a program."
            )
