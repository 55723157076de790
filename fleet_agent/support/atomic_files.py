"""Files that are either the old version or the new one, even if the power fails."""

from __future__ import annotations

import contextlib
import errno
import os
import stat
import tempfile
from pathlib import Path

from fleet_agent.errors import FleetError, Kind, disk_full, state_unwritable


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


def keep_private(folder: Path) -> None:
    """Make `folder` if it is missing, and close it to other users. Raises OSError."""
    folder.mkdir(parents=True, exist_ok=True, mode=0o700)
    if stat.S_IMODE(folder.stat().st_mode) & 0o077:
        folder.chmod(0o700)


def open_lock(file: Path) -> int:
    """A descriptor of `file` to lock; makes it, and its folder. Raises StateError (`state_unwritable`).

    Whoever can read a file can lock it, and so stop us: neither the file nor its folder is open to others.
    """
    try:
        keep_private(file.parent)
        handle = os.open(file, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
        if stat.S_IMODE(os.fstat(handle).st_mode) & 0o077:
            os.fchmod(handle, 0o600)
        return handle
    except OSError as error:
        raise state_unwritable(file, error.strerror) from error


def kind_of(error: OSError) -> Kind:
    """`disk_full`, or `state_unwritable` for any other failure of a write."""
    return Kind.DISK_FULL if error.errno in (errno.ENOSPC, errno.EDQUOT) else Kind.STATE_UNWRITABLE


def unwritable(path: Path, error: OSError) -> FleetError:
    """The StateError to raise if writing `path` failed."""
    if kind_of(error) is Kind.DISK_FULL:
        return disk_full(f"cannot write {path}")
    return state_unwritable(path, error.strerror)
