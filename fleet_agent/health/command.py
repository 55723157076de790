"""A command inside a service's container exits with code 0."""

from __future__ import annotations

from fleet_agent.health.base import CheckContext, CheckOutcome, CheckResult
from fleet_agent.roles.schema import CommandCheck
from fleet_agent.support import processes


class CommandSucceeds:
    def __init__(self, wanted: CommandCheck) -> None:
        self._wanted = wanted
        self.name = f"command {wanted.command[0]} in {wanted.service}"

    def look(self, context: CheckContext) -> CheckResult:
        done = context.runtime.execute(
            context.project, self._wanted.service, self._wanted.command, self._wanted.timeout_s
        )
        if done.exit_code == 0:
            return CheckResult(self.name, CheckOutcome.PASS, f"{self.name} succeeded")
        phrase = processes.killed(self.name, processes.signal_of(done.exit_code))
        if phrase is not None:
            # It found nothing out. If that persists, the deadline ends it.
            return CheckResult(self.name, CheckOutcome.WAIT, phrase, evidence={"exit_code": done.exit_code})
        said = context.redact(done.output).strip().splitlines()[-1:] or ["no output"]
        return CheckResult(
            self.name,
            CheckOutcome.FAIL,
            f"{self.name} exited with code {done.exit_code}: {said[0][:200]}",
            evidence={"exit_code": done.exit_code},
        )
