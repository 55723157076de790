"""A role folder: what a device is for, the variables it needs, how to tell that it is well.

roles/<role>/
  role.yaml      this file's model
  compose.yaml   the services
  validate       optional executable, run before anything stops

role = Role.load(release / "roles" / "beacon")
values = read_env(paths.env_file)
refuse(role.problems(values))                    # every variable at once
env = role.environment(values, provided)         # what Compose gets, complete
checks = role.checks(env)                        # health checks with ${NAME} filled in
"""

from __future__ import annotations

import os
import stat
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from pydantic import TypeAdapter

from fleet_agent.errors import Kind, ReleaseError, ValidationError
from fleet_agent.roles import variables
from fleet_agent.roles.schema import (
    ROLE_FILE,
    ROLE_FILE_LIMIT_BYTES,
    Check,
    LogCheck,
    ProbationSettings,
    RoleFile,
    TcpCheck,
    Validate,
    parse,
    role_invalid,
)
from fleet_agent.roles.variables import Problem, Variable, VariableType, interpolate, redact

COMPOSE_FILE = "compose.yaml"
VALIDATE_FILE = "validate"
_CHECKS: TypeAdapter[tuple[Check, ...]] = TypeAdapter(tuple[Check, ...])


class Role:
    """A loaded role folder. `folder` is where its files are; `name` is the folder's name."""

    def __init__(self, folder: Path, file: RoleFile) -> None:
        self.folder = folder
        self.file = file

    @classmethod
    def load(cls, folder: Path) -> Role:
        """Read and check the folder.

        Raises ReleaseError (`role_missing`) if the folder is absent, ValidationError (`role_invalid`) if
        role.yaml or compose.yaml is absent or wrong; the sentence names every wrong field.
        """
        if not folder.is_dir():
            raise ReleaseError(
                Kind.ROLE_MISSING,
                f"The release has no role {folder.name}.",
                hint=f"Add roles/{folder.name}/ to the fleet repository, or give the device another role.",
            )
        file = parse(_read(folder / ROLE_FILE), folder.name)
        role = cls(folder, file)
        if not role.compose_file.is_file():
            raise role_invalid(folder.name, f"{COMPOSE_FILE} is missing")
        return role

    @property
    def name(self) -> str:
        return self.folder.name

    @property
    def description(self) -> str:
        return self.file.description

    @property
    def variables(self) -> dict[str, Variable]:
        return self.file.variables

    @property
    def access(self) -> dict[str, str]:
        """What the role takes of the device, each with its reason."""
        return self.file.access

    @property
    def health(self) -> ProbationSettings:
        """Probation as declared; its checks still hold `${NAME}` (see `checks`)."""
        return self.file.health

    @property
    def validation(self) -> Validate:
        return self.file.validation

    @property
    def compose_file(self) -> Path:
        return self.folder / COMPOSE_FILE

    @property
    def validate_file(self) -> Path | None:
        """The role's own check, or None. Raises ValidationError (`role_invalid`) if not executable."""
        file = self.folder / VALIDATE_FILE
        if not file.exists():
            return None
        if not file.is_file() or not file.stat().st_mode & stat.S_IXUSR:
            raise role_invalid(self.name, f"{VALIDATE_FILE} is not an executable file")
        return file

    def problems(self, values: Mapping[str, str]) -> list[Problem]:
        """Everything wrong with the device's values, all at once."""
        return variables.check(self.variables, values)

    def environment(self, values: Mapping[str, str], provided: Mapping[str, str]) -> dict[str, str]:
        """What Compose and the checks get: declared variables settled, plus what the agent provides."""
        return variables.environment(self.variables, values, provided)

    def given_paths(self, values: Mapping[str, str]) -> tuple[str, ...]:
        """The paths that the device's owner named, for variables of type `path`; defaults are the role's."""
        return tuple(
            values[name]
            for name, variable in self.variables.items()
            if variable.type is VariableType.PATH and values.get(name)
        )

    def checks(self, environment: Mapping[str, str]) -> tuple[Check, ...]:
        """The health checks with every `${NAME}` filled in. Raises ValidationError (`variable_missing`)."""
        filled = [_fill(check, environment) for check in self.health.checks]
        return _CHECKS.validate_python(filled)

    def redact(self, values: Mapping[str, str], text: str) -> str:
        """`text` without the values of this role's secrets."""
        return redact(self.variables, values, text)


def _fill(check: Check, environment: Mapping[str, str]) -> dict[str, Any]:
    """A check as data, interpolated; a log pattern is left alone, since `$` means line end there."""
    data = check.model_dump()
    if isinstance(check, LogCheck):
        return data
    for key, value in data.items():
        if isinstance(value, str):
            data[key] = interpolate(value, environment)
        elif isinstance(value, tuple):
            data[key] = tuple(interpolate(i, environment) if isinstance(i, str) else i for i in value)
    if isinstance(check, TcpCheck):
        data["port"] = _port(str(data["port"]))
    return data


def _port(text: str) -> int:
    if not (text.isascii() and text.isdigit() and 1 <= int(text) <= 65535):
        raise ValidationError(Kind.VARIABLE_INVALID, "The port of a tcp check is not 1 to 65535.")
    return int(text)


def _read(file: Path) -> str:
    try:
        with file.open("rb") as handle:
            if os.fstat(handle.fileno()).st_size > ROLE_FILE_LIMIT_BYTES:
                raise role_invalid(
                    file.parent.name, f"{file.name} is larger than {ROLE_FILE_LIMIT_BYTES // 1024} KiB"
                )
            return handle.read().decode()
    except FileNotFoundError as error:
        raise role_invalid(file.parent.name, f"{file.name} is missing") from error
    except UnicodeDecodeError as error:
        raise role_invalid(file.parent.name, f"{file.name} is not UTF-8 text") from error
    except OSError as error:
        raise role_invalid(file.parent.name, f"{file.name} cannot be read: {error.strerror}") from error
