"""Run a program in its own session, limited in time: nothing of it outlives its limit, nor us for long.

It is killed when we are, by the kernel; what it has started itself is found by its mark (`leftovers`).
"""

from __future__ import annotations

import contextlib
import ctypes
import os
import signal
import subprocess
import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from fleet_agent.support import orphans as leftovers

_PR_SET_PDEATHSIG = 1
_libc = ctypes.CDLL(None) if sys.platform == "linux" else None
#: Bytes of output kept for evidence; what a program says last matters most.
OUTPUT_LIMIT = 64 * 1024


class HungError(Exception):
    """The program did not end in time and was killed with all its children."""

    def __init__(self, output: str) -> None:
        super().__init__("did not end in time")
        self.output = output


@dataclass(frozen=True)
class Ended:
    exit_code: int
    stdout: str
    stderr: str

    @property
    def last_words(self) -> list[str]:
        """The last lines it said, standard error first choice."""
        return [line for line in (self.stderr or self.stdout).splitlines() if line.strip()][-20:]


def run(
    command: Sequence[str | Path],
    *,
    timeout_s: float,
    environment: Mapping[str, str] | None = None,
    folder: Path | None = None,
) -> Ended:
    """Run `command` to its end. Raises HungError after `timeout_s`, OSError where it cannot be started.

    Standard input is empty. Being stopped ourselves kills the whole group too.
    """
    process = subprocess.Popen(
        [str(part) for part in command],
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        cwd=folder,
        env=None if environment is None else dict(environment),
        **bound_to_us(),
    )
    try:
        stdout, stderr = process.communicate(timeout=timeout_s)
    except subprocess.TimeoutExpired as error:
        kill(process)
        said = (error.stderr or error.stdout or b"")[-OUTPUT_LIMIT:]
        raise HungError(said.decode(errors="replace")) from error
    except BaseException:
        kill(process)
        raise
    return Ended(process.returncode, _text(stdout), _text(stderr))


def bound_to_us() -> dict[str, Any]:
    """Options for Popen: a session of its own, the mark, and death with us."""
    us = os.getpid()

    def die_with_us() -> None:
        die_with_parent(us, signal.SIGKILL)

    # The engine has one thread; between fork and exec this only calls the kernel.
    return {"start_new_session": True, "pass_fds": leftovers.inherited(), "preexec_fn": die_with_us}


def die_with_parent(parent: int, by: signal.Signals) -> None:
    """Have the kernel send us `by` when `parent` dies; end at once where it is dead already."""
    if _libc is not None:
        _libc.prctl(_PR_SET_PDEATHSIG, by, 0, 0, 0)
    if os.getppid() != parent:
        os._exit(128 + by)


def kill(process: subprocess.Popen[bytes]) -> None:
    """Kill the session and all that is left of it, and stop listening."""
    if process.returncode is None:
        # Not waited for yet, so the number is still its own.
        with contextlib.suppress(ProcessLookupError):
            os.killpg(process.pid, signal.SIGKILL)
    for pipe in (process.stdin, process.stdout, process.stderr):
        if pipe is not None:
            with contextlib.suppress(BrokenPipeError):
                pipe.close()
    process.wait()
    # Whatever took itself a session of its own.
    leftovers.end_descendants()


def _text(raw: bytes) -> str:
    # Only ends are cut: `compose config` is parsed whole, so its limit is generous.
    return raw[-16 * 1024 * 1024 :].decode(errors="replace")
