"""What fleetctl prints: tables and sentences for people on stdout, JSON for scripts, errors on stderr."""

from __future__ import annotations

import json
import sys
import unicodedata
from collections.abc import Iterable, Mapping, Sequence, Sized
from typing import Any

from rich.console import Console
from rich.markup import escape
from rich.table import Table
from rich.text import Text

# In a pipe nothing is wrapped or cut: what a script greps for must be on one line, whole.
_UNWRAPPED = 1_000_000
#: Controls, format and direction characters, separators of lines, and halves of characters.
_MARKED = frozenset(("Cc", "Cf", "Cs", "Zl", "Zp"))
#: Letters and marks of other categories that show nothing: joiners, fillers, selectors of variants.
_INVISIBLE = frozenset(
    "\u034f\u115f\u1160\u17b4\u17b5\u180b\u180c\u180d\u180f\u2800\u3164\uffa0"
    + "".join(map(chr, (*range(0xFE00, 0xFE10), *range(0xE0100, 0xE01F0))))
)


def marked(text: str, *, keep: str = "") -> str:
    r"""`text` with `\x1b` or `\u202e` in place of what a terminal obeys or does not show.

    Characters in `keep` stay.
    """
    return "".join(
        ascii(character)[1:-1]
        if character not in keep and (unicodedata.category(character) in _MARKED or character in _INVISIBLE)
        else character
        for character in text
    )


class _Console(Console):
    """Every string comes through here before it is measured or printed, also those within tables."""

    def render_str(self, text: str, **options: Any) -> Text:
        return super().render_str(marked(text, keep="\n"), **options)


out = _Console(highlight=False, emoji=False, width=None if sys.stdout.isatty() else _UNWRAPPED)
err = _Console(stderr=True, highlight=False, emoji=False, width=None if sys.stderr.isatty() else _UNWRAPPED)


def counted(things: Sized | int, noun: str = "device") -> str:
    """`1 device`, `3 devices`."""
    number = things if isinstance(things, int) else len(things)
    return f"{number} {noun}{'' if number == 1 else 's'}"


def print_json(value: Any) -> None:
    """One JSON document on stdout, nothing else."""
    print(json.dumps(value, indent=2, default=str, ensure_ascii=False))


def print_table(title: str, columns: Sequence[str], rows: Iterable[Sequence[object]]) -> None:
    """A table for people; empty cells for None."""
    out.print(table(title, columns, rows))


def table(title: str, columns: Sequence[str], rows: Iterable[Sequence[object]]) -> Table:
    """The same, not printed yet. A cell of several lines is a tuple of them."""
    made = Table(title=title or None, title_justify="left", header_style="bold")
    for column in columns:
        made.add_column(column)
    for row in rows:
        made.add_row(*(_cell(cell) for cell in row))
    return made


def _cell(value: object) -> str:
    lines = value if isinstance(value, tuple) else ("" if value is None else value,)
    return "\n".join(escape(marked(str(line))) for line in lines)


def _quoted(message: str) -> str:
    """An error may end with the last lines of a log; none of them looks like a line of our own."""
    return escape(marked(message, keep="\n")).replace("\n", "\n  │ ")


def print_error(kind: str, message: str, hint: str = "", *, as_json: bool = False) -> None:
    """The error for people on stderr; with `as_json` also as a document on stdout."""
    if as_json:
        print_json({"error": {"kind": kind, "message": message, "hint": hint}})
    err.print(f"[bold red]error[/] ({kind}): {_quoted(message)}")
    if hint:
        err.print(f"  [dim]hint:[/] {_quoted(hint)}")


def print_warning(message: str, hint: str = "") -> None:
    """What a person should know although the command goes on, on stderr."""
    err.print(f"[bold yellow]warning[/]: {_quoted(message)}")
    if hint:
        err.print(f"  [dim]hint:[/] {_quoted(hint)}")


def pairs(value: Mapping[str, object]) -> None:
    """`key  value` lines."""
    width = max((len(key) for key in value), default=0)
    for key, item in value.items():
        out.print(f"[bold]{key:<{width}}[/]  {escape(marked(str(item)))}")
