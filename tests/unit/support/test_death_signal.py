"""The small program between us and each child that must not outlive us."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

from fleet_agent.support import death_signal

# As with root's Python under /root, which is closed to others: a new user can import nothing.
_CLOSED = """
import runpy, sys
import pwd, os
def setuid(_): sys.meta_path.clear()
os.setuid, os.setgid, os.setgroups = setuid, lambda _: None, lambda _: None
name = pwd.getpwuid(os.getuid()).pw_name
sys.argv = ["death_signal.py", str(os.getppid()), "15", name, "/bin/echo", "started"]
runpy.run_path(PROGRAM, run_name="__main__")
"""


def test_another_user_needs_none_of_pythons_own_files() -> None:
    program = str(Path(death_signal.__file__))
    code = _CLOSED.replace("PROGRAM", repr(program))
    done = subprocess.run(
        [sys.executable, "-I", "-S", "-c", code], capture_output=True, text=True, check=False
    )
    assert (done.stdout, done.stderr) == ("started\n", "")
