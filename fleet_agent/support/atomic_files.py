"""Files that are either the old version or the new one, even if the power fails."""

from __future__ import annotations

import contextlib
import errno
import os
import tempfile
from pathlib import Path

from fleet_agent.errors import Kind, StateError


def sync_file(file: Path) -> None:
    """Make the content of `file` durable."""
    _sync(file, os.O_RDONLY)


def sync_folder(folder: Path) -> None:
    """Make renames and removals in `folder` durable."""
    _sync(folder, os.O_RDONLY | os.O_DIRECTORY)


def _sync(path: Path, flags: int) -> None:
    handle = os.open(path, flags)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)


def make_folder(folder: Path) -> None:
    """Make `folder` and its missing parents durably: a file is lost with the folder it was synced in."""
    missing = [parent for parent in (folder, *folder.parents) if not parent.exists()]
    for parent in reversed(missing):
        parent.mkdir(exist_ok=True)
        sync_folder(parent.parent)


def write_atomic(path: Path, content: bytes, *, mode: int = 0o644) -> None:
    """Replace `path` durably: temporary file, fsync, rename, fsync of the folder.

    Raises StateError (`disk_full` or `state_unwritable`); the old content is then untouched.
    """
    try:
        make_folder(path.parent)
        handle, name = tempfile.mkstemp(prefix=f".{path.name}.", dir=path.parent)
    except OSError as error:
        raise unwritable(path, error) from error
    temporary = Path(name)
    try:
        with os.fdopen(handle, "wb") as file:
            os.fchmod(file.fileno(), mode)
            file.write(content)
            file.flush()
            os.fsync(file.fileno())
        temporary.replace(path)
        sync_folder(path.parent)
    except OSError as error:
        with contextlib.suppress(OSError):
            temporary.unlink(missing_ok=True)
        raise unwritable(path, error) from error


def swap_link(link: Path, target: Path) -> None:
    """Point the symbolic link `link` at `target` (relative if possible) in one atomic, durable step."""
    temporary = link.with_name(f".{link.name}.new")
    try:
        temporary.unlink(missing_ok=True)
        temporary.symlink_to(os.path.relpath(target, link.parent))
        temporary.replace(link)
        sync_folder(link.parent)
    except OSError as error:
        raise unwritable(link, error) from error


def remove(path: Path) -> None:
    """Remove a file or link durably; it may be absent."""
    try:
        path.unlink(missing_ok=True)
        if path.parent.is_dir():
            sync_folder(path.parent)
    except OSError as error:
        raise unwritable(path, error) from error


def is_disk_full(error: OSError) -> bool:
    """Whether writing failed because the disk is full."""
    return error.errno in (errno.ENOSPC, errno.EDQUOT)


def unwritable(path: Path, error: OSError) -> StateError:
    """The error to raise if writing `path` failed."""
    if is_disk_full(error):
        return StateError(
            Kind.DISK_FULL, f"The disk is full: cannot write {path}.", hint="Free some disk space."
        )
    return StateError(
        Kind.STATE_UNWRITABLE,
        f"Cannot write {path}: {error.strerror}.",
        hint="Check that the file system is mounted read-write and that the agent owns the folder.",
    )
