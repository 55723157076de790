"""Rows, and which of them a request is about, as filters in a URL. Light: `--help` may load it."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator, Sequence
from typing import Any, TypeVar

Row = dict[str, Any]

#: What PostgREST answers at most in one go on hosted projects, rows of functions included.
PAGE = 1000
#: Ids in one URL: 100 UUIDs are 3.7 kB, which every proxy takes.
BATCH = 100
T = TypeVar("T")
#: A value that means itself also without quotes: an id, or a word that is not a constant.
_BARE = re.compile(r"[0-9a-f]{8}-[0-9a-f-]{27}|(?!(?:true|false|null)$)[a-z][a-z_-]*")


class Query:
    """Conditions on rows, all of which must hold."""

    def __init__(self) -> None:
        self.parameters: list[tuple[str, str]] = []

    def eq(self, column: str, value: object) -> Query:
        if isinstance(value, str) and not _BARE.fullmatch(value):
            # Lite compares with a number what looks like one: no release 1.0 is found among texts.
            return self.in_(column, [value])
        return self._add(column, f"eq.{_text(value)}")

    def neq(self, column: str, value: object) -> Query:
        return self._add(column, f"neq.{_text(value)}")

    def gte(self, column: str, value: object) -> Query:
        return self._add(column, f"gte.{_text(value)}")

    def lte(self, column: str, value: object) -> Query:
        return self._add(column, f"lte.{_text(value)}")

    def is_null(self, column: str) -> Query:
        return self._add(column, "is.null")

    def in_(self, column: str, values: Sequence[str]) -> Query:
        return self._add(column, f"in.({','.join(quoted(value) for value in values)})")

    def any_of(self, *conditions: str) -> Query:
        """Conditions such as `version.eq."2.1.0"`, of which one must hold."""
        return self._add("or", f"({','.join(conditions)})")

    def _add(self, column: str, condition: str) -> Query:
        self.parameters.append((column, condition))
        return self


#: Narrows a request, like `where(state="active")`.
Narrow = Callable[[Query], Query]


def quoted(value: str) -> str:
    """A value within a list of values."""
    if _BARE.fullmatch(value):
        return value
    escaped = value.replace("\\", "\\\\").replace('"', '\\"')
    return f'"{escaped}"'


def every_row(query: Query) -> Query:
    """No condition."""
    return query


def where(**values: object) -> Narrow:
    """Rows whose columns have these values. A column given as None is not compared at all."""

    def narrow(query: Query) -> Query:
        for column, value in values.items():
            if value is not None:
                query = query.eq(column, value)
        return query

    return narrow


def all_of(*narrows: Narrow) -> Narrow:
    """Rows to which every one of these applies."""

    def narrow(query: Query) -> Query:
        for one in narrows:
            query = one(query)
        return query

    return narrow


def is_empty(column: str) -> Narrow:
    """Rows that have nothing in `column`."""
    return lambda query: query.is_null(column)


def is_one_of(column: str, values: Sequence[str], **also: object) -> Narrow:
    """Rows whose `column` is one of `values`, and whose other columns have the values of `also`."""
    return lambda query: where(**also)(query.in_(column, list(values)))


def batches(values: Sequence[T]) -> Iterator[Sequence[T]]:
    """`values` in parts that fit into one request."""
    for start in range(0, len(values), BATCH):
        yield values[start : start + BATCH]


def _text(value: object) -> str:
    return str(value).lower() if isinstance(value, bool) else str(value)
