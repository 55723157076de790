"""Rows, and which of them a request is about. Light: a command's module may load it for `--help`."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from typing import Any, TypeVar

Row = dict[str, Any]
#: Narrows a request, like `where(state="active")`. The builder's type is the library's business.
Narrow = Callable[[Any], Any]

#: Ids in one URL: 100 UUIDs are 3.7 kB, which every proxy takes.
BATCH = 100
T = TypeVar("T")


def every_row(query: Any) -> Any:
    """No condition."""
    return query


def where(**values: object) -> Narrow:
    """Rows whose columns have these values. A column given as None is not compared at all."""

    def narrow(query: Any) -> Any:
        for column, value in values.items():
            if value is not None:
                query = query.eq(column, value)
        return query

    return narrow


def all_of(*narrows: Narrow) -> Narrow:
    """Rows to which every one of these applies."""

    def narrow(query: Any) -> Any:
        for one in narrows:
            query = one(query)
        return query

    return narrow


def is_empty(column: str) -> Narrow:
    """Rows that have nothing in `column`."""
    return lambda query: query.is_(column, "null")


def is_one_of(column: str, values: Sequence[str], **also: object) -> Narrow:
    """Rows whose `column` is one of `values`, and whose other columns have the values of `also`."""
    return lambda query: where(**also)(query.in_(column, list(values)))


def batches(values: Sequence[T]) -> Iterator[Sequence[T]]:
    """`values` in parts that fit into one request."""
    for start in range(0, len(values), BATCH):
        yield values[start : start + BATCH]
