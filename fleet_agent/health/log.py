"""Not more lines of a kind in the services' logs than the role allows."""

from __future__ import annotations

import re
from datetime import timedelta

from fleet_agent.health.base import Answer, Reading, Sight
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

    def look(self, sight: Sight) -> Reading:
        # What an untouched service said before the update is not held against the release.
        since = max(sight.since, sight.now - timedelta(seconds=self._wanted.window_s))
        matching = [
            line
            for line in sight.runtime.logs(sight.project, lines=LINES, since=since)
            if (not self._wanted.services or line.service in self._wanted.services)
            and (line.at is None or line.at >= since)
            and self._pattern.search(line.text[:LINE_LIMIT])
        ]
        if len(matching) <= self._wanted.max_matches:
            return Reading(self.name, Answer.PASS, "the logs are quiet")
        last = matching[-1]
        said = sight.redact(last.text)[:200]
        return Reading(
            self.name,
            Answer.FAIL,
            f"{len(matching)} log lines match /{self._wanted.pattern}/, "
            f"more than {self._wanted.max_matches}; the last, of {last.service}: {said}",
        )
