"""Which names a release may have: those that every disk can hold and every reader sees as they are."""

from __future__ import annotations

import re
import unicodedata
from collections.abc import Callable

#: Bytes of one name (the limit of file systems), of a whole path, and folders one in another. What a release
#: becomes on a device has a longer path, and the kernel takes 4096 bytes.
NAME_LIMIT, PATH_LIMIT, LEVELS_LIMIT = 255, 2048, 100
#: What Git itself refuses to write, in the forms that some file systems take for `.git`.
_GIT = re.compile(r"\.git[ .]*(::.*)?|git~[0-9]+", re.I | re.S)
#: Order characters otherwise than they are read, or are not seen at all.
_INVISIBLE = re.compile("[\u200b-\u200f\u202a-\u202e\u2060-\u2069\u061c\ufeff\u00ad\u180e\u2028\u2029]")


def unsafe(path: str) -> str | None:
    """Why a release may not contain this path, as a phrase; None if it may."""
    return next((why for is_so, why in _UNSAFE if is_so(path, path.split("/"))), None)


def collision(paths: list[str]) -> str | None:
    """A path that is a file and a folder at once; None if there is none."""
    files = set(paths)
    folders = {path[:end] for path in paths for end in _slashes(path)}
    return min(files & folders, default=None)


def shown(path: str) -> str:
    """A path as people may read it: cut, and without what would change how it is read."""
    cut = path if len(path) <= 120 else f"{path[:117]}..."
    return "".join(
        one if one.isprintable() and not _INVISIBLE.match(one) else f"\\u{ord(one):04x}" for one in cut
    )


def _bytes(text: str) -> int:
    return len(text.encode(errors="replace"))


_UNSAFE: tuple[tuple[Callable[[str, list[str]], bool], str], ...] = (
    (lambda _, parts: bool({"", ".", ".."} & set(parts)), "a release may not contain this name"),
    (
        lambda _, parts: any(_GIT.fullmatch(_INVISIBLE.sub("", part)) for part in parts),
        "Git takes a name in it for its own folder",
    ),
    (
        lambda path, _: any(unicodedata.category(one) in ("Cc", "Cs") for one in path),
        "its name has control characters",
    ),
    (
        lambda path, _: _INVISIBLE.search(path) is not None,
        "its name has characters that change how it is read, or that are not seen",
    ),
    (
        lambda _, parts: any(_bytes(part) > NAME_LIMIT for part in parts),
        f"a name in it is longer than {NAME_LIMIT} bytes",
    ),
    (lambda path, _: _bytes(path) > PATH_LIMIT, f"its path is longer than {PATH_LIMIT} bytes"),
    (lambda _, parts: len(parts) > LEVELS_LIMIT, f"it is more than {LEVELS_LIMIT} folders deep"),
)


def _slashes(path: str) -> list[int]:
    return [index for index, character in enumerate(path) if character == "/"]
