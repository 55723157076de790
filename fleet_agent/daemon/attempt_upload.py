"""Finished attempts: from the outbox to `update_history`, and to the device's own history."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from uuid import UUID

from loguru import logger

from fleet_agent.attempts.history import History
from fleet_agent.attempts.outbox import Outbox
from fleet_agent.control_plane.client import HISTORY_BATCH, ControlPlane
from fleet_agent.errors import ControlPlaneError, Kind, StateError
from fleet_agent.model import Attempt
from fleet_agent.support.clock import Clock
from fleet_agent.support.words import counted

#: A row that stays in the outbox is sent again after this: one that the control plane refused, and one that
#: it accepted while the disk could not be written.
LEFT_ROW_S = 3600.0


class AttemptUpload:
    """`note_progress` is called after each request, so that a long upload does not count as a hang."""

    def __init__(
        self, outbox: Outbox, history: History, clock: Clock, note_progress: Callable[[], None]
    ) -> None:
        self._outbox = outbox
        self._history = history
        self._clock = clock
        self._note_progress = note_progress
        self._left_at: dict[UUID, float] = {}
        self._not_before = float("-inf")

    async def upload(self, plane: ControlPlane) -> None:
        """Send the outbox. Raises ControlPlaneError only if nothing else would succeed either.

        A device that has written what it may in an hour keeps the rest for later: asking what to do costs it
        nothing. If the disk cannot be written, everything is sent again later, which changes nothing.
        """
        now = self._clock.monotonic()
        if now < self._not_before:
            return
        pending = [
            attempt
            for attempt in self._outbox.pending()
            if now - self._left_at.get(attempt.id, float("-inf")) > LEFT_ROW_S
        ]
        for start in range(0, len(pending), HISTORY_BATCH):
            batch = pending[start : start + HISTORY_BATCH]
            try:
                await plane.record(batch)
            except ControlPlaneError as error:
                if error.kind == Kind.RATE_LIMITED:
                    self._not_before = now + (error.retry_after_s or 0.0)
                    logger.info(
                        "In the outbox: {attempts}. {error}",
                        attempts=counted(len(pending) - start, "attempt"),
                        error=error,
                    )
                    return
                if error.kind != Kind.REFUSED:
                    raise
                await self._one_by_one(plane, batch)
                continue
            self._note_progress()
            for attempt in batch:
                self._hand_over(attempt)
            logger.info("{attempts} uploaded", attempts=counted(len(batch), "attempt"))

    async def _one_by_one(self, plane: ControlPlane, batch: Sequence[Attempt]) -> None:
        """One bad row must not hold up the others; it stays in the outbox."""
        for attempt in batch:
            self._note_progress()
            try:
                await plane.record([attempt])
                self._hand_over(attempt)
            except ControlPlaneError as error:
                if error.kind == Kind.RATE_LIMITED:
                    return
                if error.kind != Kind.REFUSED:
                    raise
                self._left_at[attempt.id] = self._clock.monotonic()
                logger.error("attempt {id} was refused: {error}", id=attempt.id, error=error)

    def _hand_over(self, attempt: Attempt) -> None:
        """A disk that cannot be written must not keep the device from polling or reporting."""
        try:
            self._outbox.hand_over(attempt.id, self._history)
        except StateError as error:
            self._left_at[attempt.id] = self._clock.monotonic()
            logger.warning("an uploaded attempt stays in the outbox: {error}", error=error)
