"""Run a program in its own session, limited in time: nothing of it outlives its limit, nor us for long.

It is killed when we are, by the kernel; what it has started itself is found by its mark (`orphans`).

A program has to ask the kernel for that itself, so a small one asks and then becomes the intended program.
`preexec_fn` could do it, too, but with it Python copies the page tables of the starting process (10 ms
in the engine) instead of lending them (vfork), and it may deadlock beside threads.
"""

from __future__ import annotations

import contextlib
import errno
import os
import shutil
import signal
import subprocess
import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any

from fleet_agent.support import death_signal, orphans

#: Bytes of output kept for evidence; the last output matters most.
OUTPUT_LIMIT = 64 * 1024


class HungError(Exception):
    """The program did not end in time and was killed with all its children."""

    def __init__(self, output: str) -> None:
        super().__init__("did not end in time")
        self.output = output


@dataclass(frozen=True)
class CompletedProcess:
    exit_code: int
    stdout: str
    stderr: str

    @property
    def killed_by(self) -> int | None:
        """The signal that ended it, also if a shell around it says so; None if it ended by itself."""
        if self.exit_code < 0:
            return -self.exit_code
        return signal.SIGKILL.value if self.exit_code == 128 + signal.SIGKILL else None

    @property
    def tail(self) -> list[str]:
        """The last lines of its output, of standard error if there are any."""
        return [line for line in (self.stderr or self.stdout).splitlines() if line.strip()][-20:]


def run(
    command: Sequence[str | Path],
    *,
    timeout_s: float,
    environment: Mapping[str, str] | None = None,
    folder: Path | None = None,
) -> CompletedProcess:
    """Run `command` to its end. Raises HungError after `timeout_s`, OSError if it cannot be started.

    Standard input is empty. Being stopped ourselves kills the whole group too.
    """
    process = subprocess.Popen(
        ending_with_us([str(part) for part in command], (environment or os.environ).get("PATH")),
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
    return CompletedProcess(process.returncode, _text(stdout), _text(stderr))


def bound_to_us() -> dict[str, Any]:
    """Options for Popen, used with `ending_with_us`: a session of its own, and the mark."""
    return {"start_new_session": True, "pass_fds": orphans.inherited()}


def ending_with_us(command: Sequence[str], path: str | None = None) -> list[str]:
    """`command` so that the kernel kills it when we die; its program is searched for on `path`.

    Raises OSError if it cannot be started. If we are killed in the millisecond before the kernel is asked,
    its mark finds it (`orphans`); a program without a mark needs `surely_ending_with_us`.
    """
    program = _startable(command[0], path)
    prefix = _setpriv()
    if prefix is None:
        return surely_ending_with_us(command, path=path)
    return [*prefix, program, *command[1:]]


def surely_ending_with_us(
    command: Sequence[str],
    by: signal.Signals = signal.SIGKILL,
    *,
    user: str | None = None,
    path: str | None = None,
) -> list[str]:
    """`command`, run as `user`, so that the kernel sends it `by` when we die, at whatever moment that is.

    Costs 15 ms more than `ending_with_us`: a Python of its own asks the kernel and checks its parent.
    """
    program = _startable(command[0], path)
    asks = [sys.executable, "-I", "-S", death_signal.__file__, str(os.getpid()), str(int(by)), user or ""]
    return [*asks, program, *command[1:]]


@cache
def _setpriv() -> tuple[str, ...] | None:
    """The command of util-linux that asks the kernel; None without it (busybox, util-linux before 2.33)."""
    program = shutil.which("setpriv") if sys.platform == "linux" else None
    if program is None:
        return None
    prefix = (program, "--pdeathsig", "KILL", "--")
    try:
        done = subprocess.run([*prefix, "true"], stdin=subprocess.DEVNULL, capture_output=True, check=False)
    except OSError:
        return None
    return prefix if done.returncode == 0 else None


def _startable(program: str, path: str | None) -> str:
    """Where `program` is. Raises OSError as starting it would: later it is not Python that starts it."""
    found = shutil.which(program, path=path)
    if found is None:
        why = errno.EACCES if "/" in program and Path(program).exists() else errno.ENOENT
        raise OSError(why, os.strerror(why), program)
    try:
        with Path(found).open("rb") as file:
            start = file.readline(256)
    except PermissionError:
        return found  # one may run it, not read it
    if start.startswith(b"#!"):
        interpreter = start[2:].split()[:1]
        if not interpreter or not Path(os.fsdecode(interpreter[0])).exists():
            raise OSError(errno.ENOENT, os.strerror(errno.ENOENT), program)
    elif sys.platform == "linux" and not start.startswith(b"\x7fELF"):
        # The C library would run it with a shell.
        raise OSError(errno.ENOEXEC, os.strerror(errno.ENOEXEC), program)
    return found


def kill(process: subprocess.Popen[bytes]) -> None:
    """Kill the session and all that is left of it, and stop listening."""
    if process.returncode is None:
        # Not waited for yet, so the process id is still its own.
        with contextlib.suppress(ProcessLookupError):
            os.killpg(process.pid, signal.SIGKILL)
    for pipe in (process.stdin, process.stdout, process.stderr):
        if pipe is not None:
            with contextlib.suppress(BrokenPipeError):
                pipe.close()
    process.wait()
    # Whatever started a session of its own.
    orphans.end_descendants()


def _text(raw: bytes) -> str:
    # Only ends are cut: `compose config` is parsed whole, so its limit is generous.
    return raw[-16 * 1024 * 1024 :].decode(errors="replace")
