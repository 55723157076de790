"""Finished attempts on disk until the control plane has them: one file each, named by its id.

Afterwards they are `history`.
"""

from __future__ import annotations

import contextlib
from pathlib import Path
from uuid import UUID

from loguru import logger
from pydantic import ValidationError as PydanticValidationError

from fleet_agent.attempts.history import History
from fleet_agent.errors import StateError
from fleet_agent.model import Attempt
from fleet_agent.support import atomic_files

#: Attempts kept whole while the control plane is away; then the oldest lose evidence, never an outcome.
DETAIL_LIMIT = 200
#: And this many bytes: all are uploaded at once when it is back, within what a device may write in an hour.
DETAIL_BYTES = 384 * 1024


class Outbox:
    """Idempotent by construction: the same attempt put twice is one file, uploaded twice is one row."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder

    def put(self, attempt: Attempt) -> None:
        """Keep `attempt` durably. Raises StateError."""
        atomic_files.write_atomic(self._file(attempt.id), attempt.model_dump_json().encode())
        try:
            self._drop_old_detail()
        except StateError as error:
            # The attempt is kept; a full disk only keeps old detail longer.
            logger.warning("cannot drop old details from the outbox: {error}", error=error)

    def pending(self) -> list[Attempt]:
        """Every attempt not yet discarded, oldest first. An unreadable file is set aside, not lost."""
        found = []
        for file in self._files():
            try:
                found.append(Attempt.model_validate_json(file.read_bytes()))
            except FileNotFoundError:
                continue
            except (PydanticValidationError, OSError) as error:
                logger.error(
                    "the outbox entry {file} cannot be read and is set aside: {error}", file=file, error=error
                )
                with contextlib.suppress(OSError):
                    file.replace(file.with_suffix(".unreadable"))
        return sorted(found, key=lambda attempt: attempt.started_at)

    def hand_over(self, attempt_id: UUID, history: History) -> None:
        """The control plane has it: it is history from now on. Raises StateError."""
        history.take(self._file(attempt_id))

    def _file(self, attempt_id: UUID) -> Path:
        return self.folder / f"{attempt_id}.json"

    def _files(self) -> list[Path]:
        return sorted(self.folder.glob("*.json")) if self.folder.is_dir() else []

    def _drop_old_detail(self) -> None:
        files = self._files()
        if len(files) <= DETAIL_LIMIT and sum(file.stat().st_size for file in files) <= DETAIL_BYTES:
            return
        kept = 0
        for place, attempt in enumerate(reversed(self.pending())):
            kept += len(attempt.model_dump_json())
            if place < DETAIL_LIMIT and (kept <= DETAIL_BYTES or place == 0):
                continue
            if attempt.evidence or attempt.phase_durations_ms:
                slim = attempt.model_copy(update={"evidence": {}, "phase_durations_ms": {}})
                atomic_files.write_atomic(self._file(attempt.id), slim.model_dump_json().encode())
