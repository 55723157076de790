"""Everything the engine does to the world goes through here: a test can watch it, and stop it anywhere."""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Protocol, TypeVar

if TYPE_CHECKING:
    from fleet_agent.containers.base import Runtime
    from fleet_agent.engine.source import Source
    from fleet_agent.model import Directive

T = TypeVar("T")


class Effects(Protocol):
    """Performs one named effect. `name` is stable: `write journal`, `link app_current`, `compose up`, …"""

    def perform(self, name: str, action: Callable[[], T]) -> T: ...


class Direct:
    """The real thing: just do it."""

    def perform(self, name: str, action: Callable[[], T]) -> T:
        return action()


class Clock(Protocol):
    """`now` is wall time in UTC and may jump; durations come from `monotonic`, in seconds."""

    def now(self) -> datetime: ...

    def monotonic(self) -> float: ...

    def sleep(self, seconds: float) -> None: ...


class SystemClock:
    def now(self) -> datetime:
        return datetime.now(UTC)

    def monotonic(self) -> float:
        return time.monotonic()

    def sleep(self, seconds: float) -> None:
        time.sleep(seconds)


def _nothing_newer() -> Directive | None:
    return None


@dataclass(frozen=True)
class Seams:
    """What a caller or a test may put in the engine's way.

    `newest` is asked at each boundary between phases before the swap: a directive that arrived meanwhile.
    """

    effects: Effects = field(default_factory=Direct)
    clock: Clock = field(default_factory=SystemClock)
    newest: Callable[[], Directive | None] = _nothing_newer
    runtime: Runtime | None = None
    source: Source | None = None
