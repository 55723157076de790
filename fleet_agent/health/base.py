"""What a health check sees and says."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from datetime import datetime
from enum import StrEnum
from typing import Any, Protocol

from fleet_agent.containers.base import Container, Runtime
from fleet_agent.errors import Kind


class Answer(StrEnum):
    """FATAL cannot get better by waiting. WAIT says: not yet, and that is no failure."""

    PASS = "pass"  # noqa: S105
    WAIT = "wait"
    FAIL = "fail"
    FATAL = "fatal"


@dataclass(frozen=True)
class Reading:
    """One check's answer in one round; `detail` is a phrase for people."""

    check: str
    answer: Answer
    detail: str
    kind: Kind = Kind.UNHEALTHY
    evidence: dict[str, Any] = field(default_factory=dict)


@dataclass(frozen=True)
class Sight:
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
    #: Takes secrets out of what a service says; before it is cut, or half a secret would not be known as one.
    redact: Callable[[str], str] = str

    def of(self, service: str) -> list[Container]:
        return [container for container in self.containers if container.service == service]


class HealthCheck(Protocol):
    """Raises ContainerError only where the runtime does not answer; everything else is a Reading."""

    name: str

    def look(self, sight: Sight) -> Reading: ...
