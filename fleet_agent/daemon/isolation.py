"""Cut off from the control plane for so long that it becomes the device's state: `isolated`.

Counted from the first check-in that was not answered, on the monotonic clock, so a long poll interval alone
does not isolate a device. The file is written when isolation begins and removed when it ends: `fleet-agent
status` reads it, and a restart in between keeps the state.
"""

from __future__ import annotations

from datetime import UTC, datetime
from pathlib import Path

from loguru import logger
from pydantic import ConfigDict
from pydantic import ValidationError as PydanticValidationError

from fleet_agent.errors import FleetError, StateError
from fleet_agent.model import Frozen
from fleet_agent.support import atomic_files
from fleet_agent.support.clock import Clock


class Mark(Frozen):
    """What is on disk while isolated: since when (the best known time), and the error that did it."""

    model_config = ConfigDict(frozen=True, extra="ignore")

    since: datetime
    error_kind: str
    error: str


class Isolation:
    def __init__(self, file: Path, clock: Clock) -> None:
        self._file = file
        self._clock = clock
        self._first_unanswered: tuple[float, datetime] | None = None
        self.mark = read(file)

    @property
    def is_on(self) -> bool:
        return self.mark is not None

    def unanswered(self, error: FleetError, after_s: float) -> bool:
        """Note a check-in without an answer; return whether the device is isolated from now on."""
        if self._first_unanswered is None:
            self._first_unanswered = (self._clock.monotonic(), self._clock.now())
        at, since = self._first_unanswered
        if self.mark is not None or self._clock.monotonic() - at < after_s:
            return False
        self.mark = Mark(since=since, error_kind=error.kind.value, error=str(error))
        try:
            atomic_files.write_atomic(self._file, self.mark.model_dump_json().encode())
        except StateError as problem:
            # A full disk must not stop anything; after a restart, counting starts again.
            logger.warning("the isolation could not be recorded: {e}", e=problem)
        return True

    def answered(self) -> Mark | None:
        """Note that the control plane answered; return the isolation that just ended, if any."""
        ended, self.mark = self.mark, None
        self._first_unanswered = None
        if ended is not None:
            try:
                atomic_files.remove(self._file)
            except StateError as problem:
                logger.warning("after a restart this device will count as isolated: {e}", e=problem)
        return ended


def read(file: Path) -> Mark | None:
    """The mark on disk; None if there is none or it cannot be read."""
    try:
        mark = Mark.model_validate_json(file.read_bytes())
    except (OSError, PydanticValidationError):
        return None
    return mark if mark.since.tzinfo else mark.model_copy(update={"since": mark.since.replace(tzinfo=UTC)})
