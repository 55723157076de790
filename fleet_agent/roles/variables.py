"""The values a device gives its role: `.env` against what `role.yaml` declares.

One parser and one rule decide what a variable is worth, so Compose is handed the finished environment and
never reads the `.env` itself. Values are never part of a message: each of them may be a secret.
"""

from __future__ import annotations

import io
import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from enum import StrEnum
from pathlib import Path
from typing import Self
from urllib.parse import urlsplit

from pydantic import BaseModel, ConfigDict, Field, model_validator

from fleet_agent.errors import Kind, ValidationError
from fleet_agent.roles.references import Reference, found, replaced

#: What the agent itself provides to every role; a role uses these and cannot declare them.
PROVIDED = (
    "FLEET_RELEASE_VERSION",
    "FLEET_RELEASE_COMMIT",
    "FLEET_DEVICE_NAME",
    "FLEET_DEVICE_ID",
    "FLEET_ROLE",
)
NAME = re.compile(r"[A-Z][A-Z0-9_]{0,63}")
#: Names that would steer the agent, Docker or the loader rather than the role's services.
_RESERVED = re.compile(r"(FLEET|COMPOSE|DOCKER|BUILDKIT|LD|GIT)_.*|PATH|HOME|SHELL|USER|TMPDIR")
ENV_LIMIT_BYTES = 256 * 1024


class VariableType(StrEnum):
    """What a value must look like. Everything arrives as text."""

    STRING = "string"
    INT = "int"
    PORT = "port"
    BOOL = "bool"
    URL = "url"
    PATH = "path"


class Variable(BaseModel):
    """One declared variable. `secret` keeps its value out of evidence and logs."""

    model_config = ConfigDict(frozen=True, extra="forbid", strict=True)

    type: VariableType = Field(default=VariableType.STRING, strict=False)
    required: bool = False
    default: str | int | bool | None = None
    description: str = Field(min_length=1)
    secret: bool = False

    @model_validator(mode="after")
    def _default_fits(self) -> Self:
        if self.default is None:
            return self
        if self.required:
            raise ValueError("a required variable cannot have a default")
        if self.secret:
            raise ValueError("a secret cannot have a default: it would be in Git")
        if complaint := _COMPLAINTS[self.type](self.default_text):
            raise ValueError(f"the default {complaint}")
        return self

    @property
    def default_text(self) -> str:
        """The default as Compose sees it; empty without one."""
        if self.default is None:
            return ""
        return str(self.default).lower() if isinstance(self.default, bool) else str(self.default)


@dataclass(frozen=True)
class Problem:
    """One thing wrong with a device's values. `kind` is `variable_missing` or `variable_invalid`."""

    kind: Kind
    variable: str
    message: str


def reserved(name: str) -> bool:
    """True if a role must not declare `name`: it would steer the agent or Docker itself."""
    return _RESERVED.fullmatch(name) is not None


def read_env(file: Path) -> dict[str, str]:
    """Read a device's `.env`; absent means empty. `$` is literal: nothing is interpolated.

    Raises ValidationError (`variable_invalid`) naming each line that is not `NAME=value`, never quoting it.
    """
    from dotenv.parser import parse_stream

    values: dict[str, str] = {}
    bad: list[int] = []
    for binding in parse_stream(io.StringIO(_text_of(file))):
        if binding.error or (binding.key is not None and binding.value is None):
            bad.append(binding.original.line)
        elif binding.key is not None and binding.value is not None:
            values[binding.key] = binding.value
    if bad:
        lines = ", ".join(str(line) for line in bad)
        raise ValidationError(
            Kind.VARIABLE_INVALID,
            f"{file} has lines that are not NAME=value: {lines}.",
            hint="Correct them; quote values that contain spaces or #.",
            evidence={"lines": bad},
        )
    return values


def _text_of(file: Path) -> str:
    try:
        raw = file.read_bytes()
    except FileNotFoundError:
        return ""
    except OSError as error:
        raise _unreadable(file, error.strerror or "it cannot be read") from error
    if len(raw) > ENV_LIMIT_BYTES:
        raise _unreadable(file, f"it is larger than {ENV_LIMIT_BYTES // 1024} KiB")
    if b"\0" in raw:
        raise _unreadable(file, "it contains a NUL character")
    try:
        return raw.decode()
    except UnicodeDecodeError as error:
        raise _unreadable(file, "it is not UTF-8 text") from error


def check(declared: Mapping[str, Variable], values: Mapping[str, str]) -> list[Problem]:
    """Everything wrong with `values`, all at once, as declared. Undeclared names are fine."""
    problems = []
    for name, variable in declared.items():
        value = values.get(name, "")
        if value == "":
            if variable.required:
                problems.append(
                    Problem(
                        Kind.VARIABLE_MISSING,
                        name,
                        f"{name} is not set ({variable.description.rstrip('.')}).",
                    )
                )
        elif complaint := _COMPLAINTS[variable.type](value):
            problems.append(Problem(Kind.VARIABLE_INVALID, name, f"{name} {complaint}."))
    return problems


def refuse(problems: list[Problem]) -> None:
    """Raise ValidationError with every problem in one sentence; return if there is none."""
    if not problems:
        return
    kind = (
        Kind.VARIABLE_MISSING
        if any(problem.kind is Kind.VARIABLE_MISSING for problem in problems)
        else Kind.VARIABLE_INVALID
    )
    raise ValidationError(
        kind,
        " ".join(problem.message for problem in problems),
        hint="Correct the device's .env.",
        evidence={"variables": [problem.variable for problem in problems]},
    )


def environment(
    declared: Mapping[str, Variable], values: Mapping[str, str], provided: Mapping[str, str]
) -> dict[str, str]:
    """All that Compose gets: each declared variable (value, else default, else empty) and `provided`."""
    settled = {name: values.get(name) or variable.default_text for name, variable in declared.items()}
    return {**settled, **provided}


def redact(declared: Mapping[str, Variable], values: Mapping[str, str], text: str) -> str:
    """`text` with each secret's value as `***`. A value under 4 characters is too common and is left."""
    secrets = {values.get(name, "") for name, variable in declared.items() if variable.secret}
    for secret in sorted(secrets, key=len, reverse=True):
        if len(secret) >= 4:
            text = text.replace(secret, "***")
    return text


def references(text: str) -> set[str]:
    """The variables that `text` refers to."""
    return {one.name for one in found(text) if one.name and _is_shared(one)}


def interpolate(text: str, values: Mapping[str, str]) -> str:
    """Replace `${NAME}`, `$NAME` and `${NAME:-default}`; `$$` is a dollar.

    Raises ValidationError (`variable_missing`) for a name that has neither value nor default.
    """

    def replace(one: Reference) -> str:
        if one.name is None:
            return "$"
        if not _is_shared(one):
            return one.text
        value = values.get(one.name, "")
        if value == "":
            if one.default is None and one.name not in values:
                raise ValidationError(Kind.VARIABLE_MISSING, f"{one.name} is used but has no value.")
            return one.default or ""
        return value

    return replaced(text, replace)


def _is_shared(one: Reference) -> bool:
    """Whether this is in the part of Compose's interpolation that role.yaml has, too."""
    return not one.rest or one.default is not None


def _unreadable(file: Path, why: str) -> ValidationError:
    return ValidationError(
        Kind.VARIABLE_INVALID, f"Cannot use {file}: {why}.", hint="Write lines of NAME=value, with mode 0600."
    )


def _string(value: str) -> str | None:
    return "contains a NUL character" if "\0" in value else None


def _int(value: str) -> str | None:
    return None if re.fullmatch(r"[+-]?[0-9]{1,18}", value) else "is not a whole number"


def _port(value: str) -> str | None:
    ok = re.fullmatch(r"[0-9]{1,5}", value) is not None and 1 <= int(value) <= 65535
    return None if ok else "is not a port (1 to 65535)"


def _bool(value: str) -> str | None:
    return None if value in ("true", "false") else "is not true or false"


def _url(value: str) -> str | None:
    try:
        parts = urlsplit(value)
        usable = bool(parts.scheme and parts.hostname) and (parts.port is None or parts.port > 0)
    except ValueError:
        usable = False
    if not usable or any(character.isspace() or ord(character) < 32 for character in value):
        return "is not a URL with a scheme and a host"
    return None


def _path(value: str) -> str | None:
    if "\0" in value or not value.startswith("/"):
        return "is not an absolute path"
    return "must not contain .." if ".." in value.split("/") else None


_COMPLAINTS: dict[VariableType, Callable[[str], str | None]] = {
    VariableType.STRING: _string,
    VariableType.INT: _int,
    VariableType.PORT: _port,
    VariableType.BOOL: _bool,
    VariableType.URL: _url,
    VariableType.PATH: _path,
}
