"""Texts as the tables take them: without control characters, and without those that change the direction.

What is replaced stays readable (`\\x1b`), as fleetctl and the dashboard show it.
"""

from __future__ import annotations

import re
from collections.abc import Collection, Mapping
from typing import Any

_CONTROLS = "\x00-\x08\x0b\x0c\x0e-\x1f\x7f-\x9f\u202a-\u202e\u2066-\u2069\ud800-\udfff"
_OF_A_LINE = re.compile(f"[\t\n\r\u2028\u2029{_CONTROLS}]")
_OF_A_TEXT = re.compile(f"[{_CONTROLS}]")
#: The tables take no longer text; a mark is longer than what it stands for.
_LIMIT = 4000
#: JSON can hold the others.
_NOT_STORABLE = re.compile("[\x00\ud800-\udfff]")


def one_line(text: str) -> str:
    """A sentence: its line breaks are spaces."""
    return _OF_A_LINE.sub(_as_words, text)


def row(values: Mapping[str, Any], *, several_lines: Collection[str]) -> dict[str, Any]:
    """The row of a table: each text is one line but for these columns, and what is nested can be stored."""
    return {
        key: (_OF_A_TEXT.sub(_as_words, value) if key in several_lines else one_line(value))[:_LIMIT]
        if isinstance(value, str)
        else _storable(value)
        for key, value in values.items()
    }


def _storable(value: Any) -> Any:
    if isinstance(value, str):
        return _NOT_STORABLE.sub(_as_words, value)
    if isinstance(value, Mapping):
        return {_storable(key): _storable(item) for key, item in value.items()}
    return [_storable(item) for item in value] if isinstance(value, list | tuple) else value


def _as_words(match: re.Match[str]) -> str:
    return " " if match[0] in "\t\n\r\u2028\u2029" else ascii(match[0])[1:-1]
