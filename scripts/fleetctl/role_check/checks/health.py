"""Health: the checks in role.yaml, and the role's own `validate`."""

from __future__ import annotations

import re
from collections.abc import Iterator

from fleet_agent.errors import FleetError
from fleet_agent.health.log import LINE_LIMIT
from fleet_agent.roles.schema import Check, CommandCheck, ComposeCheck, ContainerCheck, LogCheck
from fleet_agent.support.patterns import PatternTooSlowError, matching
from fleetctl.role_check.findings import Finding, error, warning
from fleetctl.role_check.subject import Subject


def checked_services_exist(subject: Subject) -> Iterator[Finding]:
    for check in subject.role.health.checks:
        for name in _services_of(check):
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


def patterns_are_quick(subject: Subject) -> Iterator[Finding]:
    """Each log pattern is tried with lines of the kind that makes a bad one take forever."""
    for check in subject.role.health.checks:
        if not isinstance(check, LogCheck):
            continue
        try:
            matching(check.pattern, _lines_for(check.pattern))
        except PatternTooSlowError as slow:
            yield error(
                "pattern_too_slow",
                f"The log pattern /{check.pattern}/ {slow} with lines made for it; repeat nothing that "
                "repeats itself.",
            )


def _lines_for(pattern: str) -> list[str]:
    """Long lines of what the pattern is about, each with an end that it does not expect."""
    parts = dict.fromkeys([*re.findall(r"\w+", pattern), *pattern, "a", "0", " ", "a ", "a0"])
    return [(part * LINE_LIMIT)[: LINE_LIMIT - 1] + end for part in parts for end in ("\0", "!")]


def _services_of(check: Check) -> tuple[str, ...]:
    """The services that a health check names."""
    match check:
        case ContainerCheck():
            return (*check.services, *check.completed)
        case ComposeCheck() | LogCheck():
            return check.services
        case CommandCheck():
            return (check.service,)
    return ()
