"""One convergence at a time per root: flock, so a dead holder never leaves it locked."""

from __future__ import annotations

import fcntl
import json
import os
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import UTC, datetime
from pathlib import Path

from fleet_agent.errors import locked
from fleet_agent.support.atomic_files import open_lock


@contextmanager
def converging(lock: Path, what: str) -> Iterator[None]:
    """Hold the lock while the block runs. Raises StateError (`locked`), naming the holder; never waits.

    The file names its holder for people. It is not synced: only the kernel's lock counts.
    """
    handle = open_lock(lock, mode=0o644)
    try:
        if not _take(handle):
            raise locked(holder(lock) or "an unnamed process")
        os.ftruncate(handle, 0)
        os.pwrite(handle, _self_description(what), 0)
        try:
            yield
        finally:
            os.ftruncate(handle, 0)
    finally:
        os.close(handle)


def holder(lock: Path) -> str | None:
    """Who holds the lock now, as a phrase for people; None if nobody does."""
    try:
        handle = os.open(lock, os.O_RDONLY | os.O_CLOEXEC)
    except FileNotFoundError:
        return None
    try:
        try:
            fcntl.flock(handle, fcntl.LOCK_SH | fcntl.LOCK_NB)
        except BlockingIOError:
            return _phrase(os.pread(handle, 4096, 0))
        return None
    finally:
        os.close(handle)


def _take(handle: int) -> bool:
    """Try a few times: a caller of `holder` has the lock for an instant."""
    for _ in range(5):
        try:
            fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
            return True
        except BlockingIOError:
            time.sleep(0.01)
    return False


def _self_description(what: str) -> bytes:
    return json.dumps(
        {"pid": os.getpid(), "what": what, "program": Path(sys.argv[0]).name, "since": _now()}
    ).encode()


def _phrase(raw: bytes) -> str:
    try:
        said = json.loads(raw)
        return f"{said['what']} by process {said['pid']} since {said['since']}"
    except (ValueError, KeyError, TypeError):
        # The holder has the lock and is about to write its name.
        return "a process that has just started"


def _now() -> str:
    return datetime.now(UTC).isoformat(timespec="seconds")
