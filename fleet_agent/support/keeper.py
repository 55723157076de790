"""Run a program and leave nothing of it behind, whatever it has put into the background.

As a program (`python -I -S keeper.py PARENT PROGRAM ...`) it adopts every descendant that its parent leaves
(a subreaper), also one that has a session of its own and has closed all files, so that no mark is on it. When
PROGRAM ends, or when PARENT dies, or at SIGTERM, all that is left is killed. Needs the standard library only.
"""

from __future__ import annotations

import os
import signal
import sys

_PR_SET_CHILD_SUBREAPER = 36
#: As a shell ends for a program that it cannot start.
_NOT_STARTED = 127


def parents() -> dict[int, int]:
    """The parent of each process of this machine, by process id."""
    found = {}
    for name in os.listdir("/proc"):  # noqa: PTH208  names only
        if name.isdigit():
            try:
                with open(f"/proc/{name}/stat", "rb") as file:  # noqa: PTH123  one of hundreds
                    found[int(name)] = int(file.read().rpartition(b")")[2].split()[1])
            except (OSError, ValueError, IndexError):
                continue
    return found


def descendants(pid: int) -> list[int]:
    """`pid` and every process below it."""
    children: dict[int, list[int]] = {}
    for child, parent in parents().items():
        children.setdefault(parent, []).append(child)
    found, seen = [pid], {pid}
    for one in found:
        new = [child for child in children.get(one, []) if child not in seen]
        seen.update(new)
        found += new
    return found


def _end_the_rest() -> None:
    """Kill children until there are none: what a killed one leaves becomes ours."""
    own = os.getpid()
    while True:
        for child, parent in parents().items():
            if parent == own:
                try:
                    os.kill(child, signal.SIGKILL)
                except ProcessLookupError:
                    continue
        try:
            os.waitpid(-1, 0)
        except ChildProcessError:
            return


def _stopped(number: int, _frame: object) -> None:
    signal.signal(number, signal.SIG_IGN)
    _end_the_rest()
    os._exit(128 + number)


def _main() -> None:
    import ctypes

    parent, *command = sys.argv[1:]
    libc = ctypes.CDLL(None)
    libc.prctl(_PR_SET_CHILD_SUBREAPER, 1, 0, 0, 0)
    signal.signal(signal.SIGTERM, _stopped)
    libc.prctl(1, int(signal.SIGTERM), 0, 0, 0)  # PR_SET_PDEATHSIG
    if os.getppid() != int(parent):
        os._exit(128 + signal.SIGTERM)
    defaults = (signal.SIGPIPE, signal.SIGXFSZ, signal.SIGTERM)
    try:
        program = os.posix_spawn(command[0], command, os.environb, setsigdef=defaults)
    except OSError as error:
        sys.stderr.write(f"{command[0]}: {error.strerror}\n")
        sys.stderr.flush()
        os._exit(_NOT_STARTED)
    status = 0
    while True:
        ended, how = os.wait()
        if ended == program:
            status = os.waitstatus_to_exitcode(how)
            break
    _end_the_rest()
    os._exit(status if status >= 0 else 128 - status)


if __name__ == "__main__":
    _main()
