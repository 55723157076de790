"""The last attempts of this device, kept after upload for whoever stands at the device.

Bounded, and written only by moving files that are on the disk already: one for each attempt.
"""

from __future__ import annotations

import contextlib
from pathlib import Path

from pydantic import ValidationError as PydanticValidationError

from fleet_agent.model import Attempt
from fleet_agent.support import atomic_files

#: Attempts kept after they were uploaded. One with all its evidence is 12 KB at most, usually 1.
KEPT = 50


class History:
    def __init__(self, folder: Path) -> None:
        self.folder = folder

    def take(self, file: Path) -> None:
        """Move `file`, an uploaded attempt, here; the oldest beyond `KEPT` go. Raises StateError.

        The file may be gone already.
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
        """What is kept and can be read, oldest first."""
        return [attempt for _, attempt in self._found() if attempt is not None]

    def _beyond(self) -> list[Path]:
        found = [file for file, _ in self._found()]
        return found[: max(len(found) - KEPT, 0)]

    def _found(self) -> list[tuple[Path, Attempt | None]]:
        """Sorted by their start; what cannot be read counts as the oldest."""
        files = self.folder.glob("*.json") if self.folder.is_dir() else []
        found = [(file, _read(file)) for file in files]
        return sorted(found, key=lambda one: one[1].started_at.timestamp() if one[1] else float("-inf"))


def _read(file: Path) -> Attempt | None:
    try:
        return Attempt.model_validate_json(file.read_bytes())
    except (OSError, PydanticValidationError):
        return None
