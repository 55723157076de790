"""The services' logs hold no more matching lines than the role allows."""

from __future__ import annotations

from datetime import timedelta

from fleet_agent.errors import Kind
from fleet_agent.health.base import CheckContext, CheckOutcome, CheckResult
from fleet_agent.roles.schema import LogCheck
from fleet_agent.support.patterns import PatternTooSlowError, matching

#: Lines looked at per container and round.
LINES = 2000
#: Characters of a line that are searched.
LINE_LIMIT = 2000


class LogIsQuiet:
    def __init__(self, wanted: LogCheck) -> None:
        self._wanted = wanted
        self.name = f"log /{wanted.pattern}/"

    def look(self, context: CheckContext) -> CheckResult:
        # What an untouched service logged before the update does not count against the release.
        since = max(context.since, context.now - timedelta(seconds=self._wanted.window_s))
        lines = [
            line
            for line in context.runtime.logs(context.project, lines=LINES, since=since)
            if (not self._wanted.services or line.service in self._wanted.services)
            and (line.at is None or line.at >= since)
        ]
        try:
            found = matching(self._wanted.pattern, [line.text[:LINE_LIMIT] for line in lines])
        except PatternTooSlowError as error:
            return CheckResult(
                self.name, CheckOutcome.FATAL, f"the log pattern /{self._wanted.pattern}/ {error}",
                kind=Kind.PATTERN_TOO_SLOW,
            )  # fmt: skip
        except OSError as error:
            return CheckResult(self.name, CheckOutcome.FAIL, f"the logs could not be searched ({error})")
        if len(found) <= self._wanted.max_matches:
            return CheckResult(self.name, CheckOutcome.PASS, "the logs are quiet")
        last = lines[found[-1]]
        said = context.redact(last.text)[:200]
        return CheckResult(
            self.name,
            CheckOutcome.FAIL,
            f"{len(found)} log lines match /{self._wanted.pattern}/, "
            f"more than {self._wanted.max_matches}; the last, from {last.service}: {said}",
        )
