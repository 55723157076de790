"""Take the device's secrets out of what goes into logs, rows and reports."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

from fleet_agent.errors import FleetError
from fleet_agent.roles.role import Role
from fleet_agent.roles.variables import read_env

#: Without a role that names the secrets every value may be one; shorter ones are common words.
_LEAST_LENGTH = 8


def redact(text: str, env_file: Path, role_folders: Sequence[Path]) -> str:
    """`text` without the secrets that these roles declare; if one cannot tell them, without any value.

    Bytes that are not text (a file's name may hold some) are replaced, too: a journal could not hold them.
    """
    text = text.encode(errors="replace").decode()
    try:
        values = read_env(env_file)
    except FleetError:
        return text
    if not role_folders:
        return _without_any(values, text)
    try:
        for folder in role_folders:
            text = Role.load(folder).redact(values, text)
    except FleetError:
        return _without_any(values, text)
    return text


def redact_evidence(evidence: Any, redact_text: Callable[[str], str]) -> Any:
    """Evidence is small JSON: every text in it is redacted."""
    match evidence:
        case str():
            return redact_text(evidence)
        case dict():
            return {str(key): redact_evidence(value, redact_text) for key, value in evidence.items()}
        case list() | tuple():
            return [redact_evidence(value, redact_text) for value in evidence]
        case _:
            return evidence


def _without_any(values: Mapping[str, str], text: str) -> str:
    for value in sorted(values.values(), key=len, reverse=True):
        if len(value) >= _LEAST_LENGTH:
            text = text.replace(value, "***")
    return text
