"""What a command costs is counted with everything that it starts, orphans too."""

from __future__ import annotations

import json
import subprocess
import sys

import pytest

BURN = "import time\nuntil = time.process_time() + 0.3\nwhile time.process_time() < until: pass\n"
#: Starts a process that outlives it, in a session of its own.
ORPHAN = f"""
import subprocess, sys
subprocess.Popen([sys.executable, "-c", {BURN!r}], start_new_session=True,
                         stdout=subprocess.PIPE, stderr=subprocess.DEVNULL)
"""
#: The same, and waits until it is done.
CHILD = f"import subprocess, sys; subprocess.run([sys.executable, '-c', {BURN!r}])"
#: An orphan that still runs when its parent ends, and has used its time by then.
RUNNING = f"""
import subprocess, sys
child = subprocess.Popen([sys.executable, "-uc", {BURN + "print()" + chr(10) + "time.sleep(600)"!r}],
                         start_new_session=True,
                         stdout=subprocess.PIPE, stderr=subprocess.DEVNULL)
child.stdout.readline()
print(child.pid, file=sys.stderr)
"""


def _cost(*command: str) -> tuple[dict[str, float], str]:
    done = subprocess.run(
        [sys.executable, "-m", "tests.cost", "--json", *command], capture_output=True, text=True, check=False
    )
    found: dict[str, float] = json.loads(done.stdout.splitlines()[-1])
    assert done.returncode == found["exit_code"]
    return found, done.stderr


@pytest.mark.parametrize("script", [BURN, CHILD], ids=["itself", "a child"])
def test_processor_seconds_of_a_command_and_its_children_count(script: str) -> None:
    found, _ = _cost(sys.executable, "-c", script)
    assert found["processor_s"] >= 0.3
    assert found["exit_code"] == 0


def test_an_orphan_counts_if_it_ended_and_if_it_still_runs() -> None:
    """The first is adopted and waited for while the second burns."""
    found, said = _cost(sys.executable, "-c", ORPHAN + RUNNING)
    subprocess.run(["kill", "-KILL", said.strip()], check=True)
    assert found["processor_s"] >= 0.5


def test_the_exit_code_is_the_commands() -> None:
    assert _cost("sh", "-c", "exit 3")[0]["exit_code"] == 3
