"""The last attempts of this device, kept here once the control plane has them, for who stands beside it.

Bounded, and never written but by moving what is on the disk already: one file an attempt, as in the outbox.
"""

from __future__ import annotations

import contextlib
from pathlib import Path

from pydantic import ValidationError as PydanticValidationError

from fleet_agent.model import Attempt
from fleet_agent.support import atomic_files

#: Attempts kept after they were shipped. One with all its evidence is 12 KB at most, usually 1.
KEPT = 50


class History:
    def __init__(self, folder: Path) -> None:
        self.folder = folder

    def take(self, file: Path) -> None:
        """Move `file`, a shipped attempt, here; the oldest beyond `KEPT` go. Raises StateError.

        A file that is gone already is fine.
        """
        try:
            atomic_files.make_folder(self.folder)
            with contextlib.suppress(FileNotFoundError):
                file.replace(self.folder / file.name)
            atomic_files.sync_folder(self.folder)
            atomic_files.sync_folder(file.parent)
            for old in self._beyond():
                old.unlink(missing_ok=True)
        except OSError as error:
            raise atomic_files.unwritable(file, error) from error

    def attempts(self) -> list[Attempt]:
        """What is kept, oldest first, but what cannot be read."""
        return [attempt for _, attempt in self._found() if attempt is not None]

    def _beyond(self) -> list[Path]:
        found = [file for file, _ in self._found()]
        return found[: max(len(found) - KEPT, 0)]

    def _found(self) -> list[tuple[Path, Attempt | None]]:
        """By when they started; what cannot be read counts as the oldest."""
        files = self.folder.glob("*.json") if self.folder.is_dir() else []
        found = [(file, _read(file)) for file in files]
        return sorted(found, key=lambda one: one[1].started_at.timestamp() if one[1] else float("-inf"))


def _read(file: Path) -> Attempt | None:
    try:
        return Attempt.model_validate_json(file.read_bytes())
    except (OSError, PydanticValidationError):
        return None
