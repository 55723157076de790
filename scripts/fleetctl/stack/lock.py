"""Who owns a data folder: a file lock, held by the supervisor for as long as its stack runs."""

from __future__ import annotations

import contextlib
import fcntl
import json
import os
import time
from collections.abc import Iterator
from dataclasses import asdict
from typing import IO, TYPE_CHECKING

from fleetctl.errors import FleetctlError
from fleetctl.stack.layout import DataFolder

if TYPE_CHECKING:
    from fleetctl.stack.process import Identity

#: `is_locked` in another process holds it for an instant; a stack holds it for good.
_TRIES, _BETWEEN_TRIES_S = 10, 0.03


@contextlib.contextmanager
def hold_lock(folder: DataFolder) -> Iterator[None]:
    """Own the data folder; raises FleetctlError `already_running` when another process does."""
    with folder.lock.open("a+") as file:
        if not _take(file):
            owner = read_owner(folder)
            raise FleetctlError(
                "already_running",
                f"A stack is already running or starting in {folder.root}"
                f"{f' (process {owner.pid})' if owner else ''}.",
                hint="Stop it with fleetctl down, or use another folder: fleetctl up --data DIR",
            )
        from fleetctl.stack.process import Identity

        me = Identity.of(os.getpid())
        file.truncate(0)
        file.write(json.dumps(asdict(me) if me else None))
        file.flush()
        try:
            yield
        finally:
            file.truncate(0)


def is_locked(folder: DataFolder) -> bool:
    """Whether a supervisor owns the folder now."""
    try:
        with folder.lock.open("r") as file:
            fcntl.flock(file, fcntl.LOCK_SH | fcntl.LOCK_NB)
    except BlockingIOError:
        return True
    except FileNotFoundError:
        return False
    return False


def read_owner(folder: DataFolder) -> Identity | None:
    """Who took the folder's lock last. Only while `is_locked` does it say who has it."""
    # Loads a library that a look at the lock does not need.
    from fleetctl.stack.process import Identity

    try:
        return Identity.parse(json.loads(folder.lock.read_text()))
    except (OSError, ValueError):
        return None


def _take(file: IO[str]) -> bool:
    for attempt in range(_TRIES):
        if attempt > 0:
            time.sleep(_BETWEEN_TRIES_S)
        with contextlib.suppress(BlockingIOError):
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
            return True
    return False
