"""The services' logs hold no more matching lines than the role allows."""

from __future__ import annotations

import re
from datetime import timedelta

from fleet_agent.health.base import CheckContext, CheckOutcome, CheckResult
from fleet_agent.roles.schema import LogCheck

#: Lines looked at per container and round.
LINES = 2000
#: Characters of a line that are searched: a pattern must not run for minutes over one huge line.
LINE_LIMIT = 2000


class LogIsQuiet:
    def __init__(self, wanted: LogCheck) -> None:
        self._wanted = wanted
        self._pattern = re.compile(wanted.pattern)
        self.name = f"log /{wanted.pattern}/"

    def look(self, context: CheckContext) -> CheckResult:
        # What an untouched service logged before the update does not count against the release.
        since = max(context.since, context.now - timedelta(seconds=self._wanted.window_s))
        matching = [
            line
            for line in context.runtime.logs(context.project, lines=LINES, since=since)
            if (not self._wanted.services or line.service in self._wanted.services)
            and (line.at is None or line.at >= since)
            and self._pattern.search(line.text[:LINE_LIMIT])
        ]
        if len(matching) <= self._wanted.max_matches:
            return CheckResult(self.name, CheckOutcome.PASS, "the logs are quiet")
        last = matching[-1]
        said = context.redact(last.text)[:200]
        return CheckResult(
            self.name,
            CheckOutcome.FAIL,
            f"{len(matching)} log lines match /{self._wanted.pattern}/, "
            f"more than {self._wanted.max_matches}; the last, from {last.service}: {said}",
        )
