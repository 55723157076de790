"""What paths of a compose file mean on a device. Pure: only `Place.real` may look at a disk."""

from __future__ import annotations

import posixpath
import re
from collections.abc import Callable
from dataclasses import dataclass


@dataclass(frozen=True)
class Place:
    """Where a role's files are, and what paths mean there.

    `given`: the values of the device for variables of type `path`, which its owner chose. `agent`: the
    agent's own folders. `real` follows links on the device; without a device a path is what it says.
    """

    folder: str
    release: tuple[str, ...]
    given: tuple[str, ...] = ()
    agent: tuple[str, ...] = ()
    real: Callable[[str], str] = str

    def path(self, source: str) -> str:
        """An absolute path without detours; `~` is a home of the device."""
        if source.startswith("~"):
            return normal(f"/root/{source.partition('/')[2]}")
        return normal(posixpath.join(self.folder, source))

    def is_inside(self, source: str) -> bool:
        """Whether a path is of the release itself."""
        if source.startswith("~"):
            return False
        path = posixpath.normpath(posixpath.join(self.folder, source))
        return any(below(path, folder) for folder in self.release)


def normal(path: str) -> str:
    """An absolute path without detours."""
    path = posixpath.normpath("/" + path.lstrip("/"))
    # A link on every device.
    return re.sub(
        r"^/var/(run|lock)(?=/|$)", lambda found: "/run" if found[1] == "run" else "/run/lock", path
    )


def below(path: str, folder: str) -> bool:
    """Whether `path` is `folder` or in it."""
    return path == folder or path.startswith(folder.rstrip("/") + "/")
