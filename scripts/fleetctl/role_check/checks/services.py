"""Services: seen to be well, back after a crash, and named by Compose."""

from __future__ import annotations

from collections.abc import Iterator

from fleetctl.role_check.findings import Finding, error, warning
from fleetctl.role_check.subject import Subject


def services_have_healthchecks(subject: Subject) -> Iterator[Finding]:
    for name, service in subject.services.items():
        check = service.get("healthcheck")
        absent = not isinstance(check, dict) or check.get("disable") or check.get("test") in (["NONE"], None)
        if absent and name not in subject.one_shot:
            yield error(
                "healthcheck_missing",
                f"{name} has no healthcheck, so nothing can tell whether it works.",
                name,
            )


def services_restart(subject: Subject) -> Iterator[Finding]:
    for name, service in subject.services.items():
        if service.get("restart", "no") == "no" and name not in subject.one_shot:
            yield warning(
                "restart_missing", f"{name} has no restart policy, so it stays down after a crash.", name
            )


def names_are_left_to_compose(subject: Subject) -> Iterator[Finding]:
    for name, service in subject.services.items():
        if "container_name" in service:
            yield error(
                "container_name", f"{name} sets container_name, which collides during an update.", name
            )
