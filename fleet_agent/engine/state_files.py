"""The engine's file operations: each one durable, each one a named effect."""

from __future__ import annotations

import os
import shutil
from collections.abc import Callable
from pathlib import Path

from loguru import logger

from fleet_agent.engine.dependencies import Effects
from fleet_agent.errors import Kind, StateError
from fleet_agent.support import atomic_files

#: Enough for a journal, a row and the links, several times over.
RESERVE_BYTES = 256 * 1024


class StateFiles:
    """Raises StateError (`disk_full`, `state_unwritable`) only.

    A reserve of disk space is kept, and used when the disk is full: an update can then still be finished and
    recorded.
    """

    def __init__(self, effects: Effects, reserve: Path) -> None:
        self._effects = effects
        self._reserve = reserve

    def write(self, path: Path, content: bytes, *, mode: int = 0o600) -> None:
        self._effects.perform(
            f"write {path.name}",
            lambda: self.on_reserve(lambda: atomic_files.write_atomic(path, content, mode=mode)),
        )

    def on_reserve(self, action: Callable[[], None]) -> None:
        """Do something small and needed; if the disk is full, with the space of the reserve."""
        try:
            action()
        except StateError as error:
            if error.kind is not Kind.DISK_FULL or not self._reserve.exists():
                raise
            self._reserve.unlink(missing_ok=True)
            action()

    def keep_reserve(self) -> None:
        """Make the reserve if there is none. Best effort: without space there is none."""
        if self._reserve.exists():
            return
        try:
            # Random bytes: a file system that compresses or leaves holes would reserve nothing.
            atomic_files.write_atomic(self._reserve, os.urandom(RESERVE_BYTES), mode=0o600)
        except StateError as error:
            logger.debug("no reserve of disk space: {error}", error=error.message)

    def link(self, link: Path, target: Path) -> None:
        """Point `link` at `target`; writes nothing if it already does."""
        if points_at(link) != target:
            self._effects.perform(
                f"link {link.name}", lambda: self.on_reserve(lambda: atomic_files.swap_link(link, target))
            )

    def remove(self, path: Path) -> None:
        """Remove a file or link; an absent one costs nothing."""
        if path.is_symlink() or path.exists():
            self._effects.perform(f"remove {path.name}", lambda: atomic_files.remove(path))

    def discard_tree(self, folder: Path) -> None:
        """Remove what nothing looks for; part of it may stay for the next time."""
        self._effects.perform(
            f"discard {folder.parent.name}/", lambda: shutil.rmtree(folder, ignore_errors=True)
        )

    def remove_tree(self, folder: Path) -> None:
        """Remove a folder: first by one rename, so that half of it is never taken for the whole."""
        doomed = folder.with_name(f".{folder.name}.doomed")

        def remove() -> None:
            try:
                shutil.rmtree(doomed, ignore_errors=True)
                if folder.exists():
                    folder.rename(doomed)
                    atomic_files.sync_folder(folder.parent)
            except OSError as error:
                raise atomic_files.unwritable(folder, error) from error
            shutil.rmtree(doomed, ignore_errors=True)

        if folder.exists() or doomed.exists():
            self._effects.perform(f"remove folder {folder.parent.name}/", remove)


def points_at(link: Path) -> Path | None:
    """Where a link points, as an absolute path; None if there is no link."""
    try:
        return Path(os.path.normpath(link.parent / link.readlink()))
    except OSError:
        return None
