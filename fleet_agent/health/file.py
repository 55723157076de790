"""A file on the device was written recently."""

from __future__ import annotations

from pathlib import Path

from fleet_agent.health.base import CheckContext, CheckOutcome, CheckResult
from fleet_agent.roles.schema import FileCheck


class FileIsRecent:
    def __init__(self, wanted: FileCheck) -> None:
        self._wanted = wanted
        self.name = f"file {wanted.path}"

    def look(self, context: CheckContext) -> CheckResult:
        try:
            written = Path(self._wanted.path).stat().st_mtime
        except OSError as error:
            return CheckResult(
                self.name, CheckOutcome.FAIL, f"{self._wanted.path} is not accessible ({error.strerror})"
            )
        age_s = context.now.timestamp() - written
        if age_s > self._wanted.max_age_s:
            return CheckResult(
                self.name,
                CheckOutcome.FAIL,
                f"{self._wanted.path} was written {age_s:.0f} s ago, more than {self._wanted.max_age_s:g} s",
            )
        if age_s < -self._wanted.max_age_s:
            # A clock that went ahead and came back: it would count as recent until that time comes.
            return CheckResult(
                self.name, CheckOutcome.FAIL, f"{self._wanted.path} is dated {-age_s:.0f} s in the future"
            )
        return CheckResult(self.name, CheckOutcome.PASS, f"{self._wanted.path} is recent")
