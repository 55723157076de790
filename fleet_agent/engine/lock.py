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
from typing import Any

from fleet_agent.errors import FleetError, locked
from fleet_agent.support.atomic_files import open_lock
from fleet_agent.support.open_files import has_open


@contextmanager
def converging(lock: Path, what: str) -> Iterator[None]:
    """Hold the lock while the block runs. Raises StateError (`locked`), naming the holder; never waits.

    The file names its holder for people. It is not synced: only the kernel's lock counts.
    """
    handle = open_lock(lock)
    try:
        if not _take(handle):
            raise _refusal(handle)
        os.ftruncate(handle, 0)
        os.pwrite(handle, _self_description(what), 0)
        try:
            yield
        finally:
            os.ftruncate(handle, 0)
    finally:
        os.close(handle)


def holder(lock: Path) -> str | None:
    """Who holds the lock now, as a phrase for people; None if nobody does, or if that is not ours to see."""
    try:
        handle = os.open(lock, os.O_RDONLY | os.O_CLOEXEC)
    except (FileNotFoundError, PermissionError):
        return None
    try:
        try:
            fcntl.flock(handle, fcntl.LOCK_SH | fcntl.LOCK_NB)
        except BlockingIOError:
            return _phrase(handle)
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


def _refusal(handle: int) -> FleetError:
    if _is_of_the_agent(handle):
        return locked(_phrase(handle))
    # Root, or the agent's own user: the file is open to nobody else.
    return locked(_phrase(handle), hint="End it: only the agent may hold state/converge.lock.")


def _phrase(handle: int) -> str:
    said, pids = _description(handle), _holders(handle)
    if said is not None and (not pids or said["pid"] in pids):
        return f"{said['what']} by process {said['pid']} since {said['since']}"
    # The description is of one that is gone; or the holder is about to write its own, or never will.
    return ", ".join(_name(pid) for pid in sorted(pids)) or "a process that has just started"


def _is_of_the_agent(handle: int) -> bool:
    """False only if the kernel names a holder that did not write itself down and does not run our code."""
    said, pids = _description(handle), _holders(handle)
    return (
        not pids or (said is not None and said["pid"] in pids) or any("fleet" in _line(pid) for pid in pids)
    )


def _description(handle: int) -> dict[str, Any] | None:
    """What the last holder wrote: a killed one does not take it back."""
    try:
        said = json.loads(os.pread(handle, 4096, 0))
        return {name: said[name] for name in ("what", "pid", "since")}
    except (ValueError, KeyError, TypeError):
        return None


def _holders(handle: int) -> set[int]:
    """The processes that the kernel names as holders of the lock; none if it does not say."""
    inode = os.fstat(handle).st_ino
    try:
        rows = [row.split() for row in Path("/proc/locks").read_text().splitlines()]
    except OSError:
        return set()
    found = {int(row[4]) for row in rows if row[1:2] == ["FLOCK"] and row[5].split(":")[-1] == str(inode)}
    return {pid for pid in found if pid > 0 and has_open(pid, "converge.lock", os.fstat(handle))}


def _name(pid: int) -> str:
    try:
        user = Path(f"/proc/{pid}").owner()
    except (OSError, KeyError):
        user = "an unknown user"
    name = _line(pid).split(" ")[0].rpartition("/")[2] or "a program"
    return f"{name}, process {pid} of {user}"


def _line(pid: int) -> str:
    """The command line of a process, as printable text."""
    try:
        raw = Path(f"/proc/{pid}/cmdline").read_bytes()[:1000]
    except OSError:
        return ""
    return "".join(filter(str.isprintable, raw.replace(b"\0", b" ").decode(errors="replace"))).strip()


def _now() -> str:
    return datetime.now(UTC).isoformat(timespec="seconds")
