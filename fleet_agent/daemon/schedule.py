"""When the next check-in is due, and why: polls, wakes and failures all end here.

Everything is counted on the monotonic clock, so a clock that jumps changes nothing.
"""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Callable
from dataclasses import dataclass, field
from enum import IntEnum

from fleet_agent.daemon import decide
from fleet_agent.support import retry
from fleet_agent.support.clock import Clock

#: Why the loop turns when nothing else made it.
POLL = "poll"
#: A device that waits to be accepted asks this often: no wake can reach it yet.
PENDING_POLL_S = 60.0


class Outcome(IntEnum):
    """What one check-in came to; the value is the exit code of `fleet-agent once`."""

    CONVERGED = 0
    NOT_CONVERGED = 1
    UNREACHABLE = 3
    REFUSED = 4
    LOCKED = 75


@dataclass
class Due:
    """When the next check-in is due, on the monotonic clock, and why; only ever moved closer."""

    at: float
    why: str

    def no_later_than(self, at: float, why: str) -> bool:
        if at >= self.at:
            return False
        self.at, self.why = at, why
        return True


@dataclass
class Schedule:
    """`failures` counts the check-ins in a row that did not converge. Times in seconds."""

    clock: Clock
    uniform: Callable[[float, float], float] = retry.uniform
    due: Due = field(default_factory=lambda: Due(float("-inf"), "start"))
    failures: int = 0
    _stir: asyncio.Event = field(default_factory=asyncio.Event)

    @property
    def left_s(self) -> float:
        """Seconds until the next check-in is due; zero or less once it is."""
        return self.due.at - self.clock.monotonic()

    def take(self) -> str:
        """Begin what was due, and return why; what is noted from now on is for the next turn."""
        why, self.due = self.due.why, Due(float("inf"), POLL)
        return why

    def hasten(self, spread_s: float, why: str, *, after_s: float = 0.0) -> None:
        """Check in within `spread_s`, from now or `after_s` on; during an update, right after it."""
        at = self.clock.monotonic() + after_s + decide.wake_wait_s(spread_s, self.uniform)
        if self.due.no_later_than(at, why):
            self.stir()

    def stir(self) -> None:
        """End a `rest` early: there is something to do."""
        self._stir.set()

    async def rest(self, at_most_s: float) -> None:
        """Wait for the due time, a stir, or `at_most_s`, whichever comes first."""
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(min(self.left_s, at_most_s)):
                await self._stir.wait()
        self._stir.clear()

    def count(self, outcome: Outcome) -> None:
        self.failures = 0 if outcome == Outcome.CONVERGED else self.failures + 1

    def poll_within(self, wait_s: float) -> None:
        self.due.no_later_than(self.clock.monotonic() + wait_s, POLL)

    def wait_s(self, outcome: Outcome, interval_s: float, *, isolated: bool, pending: bool) -> float:
        """Seconds after `outcome` until the device checks in again without a wake."""
        if outcome == Outcome.CONVERGED:
            return decide.poll_wait_s(interval_s, self.uniform)
        if outcome == Outcome.REFUSED:
            return decide.poll_wait_s(
                min(interval_s, PENDING_POLL_S) if pending else interval_s, self.uniform
            )
        if isolated:
            # What runs is repaired as often as ever; the control plane is not asked each time.
            return decide.poll_wait_s(interval_s, self.uniform)
        return decide.failure_wait_s(self.failures, interval_s, self.uniform)
