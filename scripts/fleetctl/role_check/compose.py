"""A role's compose file with its variables filled in: by Compose itself if it is installed."""

from __future__ import annotations

import os
from typing import Any

from fleet_agent.containers import compose_cli, compose_file
from fleet_agent.errors import FleetError
from fleet_agent.roles.references import Reference, replaced
from fleet_agent.roles.role import Role
from fleet_agent.roles.variables import PROVIDED, VariableType
from fleet_agent.support import processes
from fleetctl.errors import FleetctlError

#: Seconds that Compose may take to read a file.
TIME_S = 60
SAMPLE_PATH = "/fleet-role-check"
_SAMPLES = {
    VariableType.STRING: "sample",
    VariableType.INT: "1",
    VariableType.PORT: "40000",
    VariableType.BOOL: "true",
    VariableType.URL: "https://sample.invalid/",
    VariableType.PATH: SAMPLE_PATH,
}


def sample_values(role: Role) -> dict[str, str]:
    """A value for every variable: the declared default, else a sample of its type."""
    values = {
        name: variable.default_text or _SAMPLES[variable.type] for name, variable in role.variables.items()
    }
    return values | dict.fromkeys(PROVIDED, "sample")


def resolve(role: Role, raw: dict[str, Any]) -> dict[str, Any]:
    """The compose file with every variable filled in: the declared default, else a sample of its type.

    Raises FleetctlError (`compose_invalid`, `compose_too_costly`) with what Compose says.
    """
    values = sample_values(role)
    filled: dict[str, Any] = _fill(raw, values)
    try:
        compose_file.check_ranges(filled)
    except FleetError as refused:
        raise FleetctlError(refused.kind.value, refused.message) from refused
    command = compose_command()
    if command is None:
        return filled
    done = _run(command, role, values)
    if done.exit_code != 0:
        raise FleetctlError("compose_invalid", f"Compose rejects it: {_last_line(done.stderr)}")
    answer: dict[str, Any] = compose_file.from_json(done.stdout.encode())
    return answer


def _run(command: list[str], role: Role, values: dict[str, str]) -> processes.CompletedProcess:
    """Within the bounds that it has on a device; it ends with us, however we end."""
    ours = {key: value for key, value in os.environ.items() if compose_cli.PASSED_TO_READ.fullmatch(key)}
    try:
        return processes.run(
            compose_cli.read_command(command, role.folder, "fleet"),
            bounds=processes.Bounds(TIME_S, compose_cli.READ_MEMORY, compose_cli.READ_OUTPUT),
            environment={**ours, "HOME": "/nonexistent", **values, **compose_cli.NO_REMOTE_FILES},
            folder=role.folder,
        )
    except processes.StoppedError as error:
        raise FleetctlError("compose_too_costly", compose_cli.too_costly(error.why).message) from error


def compose_command() -> list[str] | None:
    """How to call Compose here, or None. Only `config` is used, which needs no engine."""
    from fleet_agent.containers.compose_program import find_compose

    return find_compose()


def _fill(value: Any, values: dict[str, str]) -> Any:
    """Plain interpolation, used if Compose is not installed."""

    def replace(one: Reference) -> str:
        return "$" if one.name is None else values.get(one.name, "")

    if isinstance(value, str):
        return replaced(value, replace)
    if isinstance(value, dict):
        return {key: _fill(item, values) for key, item in value.items()}
    return [_fill(item, values) for item in value] if isinstance(value, list) else value


def _last_line(text: str) -> str:
    lines = [line.strip() for line in text.splitlines() if line.strip()]
    return lines[-1] if lines else "no reason given"
