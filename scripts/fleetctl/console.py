"""What fleetctl prints: tables and sentences for people on stdout, JSON for scripts, errors on stderr."""

from __future__ import annotations

import json
import os
import sys
from collections.abc import Iterable, Mapping, Sequence, Sized
from typing import Any

from rich.console import Console
from rich.markup import escape
from rich.table import Table

# In a pipe nothing may be cut to 80 columns: what a script greps for must be there whole.
_PIPE_WIDTH = None if sys.stdout.isatty() or "COLUMNS" in os.environ else 200
out = Console(highlight=False, width=_PIPE_WIDTH)
err = Console(stderr=True, highlight=False)


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
    """The same, not printed yet."""
    made = Table(title=title or None, title_justify="left", header_style="bold")
    for column in columns:
        made.add_column(column)
    for row in rows:
        made.add_row(*("" if cell is None else escape(str(cell)) for cell in row))
    return made


def print_error(kind: str, message: str, hint: str = "", *, as_json: bool = False) -> None:
    """The error for people on stderr; with `as_json` also as a document on stdout."""
    if as_json:
        print_json({"error": {"kind": kind, "message": message, "hint": hint}})
    err.print(f"[bold red]error[/] ({kind}): {escape(message)}")
    if hint:
        err.print(f"  [dim]hint:[/] {escape(hint)}")


def print_warning(message: str, hint: str = "") -> None:
    """What a person should know although the command goes on, on stderr."""
    err.print(f"[bold yellow]warning[/]: {escape(message)}")
    if hint:
        err.print(f"  [dim]hint:[/] {escape(hint)}")


def pairs(value: Mapping[str, object]) -> None:
    """`key  value` lines."""
    width = max((len(key) for key in value), default=0)
    for key, item in value.items():
        out.print(f"[bold]{key:<{width}}[/]  {escape(str(item))}")
