"""Each service's own healthcheck, as Compose declares it, says `healthy`."""

from __future__ import annotations

from fleet_agent.health.base import Answer, Reading, Sight
from fleet_agent.roles.schema import ComposeCheck


class ComposeHealthy:
    name = "compose"

    def __init__(self, wanted: ComposeCheck) -> None:
        self._wanted = wanted

    def look(self, sight: Sight) -> Reading:
        waiting = ""
        for container in sight.containers:
            if self._wanted.services and container.service not in self._wanted.services:
                continue
            match container.health:
                case "healthy":
                    pass
                case None | "none" | "":
                    # Exited ones have no health either: the container check speaks about those.
                    if container.service in self._wanted.services and container.state == "running":
                        return self._say(Answer.FATAL, f"{container.service} declares no healthcheck")
                case "starting":
                    waiting = f"{container.service} is starting"
                case other:
                    return self._say(Answer.FAIL, f"{container.service} is {other}")
        for service in self._wanted.services:
            if not sight.of(service):
                return self._say(Answer.FAIL, f"{service} has no container")
        return self._say(Answer.WAIT, waiting) if waiting else self._say(Answer.PASS, "all healthy")

    def _say(self, answer: Answer, detail: str) -> Reading:
        return Reading(self.name, answer, detail)
