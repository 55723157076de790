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
import re
import stat
from collections.abc import Mapping
from pathlib import Path
from typing import Annotated, Any, Literal, Self

import yaml
from pydantic import BaseModel, ConfigDict, Field, TypeAdapter, field_validator, model_validator
from pydantic import ValidationError as PydanticValidationError

from fleet_agent.errors import Kind, ReleaseError, ValidationError
from fleet_agent.roles import variables
from fleet_agent.roles.variables import (
    PROVIDED,
    Problem,
    Variable,
    VariableType,
    interpolate,
    read_env,
    redact,
    refuse,
)

__all__ = [
    "PROVIDED",
    "Check",
    "CommandCheck",
    "ComposeCheck",
    "ContainerCheck",
    "FileCheck",
    "Health",
    "HttpCheck",
    "LogCheck",
    "Problem",
    "Role",
    "TcpCheck",
    "Validate",
    "Variable",
    "VariableType",
    "read_env",
    "redact",
    "refuse",
]

ROLE_FILE = "role.yaml"
COMPOSE_FILE = "compose.yaml"
VALIDATE_FILE = "validate"
ROLE_FILE_LIMIT_BYTES = 64 * 1024

ServiceName = Annotated[str, Field(pattern=r"^[a-zA-Z0-9][a-zA-Z0-9._-]*$")]
#: Seconds. An hour is the longest that any single wait of a role may last.
Seconds = Annotated[float, Field(ge=0, le=3600, allow_inf_nan=False)]
Timeout = Annotated[float, Field(gt=0, le=300, allow_inf_nan=False)]


class Strict(BaseModel):
    """Part of role.yaml: immutable, no unknown keys, no silent conversions."""

    model_config = ConfigDict(frozen=True, extra="forbid", strict=True)


class HttpCheck(Strict):
    """A GET that must answer in time with one of `status`; redirects are not followed.

    `body` is text the answer must contain, `body_is` the whole answer without surrounding white space.
    `url`, `body` and `body_is` may use `${NAME}`.
    """

    kind: Literal["http"]
    url: str
    status: tuple[Annotated[int, Field(ge=100, le=599)], ...] = Field(
        default=(200,), min_length=1, strict=False
    )
    body: str | None = None
    body_is: str | None = None
    timeout_s: Timeout = 5.0
    max_latency_ms: int | None = Field(default=None, ge=1)


class TcpCheck(Strict):
    """A connection that must open in time. `host` and `port` may use `${NAME}`."""

    kind: Literal["tcp"]
    host: str = "127.0.0.1"
    port: str | Annotated[int, Field(ge=1, le=65535)]
    timeout_s: Timeout = 3.0


class ContainerCheck(Strict):
    """Each service's container runs and restarted at most `max_restarts` times in probation.

    No `services` means all. `completed` lists one-shot services that may also have exited with code 0.
    """

    kind: Literal["container"]
    services: tuple[ServiceName, ...] = Field(default=(), strict=False)
    completed: tuple[ServiceName, ...] = Field(default=(), strict=False)
    max_restarts: int = Field(default=0, ge=0)


class ComposeCheck(Strict):
    """Each service's own Compose healthcheck says `healthy`. No services: all that declare one."""

    kind: Literal["compose"]
    services: tuple[ServiceName, ...] = Field(default=(), strict=False)


class LogCheck(Strict):
    """At most `max_matches` lines matching `pattern` (Python regex, searched) within the last `window_s`."""

    kind: Literal["log"]
    pattern: str = Field(min_length=1, max_length=500)
    services: tuple[ServiceName, ...] = Field(default=(), strict=False)
    max_matches: int = Field(default=0, ge=0)
    window_s: Annotated[float, Field(gt=0, le=3600)] = 60.0

    @field_validator("pattern")
    @classmethod
    def _compiles(cls, value: str) -> str:
        try:
            re.compile(value)
        except re.error as error:
            raise ValueError(f"is no regular expression: {error}") from error
        return value


class CommandCheck(Strict):
    """A command inside a service's container that must exit with 0. Arguments may use `${NAME}`; no shell."""

    kind: Literal["command"]
    service: ServiceName
    command: tuple[str, ...] = Field(min_length=1, strict=False)
    timeout_s: Timeout = 10.0


class FileCheck(Strict):
    """A file on the device exists and was written at most `max_age_s` ago. `path` may use `${NAME}`."""

    kind: Literal["file"]
    path: str = Field(min_length=1)
    max_age_s: Annotated[float, Field(gt=0)] = 60.0


Check = Annotated[
    HttpCheck | TcpCheck | ContainerCheck | ComposeCheck | LogCheck | CommandCheck | FileCheck,
    Field(discriminator="kind"),
]
_CHECKS: TypeAdapter[tuple[Check, ...]] = TypeAdapter(tuple[Check, ...])


class Health(Strict):
    """Probation: how long and how strictly a fresh release is watched. Times are seconds.

    Failures within `grace_s` of the start do not count. Healthy after `successes` passing rounds in a row,
    one each `interval_s`, and not before `watch_s` (so that a late crash is still caught in probation).
    Unhealthy once more than `failure_budget` rounds have failed after the grace, or at `deadline_s`.
    Without `checks` the engine uses `container` and `compose`, and calls the result weaker evidence.
    """

    grace_s: Seconds = 15.0
    successes: int = Field(default=3, ge=1, le=1000)
    interval_s: Annotated[float, Field(gt=0, le=300, allow_inf_nan=False)] = 2.0
    watch_s: Seconds = 20.0
    deadline_s: Annotated[float, Field(gt=0, le=7200, allow_inf_nan=False)] = 120.0
    failure_budget: int = Field(default=2, ge=0, le=1000)
    checks: tuple[Check, ...] = Field(default=(), strict=False)

    @model_validator(mode="after")
    def _deadline_leaves_room(self) -> Self:
        needed = max(self.grace_s, self.watch_s, (self.successes - 1) * self.interval_s)
        if self.deadline_s <= needed:
            raise ValueError(
                f"deadline_s must be more than {needed:g}: grace, watch and successes need that long"
            )
        return self


class Validate(Strict):
    """Limits of the role's own `validate` executable."""

    timeout_s: Timeout = 30.0
    network: bool = False


class RoleFile(Strict):
    """`role.yaml`."""

    description: str = Field(min_length=1)
    variables: dict[str, Variable] = Field(default_factory=dict)
    health: Health = Health()
    # `validate` is a method of every pydantic model, hence the other name inside.
    validation: Validate = Field(default=Validate(), alias="validate")

    @field_validator("variables")
    @classmethod
    def _names(cls, value: dict[str, Variable]) -> dict[str, Variable]:
        for name in value:
            if not variables.NAME.fullmatch(name):
                raise ValueError(f"{name!r} is no variable name: capitals, digits and _ only")
            if variables.reserved(name):
                raise ValueError(f"{name} is reserved and cannot be declared by a role")
        return value

    @model_validator(mode="after")
    def _checks_use_known_variables(self) -> Self:
        known = {*self.variables, *PROVIDED}
        for check in self.health.checks:
            unknown = variables.references(check.model_dump_json()) - known
            if unknown and not isinstance(check, LogCheck):
                raise ValueError(
                    f"a {check.kind} check uses {', '.join(sorted(unknown))}, which is not declared"
                )
        return self


class Role:
    """A loaded role folder. `folder` is where its files are; `name` is the folder's name."""

    def __init__(self, folder: Path, file: RoleFile) -> None:
        self.folder = folder
        self.file = file

    @classmethod
    def load(cls, folder: Path) -> Role:
        """Read and check the folder.

        Raises ReleaseError (`role_missing`) where the folder is absent, ValidationError (`role_invalid`)
        where role.yaml or compose.yaml is absent or wrong; the sentence names every wrong field.
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
            raise _invalid(folder.name, f"{COMPOSE_FILE} is missing")
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
    def health(self) -> Health:
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
            raise _invalid(self.name, f"{VALIDATE_FILE} is not an executable file")
        return file

    def problems(self, values: Mapping[str, str]) -> list[Problem]:
        """Everything wrong with the device's values, all at once."""
        return variables.check(self.variables, values)

    def environment(self, values: Mapping[str, str], provided: Mapping[str, str]) -> dict[str, str]:
        """What Compose and the checks get: declared variables settled, plus what the agent provides."""
        return variables.environment(self.variables, values, provided)

    def checks(self, environment: Mapping[str, str]) -> tuple[Check, ...]:
        """The health checks with every `${NAME}` filled in. Raises ValidationError (`variable_missing`)."""
        filled = [_fill(check, environment) for check in self.health.checks]
        return _CHECKS.validate_python(filled)

    def redact(self, values: Mapping[str, str], text: str) -> str:
        """`text` without the values of this role's secrets."""
        return redact(self.variables, values, text)


def parse(text: str, name: str) -> RoleFile:
    """Parse role.yaml of role `name`. Raises ValidationError (`role_invalid`) naming every wrong field."""
    try:
        raw = yaml.load(text, Loader=_Loader)  # noqa: S506  a SafeLoader, only stricter
    except (yaml.YAMLError, ValueError, RecursionError, *_YAML_SLIPS) as error:
        problem = getattr(error, "problem", None) or "it is not YAML"
        mark = getattr(error, "problem_mark", None)
        where = f" (line {mark.line + 1})" if mark is not None else ""
        raise _invalid(name, f"{ROLE_FILE}: {problem}{where}") from error
    if not isinstance(raw, dict):
        raise _invalid(name, f"{ROLE_FILE} is not a list of keys and values")
    try:
        return RoleFile.model_validate(raw)
    except PydanticValidationError as error:
        complaints = [
            f"{'.'.join(str(part) for part in item['loc']) or ROLE_FILE}: {item['msg']}"
            for item in error.errors(include_url=False, include_input=False, include_context=False)
        ]
        raise _invalid(name, "; ".join(complaints)) from error


#: What PyYAML itself trips over in values that their tag or form contradicts, like `!!timestamp x`.
_YAML_SLIPS = (AttributeError, KeyError, TypeError, IndexError, OverflowError)


class _Loader(yaml.SafeLoader):
    """YAML without its traps: no repeated keys, no aliases (a kilobyte of them can expand to gigabytes)."""

    def compose_node(self, parent: yaml.Node | None, index: int) -> yaml.Node | None:
        if self.check_event(yaml.AliasEvent):
            event = self.peek_event()  # type: ignore[no-untyped-call]
            raise yaml.constructor.ConstructorError(None, None, "aliases are not allowed", event.start_mark)
        return super().compose_node(parent, index)

    def construct_mapping(self, node: yaml.MappingNode, deep: bool = False) -> dict[Any, Any]:
        seen = set()
        for key_node, _ in node.value:
            key = key_node.value if isinstance(key_node, yaml.ScalarNode) else None
            if key is None or key in seen:
                problem = "a key is not plain text" if key is None else f"{key!r} is given twice"
                raise yaml.constructor.ConstructorError(None, None, problem, key_node.start_mark)
            seen.add(key)
        return super().construct_mapping(node, deep=deep)


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
                raise _invalid(
                    file.parent.name, f"{file.name} is larger than {ROLE_FILE_LIMIT_BYTES // 1024} KiB"
                )
            return handle.read().decode()
    except FileNotFoundError as error:
        raise _invalid(file.parent.name, f"{file.name} is missing") from error
    except UnicodeDecodeError as error:
        raise _invalid(file.parent.name, f"{file.name} is not UTF-8 text") from error
    except OSError as error:
        raise _invalid(file.parent.name, f"{file.name} cannot be read: {error.strerror}") from error


def _invalid(role: str, why: str) -> ValidationError:
    return ValidationError(
        Kind.ROLE_INVALID,
        f"Role {role}: {why}.",
        hint=f"Run `fleetctl role check roles/{role}` in the fleet repository.",
    )
