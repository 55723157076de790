"""What a caller or a test injects: effects, clock, runtime, source. A test can stop at each effect."""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Protocol, TypeVar

if TYPE_CHECKING:
    from fleet_agent.containers.base import Runtime
    from fleet_agent.model import Directive, Progress, Release
    from fleet_agent.release import Origin

T = TypeVar("T")


class Effects(Protocol):
    """Performs one named effect. `name` is stable: `write journal`, `link app_current`, `compose up`, …"""

    def perform(self, name: str, action: Callable[[], T]) -> T: ...


class Direct:
    """The real thing: just performs."""

    def perform(self, name: str, action: Callable[[], T]) -> T:
        return action()


class Clock(Protocol):
    """Durations come from `monotonic`, in seconds.

    `now` is the machine's own wall clock (UTC), right or wrong: what containers and log lines go by. It may
    jump. `corrected` is the best known time, the control plane's: what is recorded, and waited for.
    """

    def now(self) -> datetime: ...

    def corrected(self) -> datetime: ...

    def monotonic(self) -> float: ...

    def sleep(self, seconds: float) -> None: ...


class SystemClock:
    def now(self) -> datetime:
        return datetime.now(UTC)

    def corrected(self) -> datetime:
        return self.now()

    def monotonic(self) -> float:
        return time.monotonic()

    def sleep(self, seconds: float) -> None:
        time.sleep(seconds)


class CorrectedClock(SystemClock):
    def __init__(self, corrected: Callable[[], datetime]) -> None:
        self._corrected = corrected

    def corrected(self) -> datetime:
        return self._corrected()


class Source(Protocol):
    """All raise ReleaseError or StateError; each may be repeated."""

    def fetch(self, release: Release, role: str, report: Callable[[Progress], None]) -> int:
        """Bring the release's files for `role` here; return the bytes that came over the network."""

    def verify(self, release: Release) -> str | None:
        """Who signed it; None on a device that does not verify."""

    def origin(self, commit: str) -> Origin:
        """Which fleet a fetched commit is for, and when it was made."""

    def export(self, release: Release, role: str) -> None:
        """Write the folder `releases/<commit>/`, completely or not at all."""

    def check(self, release: Release, role: str) -> None:
        """Refuse a folder that is not what was exported."""

    def prune(self, keep: set[str]) -> None:
        """Remove exported releases and fetched commits that are not kept. Never raises."""


def _nothing_newer() -> Directive | None:
    return None


@dataclass(frozen=True)
class Dependencies:
    """Everything that a caller or a test can replace.

    `newest` is called between the phases before the swap: a directive that has arrived meanwhile.
    """

    effects: Effects = field(default_factory=Direct)
    clock: Clock = field(default_factory=SystemClock)
    newest: Callable[[], Directive | None] = _nothing_newer
    runtime: Runtime | None = None
    source: Source | None = None
