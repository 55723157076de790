"""What a health check looks at, and what it finds."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from datetime import datetime
from enum import StrEnum
from typing import Any, Protocol

from fleet_agent.containers.base import Container, Runtime
from fleet_agent.errors import Kind


class CheckOutcome(StrEnum):
    """FATAL cannot get better by waiting. WAIT means not yet, which is not a failure."""

    PASS = "pass"  # noqa: S105
    WAIT = "wait"
    FAIL = "fail"
    FATAL = "fatal"


WORST_FIRST = (CheckOutcome.FATAL, CheckOutcome.FAIL, CheckOutcome.WAIT, CheckOutcome.PASS)


@dataclass(frozen=True)
class CheckResult:
    """What one check found in one round; `detail` is a phrase for people."""

    check: str
    outcome: CheckOutcome
    detail: str
    kind: Kind = Kind.UNHEALTHY
    evidence: dict[str, Any] = field(default_factory=dict)


@dataclass(frozen=True)
class CheckContext:
    """What all checks of one round look at.

    `restarts_before` counts by container id, from before the update.
    """

    containers: tuple[Container, ...]
    expected: tuple[str, ...]
    runtime: Runtime
    project: str
    since: datetime
    now: datetime
    monotonic: Callable[[], float]
    restarts_before: dict[str, int] = field(default_factory=dict)
    #: How many containers a service should have; 1 unless it is named.
    replicas: Mapping[str, int] = field(default_factory=dict)
    #: Services that are done when they exited with code 0.
    one_shots: frozenset[str] = frozenset()
    #: Takes secrets out of a service's output; before it is cut, or half a secret would not be recognized.
    redact: Callable[[str], str] = str

    def is_done(self, container: Container) -> bool:
        """Whether it is a one-shot service's and ended well."""
        return (
            container.service in self.one_shots and container.state == "exited" and container.exit_code == 0
        )

    def of(self, service: str) -> list[Container]:
        return [container for container in self.containers if container.service == service]


class HealthCheck(Protocol):
    """Raises ContainerError only if the runtime does not answer; everything else is a CheckResult."""

    name: str

    def look(self, context: CheckContext) -> CheckResult: ...
