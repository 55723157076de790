"""Folders that are dear to make and always come out the same: made once, named by a hash of their sources.

They live beside the virtual environment that the tests run in. `make clean` takes them away, and so does
deleting the folder at any time at which no test runs.
"""

from __future__ import annotations

import fcntl
import hashlib
import os
import shutil
import subprocess
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
FOLDER = ROOT / ".venv" / "cache"
#: Of each kind, so that a change of branch and back costs nothing.
KEPT = 3
_DIGITS = 20


def digest(*sources: Path | str) -> str:
    """A hash of texts, of files, and of all files in folders: names and content, nothing of dates."""
    found = hashlib.sha256()
    for source in sources:
        if isinstance(source, str):
            found.update(f"text {source}\0".encode())
            continue
        base = source if source.is_dir() else source.parent
        for path in sorted(_files(source)):
            content = hashlib.sha256(path.read_bytes()).hexdigest()
            found.update(f"file {path.relative_to(base).as_posix()} {content}\0".encode())
    return found.hexdigest()[:_DIGITS]


def _files(source: Path) -> Iterator[Path]:
    if source.is_file():
        yield source
        return
    for folder, folders, files in os.walk(source):
        folders[:] = [name for name in folders if name not in ("__pycache__", "node_modules")]
        yield from (Path(folder, name) for name in files)


@contextmanager
def cached(kind: str, key: str, make: Callable[[Path], None], *, folder: Path = FOLDER) -> Iterator[Path]:
    """The folder that `make` fills, made before or now; to be read, or copied (`copy`), inside the block.

    Processes that want the same at the same time wait for the first of them. A folder that was left half made
    never gets its name.
    """
    folder.mkdir(parents=True, exist_ok=True)
    ready = folder / f"{kind}-{key}"
    with (folder / f"{kind}.lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_SH)
        if not ready.exists():
            fcntl.flock(lock, fcntl.LOCK_EX)
            # Another process may have been quicker between the two.
            if not ready.exists():
                _make(ready, make)
                _forget_old(folder, kind)
            fcntl.flock(lock, fcntl.LOCK_SH)
        os.utime(ready)
        yield ready


def _make(ready: Path, make: Callable[[Path], None]) -> None:
    unfinished = ready.with_name(f"{ready.name}.new")
    shutil.rmtree(unfinished, ignore_errors=True)
    unfinished.mkdir()
    try:
        make(unfinished)
        unfinished.rename(ready)
    except BaseException:
        shutil.rmtree(unfinished, ignore_errors=True)
        raise


def _forget_old(folder: Path, kind: str) -> None:
    entries = folder.glob(f"{kind}-{'?' * _DIGITS}")
    newest_first = sorted(entries, key=lambda path: path.stat().st_mtime, reverse=True)
    for path in newest_first[KEPT:]:
        shutil.rmtree(path)


def copy(source: Path, target: Path) -> None:
    """Copy a folder with owners and modes; `target` must not be there yet."""
    subprocess.run(["cp", "-a", source, target], check=True)
