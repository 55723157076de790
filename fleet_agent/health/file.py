"""A file on the device was written not long ago."""

from __future__ import annotations

from pathlib import Path

from fleet_agent.health.base import Answer, Reading, Sight
from fleet_agent.roles.schema import FileCheck


class FileIsFresh:
    def __init__(self, wanted: FileCheck) -> None:
        self._wanted = wanted
        self.name = f"file {wanted.path}"

    def look(self, sight: Sight) -> Reading:
        try:
            written = Path(self._wanted.path).stat().st_mtime
        except OSError as error:
            return Reading(self.name, Answer.FAIL, f"{self._wanted.path} cannot be seen ({error.strerror})")
        age_s = sight.now.timestamp() - written
        if age_s > self._wanted.max_age_s:
            return Reading(
                self.name,
                Answer.FAIL,
                f"{self._wanted.path} was written {age_s:.0f} s ago, more than {self._wanted.max_age_s:g} s",
            )
        if age_s < -self._wanted.max_age_s:
            # A clock that went ahead and came back: it would be called fresh until that time comes.
            return Reading(self.name, Answer.FAIL, f"{self._wanted.path} is dated {-age_s:.0f} s ahead")
        return Reading(self.name, Answer.PASS, f"{self._wanted.path} is fresh")
