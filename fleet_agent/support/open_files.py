"""Which process has a file open, by `/proc`."""

from __future__ import annotations

import os


def has_open(pid: int, name: str, file: os.stat_result) -> bool:
    """Whether the process has this file open, by a path that ends with `/name`.

    A descriptor that it closes meanwhile is passed over. False if it is gone, or not ours to look at.
    """
    folder = f"/proc/{pid}/fd"
    try:
        entries = os.listdir(folder)  # noqa: PTH208
    except OSError:
        return False
    return any(_leads_to(f"{folder}/{entry}", name, file) for entry in entries)


def _leads_to(descriptor: str, name: str, file: os.stat_result) -> bool:
    try:
        # Looking at what a descriptor leads to may hang (a dead NFS server); reading its name does not.
        named = os.readlink(descriptor)  # noqa: PTH115
        # Another file system may have a file of the same number.
        return named.endswith(f"/{name}") and os.path.samestat(os.stat(descriptor), file)  # noqa: PTH116
    except OSError:
        return False
