"""What a killed engine leaves running: found by a file it has open, and ended before the next one starts.

Every program that the engine starts inherits an open descriptor of `state/children.lock`, and so does what
that starts in turn, in whichever session. The engine holds the file's flock, and an inherited descriptor
shares it: if the lock cannot be taken, something of an earlier engine is alive, and `/proc` shows what. So
nothing has to be written down about a child, and nothing that was can be lost, be out of date, or point at a
stranger that was given the same process id.
"""

from __future__ import annotations

import contextlib
import fcntl
import os
import select
import signal
import time
from collections.abc import Iterator
from contextvars import ContextVar
from pathlib import Path

from loguru import logger

from fleet_agent.errors import locked
from fleet_agent.support.atomic_files import open_lock
from fleet_agent.support.open_files import has_open

#: How long to wait until what was killed is gone. It takes longer only if stuck in the kernel (a dead disk).
PATIENCE_S = 10.0

_marked: ContextVar[int | None] = ContextVar("children_mark", default=None)


@contextlib.contextmanager
def none_beside(mark: Path, *, patience_s: float = PATIENCE_S) -> Iterator[None]:
    """End what earlier engines left running, then mark what is started inside the block.

    Only for the holder of the converge lock. Raises StateError (`locked`) if something cannot be ended: it
    may still change containers or the repository, so nothing else should.
    """
    handle = _alone(mark, patience_s)
    token = _marked.set(handle)
    try:
        yield
    except BaseException:
        # Stopped while a program was being started, nobody else knows of it.
        end_descendants()
        raise
    finally:
        _marked.reset(token)
        os.close(handle)


def inherited() -> tuple[int, ...]:
    """The descriptors that a program started now must inherit (`pass_fds`)."""
    handle = _marked.get()
    return () if handle is None else (handle,)


def end_descendants() -> None:
    """End every marked program but ourselves: of one that hung or ended, nothing stays behind."""
    handle = _marked.get()
    if handle is not None:
        # What we started is younger than we are. That spares a look at all open files of the machine.
        _end(os.fstat(handle), PATIENCE_S, since=_started(os.getpid()))


def _alone(mark: Path, patience_s: float) -> int:
    """A descriptor of `mark` with the lock on it, once nobody else has it open."""
    handle = open_lock(mark)
    try:
        _take(handle, time.monotonic() + patience_s)
    except BaseException:
        os.close(handle)
        raise
    return handle


def _take(handle: int, deadline: float) -> None:
    while not _taken(handle):
        patience_s = deadline - time.monotonic()
        if patience_s <= 0:
            raise locked(
                "one that is left over from an earlier update and cannot be killed",
                hint="If this persists, restart the device.",
            )
        if names := _end(os.fstat(handle), patience_s):
            logger.warning("killed what an earlier update left running: {names}", names=names)
        else:
            # It has just ended, or belongs to a user whose processes we may not see.
            time.sleep(0.02)


def _taken(handle: int) -> bool:
    try:
        fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    return True


def _end(mark: os.stat_result, patience_s: float, *, since: int = 0) -> str:
    """Kill every process but ours that has `mark` open, wait until they are gone, return which they were.

    Only those are looked at that were started at `since` (see `_started`) or later.
    """
    with contextlib.ExitStack() as stack:
        killed: dict[int, str] = {}
        for pid in _processes():
            if since and _started(pid) < since:
                continue
            with contextlib.suppress(ProcessLookupError):
                # Held by a descriptor before the look: a moment later the id may belong to a stranger.
                process = os.pidfd_open(pid)
                stack.callback(os.close, process)
                killed |= _killed(process, pid, mark)
        _wait_until_gone(set(killed), patience_s)
    return ", ".join(killed.values())


def _killed(process: int, pid: int, mark: os.stat_result) -> dict[int, str]:
    """Kill it if it has `mark` open, and return its name by its descriptor."""
    if not has_open(pid, "children.lock", mark):
        return {}
    name = _name(pid)
    signal.pidfd_send_signal(process, signal.SIGKILL)
    return {process: f"{name} ({pid})"}


def _wait_until_gone(processes: set[int], patience_s: float) -> None:
    """Wait for the ends of these, given by their descriptors, for `patience_s` at most."""
    gone, deadline = select.poll(), time.monotonic() + patience_s
    for process in processes:
        gone.register(process, select.POLLIN)
    while processes and (left_s := deadline - time.monotonic()) > 0:
        for process, _ in gone.poll(left_s * 1000):
            gone.unregister(process)
            processes.discard(process)


def _processes() -> list[int]:
    """Every process but ours."""
    names = os.listdir("/proc")  # noqa: PTH208  names only
    return [int(name) for name in names if name.isdigit() and int(name) != os.getpid()]


def _started(pid: int) -> int:
    """When a process was started, in ticks since the boot; 0 if it ended or does not tell."""
    try:
        with open(f"/proc/{pid}/stat", "rb") as file:  # noqa: PTH123  one of hundreds
            return int(file.read().rpartition(b")")[2].split()[19])
    except (OSError, ValueError, IndexError):
        return 0


def _name(pid: int) -> str:
    try:
        return Path(f"/proc/{pid}/comm").read_text().strip()
    except OSError:
        return "a program"
