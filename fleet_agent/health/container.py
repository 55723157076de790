"""Each service's container runs and does not keep restarting."""

from __future__ import annotations

from fleet_agent.containers.base import Container
from fleet_agent.errors import Kind
from fleet_agent.health.base import Answer, Reading, Sight
from fleet_agent.roles.schema import ContainerCheck


class ContainerRuns:
    name = "container"

    def __init__(self, wanted: ContainerCheck) -> None:
        self._wanted = wanted

    def look(self, sight: Sight) -> Reading:
        readings = [self._service(sight, service) for service in self._wanted.services or sight.expected]
        order = [Answer.FATAL, Answer.FAIL, Answer.WAIT, Answer.PASS]
        return min(readings, key=lambda reading: order.index(reading.answer))

    def _service(self, sight: Sight, service: str) -> Reading:
        containers = sight.of(service)
        if not containers:
            return self._say(Answer.FAIL, f"{service} has no container")
        for container in containers:
            if (reading := self._container(sight, container)).answer is not Answer.PASS:
                return reading
        return self._say(Answer.PASS, f"{service} runs")

    def _container(self, sight: Sight, container: Container) -> Reading:
        service, may_end = container.service, container.service in self._wanted.completed
        restarts = container.restarts - sight.restarts_before.get(container.id, 0)
        if restarts > self._wanted.max_restarts:
            return self._say(Answer.FATAL, f"{service} restarted {_times(restarts)}", container)
        match container.state:
            case "running":
                return self._say(Answer.PASS, f"{service} runs")
            case "exited" if may_end and container.exit_code == 0:
                return self._say(Answer.PASS, f"{service} has completed")
            case "exited" | "dead":
                return self._say(Answer.FATAL, f"{service} exited with code {container.exit_code}", container)
            case "created":
                return self._say(Answer.WAIT, f"{service} is about to start")
            case other:
                return self._say(Answer.FAIL, f"{service} is {other}", container)

    def _say(self, answer: Answer, detail: str, container: Container | None = None) -> Reading:
        evidence = {}
        if container is not None:
            evidence = {
                "service": container.service,
                "exit_code": container.exit_code,
                "restarts": container.restarts,
            }
        kind = Kind.CONTAINER_EXITED if container is not None else Kind.UNHEALTHY
        return Reading(self.name, answer, detail, kind, evidence)


def _times(count: int) -> str:
    return "once" if count == 1 else f"{count} times"
