"""Each service's container runs and does not keep restarting."""

from __future__ import annotations

from fleet_agent.containers.base import Container
from fleet_agent.errors import Kind
from fleet_agent.health.base import WORST_FIRST, CheckContext, CheckOutcome, CheckResult
from fleet_agent.roles.schema import ContainerCheck
from fleet_agent.support.words import counted, times


class ContainerRuns:
    name = "container"

    def __init__(self, wanted: ContainerCheck) -> None:
        self._wanted = wanted

    def look(self, context: CheckContext) -> CheckResult:
        results = [self._service(context, service) for service in self._wanted.services or context.expected]
        return min(results, key=lambda result: WORST_FIRST.index(result.outcome))

    def _service(self, context: CheckContext, service: str) -> CheckResult:
        containers, wanted = context.of(service), context.replicas.get(service, 1)
        if not containers and wanted:
            return self._result(CheckOutcome.FAIL, f"{service} has no container")
        for container in containers:
            if (result := self._container(context, container)).outcome is not CheckOutcome.PASS:
                return result
        if len(containers) < wanted:
            return self._result(
                CheckOutcome.FAIL, f"{service} has {len(containers)} of {counted(wanted, 'container')}"
            )
        return self._result(CheckOutcome.PASS, f"{service} is running")

    def _container(self, context: CheckContext, container: Container) -> CheckResult:
        service = container.service
        may_end = service in self._wanted.completed or context.is_done(container)
        restarts = container.restarts - context.restarts_before.get(container.id, 0)
        if restarts > self._wanted.max_restarts:
            return self._result(CheckOutcome.FATAL, f"{service} restarted {times(restarts)}", container)
        match container.state:
            case "running":
                return self._result(CheckOutcome.PASS, f"{service} is running")
            case "exited" if may_end and container.exit_code == 0:
                return self._result(CheckOutcome.PASS, f"{service} has completed")
            case "exited" | "dead":
                return self._result(
                    CheckOutcome.FATAL, f"{service} exited with code {container.exit_code}", container
                )
            case "created":
                return self._result(CheckOutcome.WAIT, f"{service} has not started yet")
            case other:
                return self._result(CheckOutcome.FAIL, f"{service} is {other}", container)

    def _result(self, outcome: CheckOutcome, detail: str, container: Container | None = None) -> CheckResult:
        evidence = {}
        if container is not None:
            evidence = {
                "service": container.service,
                "exit_code": container.exit_code,
                "restarts": container.restarts,
            }
        kind = Kind.CONTAINER_EXITED if container is not None else Kind.UNHEALTHY
        return CheckResult(self.name, outcome, detail, kind, evidence)
