"""The kinds that are met most have one sentence each, and docs/usage/errors.md shows it as it is read."""

from __future__ import annotations

import ast
import re
from collections.abc import Iterator
from pathlib import Path

import fleet_agent
from fleet_agent import errors
from fleet_agent.errors import FleetError, Kind

PACKAGE = Path(fleet_agent.__file__).parent
PAGE = Path(__file__).resolve().parents[2] / "docs" / "usage" / "errors.md"

#: Each constructor, called with what the page shows for its arguments.
SENTENCES = [
    errors.config_invalid("<file or key>", "<why>"),
    errors.config_missing("<file>", "<why>", hint=""),
    errors.not_enrolled(),
    errors.unreachable("<why>"),
    errors.not_our_server("<what answered>"),
    errors.compose_invalid("<why>"),
    errors.bad_answer("<function>", "<what is unexpected>"),
    errors.tool_missing("<program>", "<package>", needed_for="<what cannot be done>"),
    errors.disk_full("<what was to be written, or how much is free>"),
    errors.state_corrupt("<file>", "<why>"),
    errors.state_unwritable("<file>", "<why>"),
    errors.locked("<process>"),
    errors.internal("<what>"),
]


def test_the_page_shows_each_sentence_as_it_is_read() -> None:
    shown = re.findall(r"^- `([a-z_]+)`: `(.+)`$", PAGE.read_text(), re.MULTILINE)
    assert shown == [(error.kind.value, error.message) for error in SENTENCES]


def test_no_other_place_writes_a_sentence_of_these_kinds() -> None:
    once = {error.kind for error in SENTENCES}
    files = [file for file in PACKAGE.rglob("*.py") if file.name != "errors.py"]
    assert [f"{file}:{line}" for file in files for kind, line in _written(file) if kind in once] == []


def test_each_sentence_ends_with_a_period_and_most_have_a_hint() -> None:
    assert [error.message for error in SENTENCES if not error.message.endswith(".")] == []
    without = {error.kind for error in SENTENCES if not error.hint}
    assert without == {Kind.CONFIG_INVALID, Kind.CONFIG_MISSING, Kind.STATE_CORRUPT}  # it is the caller's


def _written(file: Path) -> Iterator[tuple[Kind, int]]:
    """Errors that are made with a sentence of their own, and where."""
    classes = {"FleetError", *(one.__name__ for one in FleetError.__subclasses__())}
    for node in ast.walk(ast.parse(file.read_text())):
        if not (isinstance(node, ast.Call) and isinstance(node.func, ast.Name) and node.func.id in classes):
            continue
        match node.args:
            case [ast.Attribute(value=ast.Name(id="Kind"), attr=name), ast.Constant() | ast.JoinedStr(), *_]:
                yield Kind[name], node.lineno
