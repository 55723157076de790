"""Die with the parent: the kernel sends a signal to this process when the one that started it is dead.

As a program (`python -I -S death_signal.py PARENT SIGNAL USER PROGRAM ...`) it asks the kernel, then becomes
PROGRAM. It needs nothing but the standard library, and little of that: it stands before each such start.
"""

from __future__ import annotations

import os
import signal
import sys

_PR_SET_PDEATHSIG = 1
#: As a shell ends for a program that it cannot start.
_NOT_STARTED = 127


def die_with_parent(parent: int, by: signal.Signals) -> None:
    """Have the kernel send us `by` when `parent` dies; end at once if it is dead already."""
    if sys.platform == "linux":
        import ctypes

        ctypes.CDLL(None).prctl(_PR_SET_PDEATHSIG, int(by), 0, 0, 0)
    if os.getppid() != parent:
        os._exit(128 + by)


def _become(user: str) -> None:
    import pwd

    entry = pwd.getpwnam(user)
    os.setgroups([])
    os.setgid(entry.pw_gid)
    os.setuid(entry.pw_uid)


def _environment() -> dict[bytes, bytes]:
    """As it was given to us: Python adds a variable to it if there is no locale (`LC_CTYPE`)."""
    try:
        with open("/proc/self/environ", "rb") as file:  # noqa: PTH123  # pathlib would be half of the time here
            given = file.read()
    except OSError:
        return dict(os.environb)
    return {
        name: value for name, equals, value in (line.partition(b"=") for line in given.split(b"\0")) if equals
    }


def _main() -> None:
    parent, by, user, *command = sys.argv[1:]
    # Another user may not read it any more.
    environment = _environment()
    # The kernel forgets the signal when the user changes, so the user comes first.
    if user:
        # While we may still read Python's own files: root's can lie in a folder that is closed to others.
        import ctypes  # noqa: F401

        _become(user)
    die_with_parent(int(parent), signal.Signals(int(by)))
    # Python ignores these two, and a program would inherit that.
    for ignored in (signal.SIGPIPE, signal.SIGXFSZ):
        signal.signal(ignored, signal.SIG_DFL)
    try:
        os.execve(command[0], command, environment)  # noqa: S606  # no shell, on purpose
    except OSError as error:
        sys.stderr.write(f"{command[0]}: {error.strerror}\n")
        sys.stderr.flush()
        os._exit(_NOT_STARTED)


if __name__ == "__main__":
    _main()
