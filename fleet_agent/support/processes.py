"""Run a program in its own session, with bounds: nothing of it outlives its limits, nor us for long.

Bounds are time, memory (with all that it started), and what it prints: output is read as it comes, and only
its tail is kept. It is killed when we are, by the kernel; what it has started itself is found by its mark
(`orphans`), or is adopted by a keeper (`leaving_nothing`).

A program has to ask the kernel for that itself, so a small one asks and then becomes the intended program.
`preexec_fn` could do it, too, but with it Python copies the page tables of the starting process (10 ms
in the engine) instead of lending them (vfork), and it may deadlock beside threads.
"""

from __future__ import annotations

import contextlib
import errno
import os
import re
import selectors
import shutil
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any, Literal

from fleet_agent.support import death_signal, keeper, orphans
from fleet_agent.support.sizes import MIB

#: Bytes of output kept for evidence; the last output matters most.
OUTPUT_LIMIT = 64 * 1024
#: Bytes kept of each stream unless it is said otherwise: Compose's answers are parsed whole.
KEPT_LIMIT = 16 * MIB
#: How often memory is looked at, and how long a keeper may take to end what it keeps.
_LOOK_S, _KEEPER_S = 0.1, 5.0
_CHUNK_BYTES = 64 * 1024


#: What programs print if a disk is full.
NO_SPACE = re.compile(r"no space left on device|disk quota exceeded", re.I)

Bound = Literal["time", "memory", "output"]


class StoppedError(Exception):
    """The program exceeded a bound and was killed with all that it had started.

    `why` is a phrase that follows "Compose " or "The role's validate ".
    """

    def __init__(self, bound: Bound, why: str, output: str) -> None:
        super().__init__(why)
        self.bound = bound
        self.why = why
        self.output = output


@dataclass(frozen=True)
class Bounds:
    """What a program may use: seconds, and bytes of memory and of output (None: as it likes)."""

    time_s: float
    memory: int | None = None
    output: int | None = None
    #: Of each stream, the last bytes.
    kept: int = KEPT_LIMIT


@dataclass(frozen=True)
class CompletedProcess:
    exit_code: int
    stdout: str
    stderr: str

    @property
    def killed_by(self) -> int | None:
        """The signal that ended it, also if a shell around it says so; None if it ended by itself."""
        return signal_of(self.exit_code)

    @property
    def tail(self) -> list[str]:
        """The last lines of its output, of standard error if there are any."""
        return [line for line in (self.stderr or self.stdout).splitlines() if line.strip()][-20:]


def signal_of(exit_code: int) -> int | None:
    """The signal behind an exit code; of those that a shell in between reports, SIGKILL only.

    A program that ended by a signal found nothing out. `crashed` and `killed` say what the signal means.
    """
    if exit_code < 0:
        return -exit_code
    return signal.SIGKILL.value if exit_code == 128 + signal.SIGKILL else None


#: So a program ends over what it was given; who kills it, or has no memory for it, sends others.
_CRASHES = frozenset({signal.SIGSEGV, signal.SIGBUS, signal.SIGABRT, signal.SIGILL, signal.SIGFPE})


def crashed(by: int | None) -> bool:
    """Whether it is the program's own fault that this signal ended it."""
    return by in _CRASHES


def killed(program: str, by: int | None) -> str | None:
    """A phrase about the signal that ended `program`; None if it ended by itself."""
    if by is None:
        return None
    perhaps = ", perhaps for lack of memory" if by == signal.SIGKILL else ""
    return f"{program} was killed (signal {by}){perhaps}"


def run(
    command: Sequence[str | Path],
    *,
    timeout_s: float = 0,
    bounds: Bounds | None = None,
    environment: Mapping[str, str] | None = None,
    folder: Path | None = None,
    stdin: bytes = b"",
    leave_nothing: bool = False,
) -> CompletedProcess:
    """Run `command` to its end, within `bounds` or for `timeout_s`.

    Raises StoppedError at a bound, OSError if it cannot be started. Being stopped ourselves kills the whole
    group too. With `leave_nothing` also what it has detached from itself ends with it.
    """
    bounds = bounds or Bounds(timeout_s)
    path = (environment or os.environ).get("PATH")
    words = [str(part) for part in command]
    process = subprocess.Popen(
        leaving_nothing(words, path) if leave_nothing else ending_with_us(words, path),
        stdin=subprocess.PIPE if stdin else subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        cwd=folder,
        env=None if environment is None else dict(environment),
        **bound_to_us(),
    )
    output = Output(bounds.kept)
    try:
        _limit_memory(process.pid, bounds)
        exceeded = follow(process, output, bounds, stdin)
    except BaseException:
        kill(process, kept=leave_nothing)
        raise
    if exceeded is None:
        return CompletedProcess(process.returncode, output.text("stdout"), output.text("stderr"))
    kill(process, kept=leave_nothing)
    said = output.text("stderr") or output.text("stdout")
    raise StoppedError(exceeded, _why(exceeded, bounds), said)


def _why(exceeded: Bound, bounds: Bounds) -> str:
    match exceeded:
        case "time":
            return f"did not finish within {bounds.time_s:g} s"
        case "memory":
            return f"used more than {(bounds.memory or 0) // MIB} MiB of memory"
        case "output":
            return f"did not stop printing: more than {(bounds.output or 0) // MIB} MiB"


class Output:
    """The tails of both streams, and how much came in all."""

    def __init__(self, kept: int) -> None:
        self.total = 0
        self._kept = kept
        self._cut: set[str] = set()
        self._tails = {"stdout": bytearray(), "stderr": bytearray()}

    def add(self, stream: str, chunk: bytes) -> None:
        self.total += len(chunk)
        tail = self._tails[stream]
        tail += chunk
        # Cut now and then: each cut moves all that is kept.
        if len(tail) > 2 * self._kept + _CHUNK_BYTES:
            del tail[: -self._kept]
            self._cut.add(stream)

    def whole(self, stream: str) -> bytes:
        """All of it, if it was not more than what is kept."""
        return bytes(self._tails[stream])

    def text(self, stream: str) -> str:
        tail = self._tails[stream]
        if stream not in self._cut and len(tail) <= self._kept:
            return tail.decode(errors="replace")
        # Half a line may be half a secret, which nobody would recognize.
        kept = bytes(tail[-self._kept :])
        return (kept.partition(b"\n")[2] or kept[self._kept // 4 :]).decode(errors="replace")


def follow(process: subprocess.Popen[bytes], output: Output, bounds: Bounds, stdin: bytes) -> Bound | None:
    """Read what it prints until it ends; the bound that it exceeded, if any: then it still runs."""
    deadline = time.monotonic() + bounds.time_s
    if stdin:
        threading.Thread(target=_feed, args=(process, stdin), daemon=True).start()
    elif process.stdin is not None:
        process.stdin.close()
    with selectors.DefaultSelector() as streams:
        for name in ("stdout", "stderr"):
            streams.register(getattr(process, name), selectors.EVENT_READ, name)
        look = time.monotonic() + _LOOK_S
        while streams.get_map() or process.poll() is None:
            left = deadline - time.monotonic()
            if left <= 0:
                return "time"
            _read(process, streams, output, left if bounds.memory is None else min(left, _LOOK_S))
            if bounds.output is not None and output.total > bounds.output:
                return "output"
            if bounds.memory is not None and time.monotonic() >= look:
                if _resident(process.pid) > bounds.memory:
                    return "memory"
                look = time.monotonic() + _LOOK_S
    for pipe in (process.stdout, process.stderr):
        assert pipe is not None  # noqa: S101  both are asked for
        pipe.close()
    refused = bounds.memory is not None and process.returncode != 0
    return "memory" if refused and _OUT_OF_MEMORY.search(output.text("stderr")) else None


def _read(
    process: subprocess.Popen[bytes], streams: selectors.BaseSelector, output: Output, patience_s: float
) -> None:
    """What has been printed, or that it has ended, within `patience_s`."""
    if not streams.get_map():
        with contextlib.suppress(subprocess.TimeoutExpired):
            process.wait(patience_s)
        return
    for key, _ in streams.select(patience_s):
        chunk = os.read(key.fd, _CHUNK_BYTES)
        if chunk:
            output.add(key.data, chunk)
        else:
            streams.unregister(key.fileobj)


#: What programs print if the kernel refuses them memory: Go's runtime, Python, the C library.
_OUT_OF_MEMORY = re.compile(r"out of memory|cannot allocate memory|MemoryError", re.I)


def _feed(process: subprocess.Popen[bytes], stdin: bytes) -> None:
    assert process.stdin is not None  # noqa: S101  asked for, as there is something to say
    with contextlib.suppress(OSError, ValueError), process.stdin as pipe:
        pipe.write(stdin)


def _limit_memory(pid: int, bounds: Bounds) -> None:
    """A wall for what grows faster than we look. Programs in Go reserve more than they use."""
    if bounds.memory is None or sys.platform != "linux":
        return
    import resource

    wall = 2 * bounds.memory + 256 * MIB
    with contextlib.suppress(ProcessLookupError, PermissionError):
        _, hard = resource.prlimit(pid, resource.RLIMIT_DATA)
        if hard == resource.RLIM_INFINITY or hard > wall:
            resource.prlimit(pid, resource.RLIMIT_DATA, (wall, wall))


def _resident(pid: int) -> int:
    """Bytes of memory that a process and all below it use."""
    pages = 0
    for one in keeper.descendants(pid):
        with contextlib.suppress(OSError, ValueError, IndexError), open(f"/proc/{one}/statm", "rb") as file:  # noqa: PTH123
            resident, shared = file.read().split()[1:3]
            # What they share is counted once, and nearly all of it is programs.
            pages += int(resident) - int(shared)
    return pages * os.sysconf("SC_PAGE_SIZE")


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


def leaving_nothing(command: Sequence[str], path: str | None = None) -> list[str]:
    """`command` under a keeper: whatever it started has ended when it has. Costs 25 ms more."""
    program = _startable(command[0], path)
    keeps = [sys.executable, "-I", "-S", keeper.__file__, str(os.getpid())]
    return [*keeps, program, *command[1:]]


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


def kill(process: subprocess.Popen[bytes], *, kept: bool = False) -> None:
    """Kill the session and all that is left of it, and stop listening. `kept`: it is a keeper's."""
    if kept and process.poll() is None:
        process.terminate()
        with contextlib.suppress(subprocess.TimeoutExpired):
            process.wait(_KEEPER_S)
    if process.returncode is None:
        # Not waited for yet, so the process id is still its own.
        with contextlib.suppress(ProcessLookupError):
            os.killpg(process.pid, signal.SIGKILL)
    close(process)
    process.wait()
    # Whatever started a session of its own.
    orphans.end_descendants()


def close(process: subprocess.Popen[bytes]) -> None:
    """Stop talking and listening to it."""
    for pipe in (process.stdin, process.stdout, process.stderr):
        if pipe is not None:
            with contextlib.suppress(OSError, ValueError):
                pipe.close()
