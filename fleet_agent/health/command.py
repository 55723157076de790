"""A command inside a service's container exits with 0."""

from __future__ import annotations

from fleet_agent.health.base import Answer, Reading, Sight
from fleet_agent.roles.schema import CommandCheck


class CommandSucceeds:
    def __init__(self, wanted: CommandCheck) -> None:
        self._wanted = wanted
        self.name = f"command {wanted.command[0]} in {wanted.service}"

    def look(self, sight: Sight) -> Reading:
        done = sight.runtime.execute(
            sight.project, self._wanted.service, self._wanted.command, self._wanted.timeout_s
        )
        if done.exit_code == 0:
            return Reading(self.name, Answer.PASS, f"{self.name} succeeds")
        said = sight.redact(done.output).strip().splitlines()[-1:] or ["no output"]
        return Reading(
            self.name,
            Answer.FAIL,
            f"{self.name} exits with {done.exit_code}: {said[0][:200]}",
            evidence={"exit_code": done.exit_code},
        )
