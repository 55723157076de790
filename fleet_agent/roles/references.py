"""References to variables in a text: `$$`, `$NAME`, `${NAME}`, `${NAME:-default}`, `${NAME:?why}`.

Read in time that grows with the length of the text alone: a hostile file may have thousands that never end.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator
from dataclasses import dataclass

_START = re.compile(r"\$(?:\$|([A-Za-z_]\w*)|\{([A-Za-z_]\w*))")
_DEFAULT = re.compile(r":?-(.*)", re.S)


@dataclass(frozen=True)
class Reference:
    """`name` is None for `$$`; `rest` is what follows the name in braces. `text` is all of it."""

    text: str
    name: str | None
    rest: str
    start: int

    @property
    def end(self) -> int:
        return self.start + len(self.text)

    @property
    def default(self) -> str | None:
        match = _DEFAULT.fullmatch(self.rest)
        return match[1] if match else None


def found(text: str) -> Iterator[Reference]:
    """Every reference, in order. Braces that are not closed are not one."""
    at, closed = 0, True
    while (match := _START.search(text, at)) is not None:
        at = match.end()
        if match[2] is None:
            yield Reference(match[0], match[1], "", match.start())
            continue
        brace = text.find("}", at) if closed else -1
        if brace < 0:
            closed = False
            continue
        yield Reference(text[match.start() : brace + 1], match[2], text[at:brace], match.start())
        at = brace + 1


def replaced(text: str, value: Callable[[Reference], str]) -> str:
    """`text` with `value` in place of each reference."""
    parts, at = [], 0
    for reference in found(text):
        parts += [text[at : reference.start], value(reference)]
        at = reference.end
    return "".join([*parts, text[at:]])
