"""Run a program in its own process group, limited in time: nothing of it outlives its limit."""

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
        start_new_session=True,
        preexec_fn=_die_with_us,  # noqa: PLW1509  the engine has one thread
    )
    try:
        stdout, stderr = process.communicate(timeout=timeout_s)
    except subprocess.TimeoutExpired as error:
        _kill(process)
        said = (error.stderr or error.stdout or b"")[-OUTPUT_LIMIT:]
        raise HungError(said.decode(errors="replace")) from error
    except BaseException:
        _kill(process)
        raise
    return Ended(process.returncode, _text(stdout), _text(stderr))


def _die_with_us() -> None:
    """In the child: be killed when we are, or a Compose left behind would race with the next start's.

    The engine has one thread; this runs between fork and exec and only calls the kernel.
    """
    if _libc is not None:
        _libc.prctl(_PR_SET_PDEATHSIG, signal.SIGKILL, 0, 0, 0)


def _kill(process: subprocess.Popen[bytes]) -> None:
    """Kill the group and stop listening: a grandchild that escaped must not keep us by holding the pipe."""
    with contextlib.suppress(ProcessLookupError):
        os.killpg(process.pid, signal.SIGKILL)
    for pipe in (process.stdout, process.stderr):
        if pipe is not None:
            pipe.close()
    process.wait()


def _text(raw: bytes) -> str:
    # Only ends are cut: `compose config` is parsed whole, so its limit is generous.
    return raw[-16 * 1024 * 1024 :].decode(errors="replace")
