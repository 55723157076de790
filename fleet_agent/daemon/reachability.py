"""Whether the control plane answers this device, and when it may be asked again."""

from __future__ import annotations

from loguru import logger

from fleet_agent.control_plane.error_mapping import is_an_answer, refuses_this_device
from fleet_agent.daemon import decide
from fleet_agent.daemon.isolation import Isolation, Mark
from fleet_agent.daemon.schedule import Outcome, Schedule
from fleet_agent.errors import ControlPlaneError, Kind
from fleet_agent.host.sd_notify import Notifier
from fleet_agent.support.clock import Clock


class Reachability:
    def __init__(self, isolation: Isolation, schedule: Schedule, clock: Clock, notifier: Notifier) -> None:
        self._isolation = isolation
        self._schedule = schedule
        self._clock = clock
        self._notifier = notifier
        self._refusal: Kind | None = None
        #: While isolated, or after Retry-After, the control plane is not asked before this (monotonic).
        self.ask_again_at = float("-inf")

    @property
    def is_isolated(self) -> bool:
        return self._isolation.is_on

    @property
    def is_pending(self) -> bool:
        """Whether an operator must accept this device first."""
        return self._refusal == Kind.DEVICE_PENDING

    @property
    def may_poll(self) -> bool:
        return self._clock.monotonic() >= self.ask_again_at

    def answered(self) -> str | None:
        """Note that the control plane answered; returns where this device was, if it was isolated."""
        self.ask_again_at = float("-inf")
        told = self._no_longer_isolated()
        if self._refusal is not None:
            logger.info("the control plane accepts this device again")
            self._refusal = None
        return told

    def not_answered(
        self, error: ControlPlaneError, *, isolated_after_s: float, interval_s: float
    ) -> Outcome:
        """Note what kept the control plane from answering, and when to ask again."""
        if is_an_answer(error):
            self._no_longer_isolated()
        if refuses_this_device(error):
            return self._refused(error)
        # One warning for each stretch of failures; what follows is logged at INFO.
        level = "WARNING" if self._schedule.failures == 0 else "INFO"
        logger.log(level, "{kind}: {error}", kind=error.kind.value, error=error)
        self._notifier.status(str(error))
        self.ask_again_at = self._asked_to_wait_until(error)
        if not is_an_answer(error):
            self._went_unanswered(error, isolated_after_s, interval_s)
        return Outcome.REFUSED if error.kind == Kind.UNAUTHORIZED else Outcome.UNREACHABLE

    def _refused(self, error: ControlPlaneError) -> Outcome:
        if self._refusal != error.kind:
            logger.warning("{kind}: {error}", kind=error.kind.value, error=error)
            self._refusal = error.kind
        self._notifier.status(str(error))
        return Outcome.REFUSED

    def _no_longer_isolated(self) -> str | None:
        """Said once: in the journal, and in `log_tail`."""
        ended = self._isolation.answered()
        if ended is None:
            return None
        told = _where_it_was(ended)
        logger.warning("no longer isolated. {told}", told=told)
        return told

    def _went_unanswered(self, error: ControlPlaneError, after_s: float, interval_s: float) -> None:
        """Note it: after long enough the device is isolated, and asks rarely, at random times."""
        if self._isolation.unanswered(error, after_s):
            logger.warning(
                "isolated: no answer from the control plane for {n:g} s; what runs is kept and repaired",
                n=after_s,
            )
        if self._isolation.is_on:
            wait = decide.isolated_wait_s(interval_s, self._schedule.uniform)
            self.ask_again_at = max(self.ask_again_at, self._clock.monotonic() + wait)
            self._notifier.status(f"isolated: {error}")

    def _asked_to_wait_until(self, error: ControlPlaneError) -> float:
        """Retry-After outlasts the check-in, but not that of a captive portal."""
        ours = error.kind in (Kind.RATE_LIMITED, Kind.SERVER_ERROR)
        if not ours or error.retry_after_s is None:
            return float("-inf")
        return self._clock.monotonic() + error.retry_after_s


def _where_it_was(ended: Mark) -> str:
    return f"Was cut off from the control plane since {ended.since:%Y-%m-%d %H:%M} UTC ({ended.error_kind})."
