"""What the checks look at: one role, its compose file, and the variables that either uses."""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any

from fleet_agent.containers.compose_file import awaited
from fleet_agent.roles.role import Role
from fleet_agent.roles.schema import LogCheck, completed

#: Names alone, also those inside the default of another variable.
_NAMES = re.compile(r"\$(?:\$|\{?([A-Za-z_]\w*))")


@dataclass
class Subject:
    """What the checks look at: the parsed role, its compose file as written (`raw`) and as resolved."""

    role: Role
    raw: dict[str, Any]
    resolved: dict[str, Any]
    text: str = field(repr=False, default="")

    @property
    def services(self) -> dict[str, dict[str, Any]]:
        found = self.resolved.get("services") or {}
        return {name: service for name, service in found.items() if isinstance(service, dict)}

    @cached_property
    def one_shot(self) -> set[str]:
        """Services that are meant to end."""
        return completed(self.role.health) | (awaited(self.resolved) if self.services else set())

    @cached_property
    def used(self) -> set[str]:
        """Variables that the compose file, the health checks or `validate` use."""
        names = set(references(self.raw))
        for check in self.role.health.checks:
            if not isinstance(check, LogCheck):
                names |= set(references(check.model_dump()))
        validate = self.role.folder / "validate"
        if validate.is_file():
            names |= set(references(validate.read_text(errors="replace")))
        return names


def references(value: object) -> Iterator[str]:
    """Every variable used anywhere in a parsed file, pass-through environment entries included."""
    if isinstance(value, str):
        yield from (name for name in _NAMES.findall(value) if name)
    elif isinstance(value, dict):
        for key, item in value.items():
            if key == "environment":
                yield from _passed_through(item)
            yield from references(item)
    elif isinstance(value, list | tuple):
        for item in value:
            yield from references(item)


def _passed_through(environment: object) -> Iterator[str]:
    if isinstance(environment, str):
        # Of a secret or config: its value is that variable's.
        yield environment
    elif isinstance(environment, dict):
        yield from (str(name) for name, value in environment.items() if value is None)
    elif isinstance(environment, list):
        yield from (str(item) for item in environment if "=" not in str(item))


def bind_sources(subject: Subject, *, writable: bool = False) -> Iterator[tuple[str, str]]:
    """Service and absolute source of each bind mount, in the long form and in the short; or of writable ones.

    A config or secret with a file is a mount, too, and read-only.
    """
    for name, service in subject.services.items():
        for volume in service.get("volumes") or []:
            source, read_only = _bind(volume)
            if source.startswith(("/", ".", "~")) and not (writable and read_only):
                yield name, str(subject.role.folder / source)
        for file in () if writable else _mounted_files(subject, service):
            yield name, str(subject.role.folder / file)


def _bind(volume: Any) -> tuple[str, bool]:
    """The source of a bind mount, empty for any other, and whether it is read-only."""
    if isinstance(volume, dict):
        source = str(volume.get("source") or "") if volume.get("type") == "bind" else ""
        return source, bool(volume.get("read_only"))
    source, _, rest = str(volume).partition(":")
    return source if rest else "", "ro" in rest.rpartition(":")[2].split(",")


def _mounted_files(subject: Subject, service: dict[str, Any]) -> Iterator[str]:
    """The files of the configs and secrets that a service uses."""
    for section in ("configs", "secrets"):
        declared = subject.resolved.get(section) or {}
        for used in service.get(section) or []:
            entry = declared.get(str(used.get("source") if isinstance(used, dict) else used)) or {}
            if entry.get("file"):
                yield str(entry["file"])
