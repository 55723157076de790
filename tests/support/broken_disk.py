"""A disk that forgets: what was not synced may be gone after the crash.

Installed in a process that is going to be killed. It watches every change that Python makes to a folder,
keeps how to undo it until the folder is synced, and knows which files hold bytes that were not. `crash` then
makes the folder look as it may after a power cut. Order between unsynced changes is kept, as journaling file
systems do: what is lost is always the newest part.
"""

# It stands in for the functions that pathlib itself calls:
# ruff: noqa: PTH100, PTH103, PTH112, PTH113, PTH114, PTH115, PTH116, PTH119, PTH120

from __future__ import annotations

import builtins
import errno
import io
import os
import shutil
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from random import Random
from typing import Any

_CHANGES = os.O_CREAT | os.O_WRONLY | os.O_RDWR


@dataclass
class _Change:
    """One change of a name that its folder may not have on disk yet."""

    folder: str
    undo: Callable[[], None]


@dataclass
class ForgettingDisk:
    """`tick` is called before each change with its description; `root` limits what is watched."""

    root: Path
    tick: Callable[[str], None]
    ignored: frozenset[str] = frozenset()
    #: Once set, every change is refused with this error number: a full disk, or one mounted read-only.
    broken: int | None = None
    _pending: list[_Change] = field(default_factory=list)
    _dirty: dict[int, str] = field(default_factory=dict)
    _real: dict[str, Any] = field(default_factory=dict)
    _backups: int = 0

    def install(self) -> None:
        shutil.rmtree(f"{self.root}.lost", ignore_errors=True)
        for name in ("open", "replace", "rename", "symlink", "unlink", "remove", "mkdir", "rmdir", "fsync"):
            self._real[name] = getattr(os, name)
            setattr(os, name, getattr(self, f"_{name}"))
        self._real["io.open"] = io.open
        builtins.open = io.open = self._io_open

    def crash(self, keep: float, *, tear: bool) -> None:
        """Lose all but the oldest part `keep` (0..1) of unsynced changes; with `tear` unsynced bytes too."""
        if tear:
            for path in self._dirty.values():
                if os.path.isfile(path) and not os.path.islink(path):
                    os.truncate(path, 0)
        for change in reversed(self._pending[round(len(self._pending) * keep) :]):
            try:
                change.undo()
            except OSError:
                continue

    # What the process does

    def _about_to(self, what: str) -> None:
        self.tick(what)
        # A full disk still lets go of things; one that is read-only does not.
        if self.broken == errno.EROFS or (self.broken and not what.startswith(("unlink", "fsync"))):
            raise OSError(self.broken, os.strerror(self.broken))

    def _watched(self, path: Any) -> str | None:
        if isinstance(path, int):
            return None
        text: str = os.path.abspath(os.fspath(path))
        if not text.startswith(f"{self.root}/") or os.path.basename(text) in self.ignored:
            return None
        return text

    def _open(self, path: Any, flags: int, mode: int = 0o777, *, dir_fd: int | None = None) -> int:
        name = self._watched(path) if dir_fd is None else None
        if name is None or not flags & _CHANGES or flags & os.O_DIRECTORY:
            return int(self._real["open"](path, flags, mode, dir_fd=dir_fd))
        fresh = not os.path.lexists(name)
        self._about_to(f"open {self._short(name)}")
        handle = int(self._real["open"](path, flags, mode, dir_fd=dir_fd))
        self._wrote(name, fresh)
        return handle

    def _io_open(self, file: Any, mode: str = "r", *more: Any, **named: Any) -> Any:
        name = None if isinstance(file, int) else self._watched(file)
        if name is None or not set(mode) & set("wax+"):
            return self._real["io.open"](file, mode, *more, **named)
        fresh = not os.path.lexists(name)
        self._about_to(f"open {self._short(name)}")
        opened = self._real["io.open"](file, mode, *more, **named)
        self._wrote(name, fresh)
        return opened

    def _wrote(self, name: str, fresh: bool) -> None:
        self._dirty[os.stat(name).st_ino] = name
        if fresh:
            self._later(name, lambda: self._real["unlink"](name))

    def _replace(self, source: Any, target: Any, **named: Any) -> None:
        self._move("replace", source, target, named)

    def _rename(self, source: Any, target: Any, **named: Any) -> None:
        self._move("rename", source, target, named)

    def _move(self, how: str, source: Any, target: Any, named: dict[str, Any]) -> None:
        old, new = self._watched(source), self._watched(target)
        if old is None or new is None:
            self._real[how](source, target, **named)
            return
        self._about_to(f"{how} {self._short(new)}")
        saved = self._save(new)
        self._real[how](source, target, **named)
        for inode, path in list(self._dirty.items()):
            if path == old or path.startswith(f"{old}/"):
                self._dirty[inode] = new + path[len(old) :]

        def undo() -> None:
            self._real["replace"](new, old)
            if saved is not None:
                self._real["replace"](saved, new)

        self._later(new, undo)

    def _symlink(self, target: Any, link: Any, *more: Any, **named: Any) -> None:
        name = self._watched(link)
        if name is not None:
            self._about_to(f"symlink {self._short(name)}")
        self._real["symlink"](target, link, *more, **named)
        if name is not None:
            self._later(name, lambda: self._real["unlink"](name))

    def _unlink(self, path: Any, **named: Any) -> None:
        self._gone("unlink", path, named)

    def _remove(self, path: Any, **named: Any) -> None:
        self._gone("remove", path, named)

    def _gone(self, how: str, path: Any, named: dict[str, Any]) -> None:
        name = self._watched(path) if named.get("dir_fd") is None else None
        if name is None or not os.path.lexists(name):
            self._real[how](path, **named)
            return
        self._about_to(f"unlink {self._short(name)}")
        saved = self._save(name)
        self._real[how](path, **named)
        if saved is not None:
            self._later(name, lambda: self._real["replace"](saved, name))

    def _mkdir(self, path: Any, *more: Any, **named: Any) -> None:
        name = self._watched(path) if named.get("dir_fd") is None else None
        if name is not None and not os.path.lexists(name):
            self._about_to(f"mkdir {self._short(name)}")
            self._real["mkdir"](path, *more, **named)
            self._later(name, lambda: shutil.rmtree(name))
            return
        self._real["mkdir"](path, *more, **named)

    def _rmdir(self, path: Any, **named: Any) -> None:
        self._real["rmdir"](path, **named)

    def _fsync(self, handle: Any) -> None:
        number = handle if isinstance(handle, int) else handle.fileno()
        path = os.readlink(f"/proc/self/fd/{number}")
        if self._watched(path) is not None or path == str(self.root):
            self._about_to(f"fsync {self._short(path)}")
            self._dirty.pop(os.fstat(number).st_ino, None)
            self._pending = [change for change in self._pending if change.folder != path]
        # Nothing is gained by waiting for a real disk here.

    # How it is remembered

    def _later(self, name: str, undo: Callable[[], None]) -> None:
        self._pending.append(_Change(os.path.dirname(name), undo))

    def _save(self, name: str) -> str | None:
        """A second name for what is about to be replaced, outside the watched folder."""
        if not os.path.lexists(name) or (os.path.isdir(name) and not os.path.islink(name)):
            return None
        folder = f"{self.root}.lost"
        os.makedirs(folder, exist_ok=True)
        self._backups += 1
        saved = f"{folder}/{self._backups}"
        if os.path.islink(name):
            self._real["symlink"](os.readlink(name), saved)
        else:
            os.link(name, saved)
        return saved

    def _short(self, path: str) -> str:
        """Without what differs from run to run."""
        return os.path.relpath(path, self.root)


def survivors(random: Random) -> float:
    """Which part of the unsynced changes made it: often none, sometimes some."""
    return 0.0 if random.random() < 0.5 else random.random()
