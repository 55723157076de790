"""What a check finds, and the report on one role."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from fleet_agent.roles.refusal import Refusal


@dataclass(frozen=True)
class Finding:
    """One thing to correct (`error`: devices would refuse or suffer) or to think about (`warning`)."""

    level: Literal["error", "warning"]
    kind: str
    message: str
    service: str | None = None


@dataclass(frozen=True)
class Report:
    """What was found in one role folder. `compose` is false if Compose is not installed."""

    role: str
    folder: str
    compose: bool
    findings: tuple[Finding, ...] = ()

    @property
    def ok(self) -> bool:
        return not any(finding.level == "error" for finding in self.findings)


def error(kind: str, message: str, service: str | None = None) -> Finding:
    return Finding("error", kind, message, service)


def refusal(refused: Refusal) -> Finding:
    """What a device would refuse, too."""
    return Finding(
        "error", refused.kind.value, f"{refused.where}: {refused.message} {refused.hint}", refused.service
    )


def warning(kind: str, message: str, service: str | None = None) -> Finding:
    return Finding("warning", kind, message, service)
