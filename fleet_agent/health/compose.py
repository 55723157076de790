"""Each service's own Compose healthcheck reports `healthy`."""

from __future__ import annotations

from fleet_agent.health.base import CheckContext, CheckOutcome, CheckResult
from fleet_agent.roles.schema import ComposeCheck


class ComposeHealthy:
    name = "compose"

    def __init__(self, wanted: ComposeCheck) -> None:
        self._wanted = wanted

    def look(self, context: CheckContext) -> CheckResult:
        waiting = ""
        for container in context.containers:
            if self._wanted.services and container.service not in self._wanted.services:
                continue
            if context.is_done(container):
                continue
            match container.health:
                case "healthy":
                    pass
                case None | "none" | "":
                    # Exited ones have no health either: the container check reports those.
                    if container.service in self._wanted.services and container.state == "running":
                        return self._result(
                            CheckOutcome.FATAL, f"{container.service} declares no healthcheck"
                        )
                case "starting":
                    waiting = f"{container.service} is starting"
                case other:
                    return self._result(CheckOutcome.FAIL, f"{container.service} is {other}")
        for service in self._wanted.services:
            if not context.of(service) and context.replicas.get(service, 1):
                return self._result(CheckOutcome.FAIL, f"{service} has no container")
        if waiting:
            return self._result(CheckOutcome.WAIT, waiting)
        return self._result(CheckOutcome.PASS, "all healthy")

    def _result(self, outcome: CheckOutcome, detail: str) -> CheckResult:
        return CheckResult(self.name, outcome, detail)
