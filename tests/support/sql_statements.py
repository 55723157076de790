"""Reads SQL files as statements: what each defines, grants or comments. Enough for `migrations/`."""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass
from functools import cache
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]

_TOKEN = re.compile(
    r"""--[^\n]*            # a comment
      | '(?:[^']|'')*'      # a text
      | "(?:[^"]|"")*"      # a name in quotes
      | (\$\w*\$).*?\1      # a body
      | begin\ atomic.*?\nend(?=;)  # a body that is bound when it is created
      | ;                   # the end
      | (?:(?!begin\ atomic)[^-'"$;])+ | .  # everything else
    """,
    re.VERBOSE | re.DOTALL,
)
# What a statement is about, by how it begins (spaces made one). First group: the object's name.
_SHAPES = {
    "schema": r"create schema (?:if not exists )?(\w+)",
    "table": r"create (?:unlogged )?table ([\w.]+)",
    "type": r"create type ([\w.]+)",
    "function": r"create function ([\w.]+)\(",
    "view": r"create view ([\w.]+)",
    "index": r"create (?:unique )?index (\w+) on ([\w.]+)",
    "trigger": r"create trigger (\w+) .*? on ([\w.]+)",
    "policy": r'create policy ("[^"]+") on ([\w.]+)',
    "comment": r"comment on (?:role|schema|table|column|type|function|view|index) ([\w.]+)",
    "row security": r"alter table ([\w.]+) enable row level security;",
    "grant": r"grant (.+) to (.+);",
    "revoke": r"revoke (.+) from (.+);",
    "rows": r"insert into ([\w.]+)",
    "role": r"alter role (\w+) set ",
    "block": r"do (\$\$)",
    "call": r"select ([\w.]+)\(",
}


@dataclass(frozen=True)
class Statement:
    """One statement of a file. Two that define, comment or grant the same have the same `key`."""

    file: str
    text: str
    kind: str
    key: str
    # The table of an index, trigger or policy, the object of a comment or grant; else the object itself.
    about: str

    def __str__(self) -> str:
        return f"{self.file}: {self.text[:90]}"


def split(text: str) -> Iterator[str]:
    """The statements of a text, without comments outside of bodies."""
    statement = ""
    for token in _TOKEN.finditer(text):
        if token[0].startswith("--"):
            continue
        statement += token[0]
        if token[0] == ";":
            yield statement.strip()
            statement = ""
    if statement.strip():
        yield statement.strip()


def classify(file: str, text: str) -> list[Statement]:
    """One Statement, or several for a grant to several roles. Kind `other`: what has no place here."""
    line = re.sub(r"\s+", " ", text)
    for kind, shape in _SHAPES.items():
        found = re.match(shape, line, re.DOTALL)
        if found is None:
            continue
        if kind in ("grant", "revoke"):
            return list(_grants(file, text, kind, found[1], found[2]))
        if kind in ("index", "trigger", "policy"):
            return [Statement(file, text, kind, f"{kind} {found[1]} on {found[2]}", found[2])]
        if kind == "comment":
            subject = line.removeprefix("comment on ").split(" ", 1)[0]
            about = found[1].rpartition(".")[0] if subject == "column" else found[1]
            return [Statement(file, text, kind, f"comment on {subject} {found[1]}", about)]
        return [Statement(file, text, kind, f"{kind} {found[1]}", found[1])]
    return [Statement(file, text, "other", text, "")]


def _grants(file: str, text: str, kind: str, what: str, roles: str) -> Iterator[Statement]:
    rights, on, objects = what.partition(" on ")
    for role in roles.split(", "):
        if not on:  # a role
            yield Statement(file, text, kind, f"{kind} {rights} to {role}", rights)
            continue
        # No comma inside of parentheses separates objects.
        for named in re.split(r", (?![^(]*\))", re.sub(r"^(function|schema) ", "", objects)):
            about = named.split("(")[0]
            yield Statement(file, text, kind, f"{kind} on {named} to {role}", about)


@cache
def migrations() -> tuple[Statement, ...]:
    """Every statement of `migrations/`, in order."""
    return tuple(
        statement
        for path in sorted((ROOT / "migrations").glob("*.sql"))
        for text in split(path.read_text(encoding="utf-8"))
        for statement in classify(path.name, text)
    )
