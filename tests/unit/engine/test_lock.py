from __future__ import annotations

import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from fleet_agent.engine.lock import converging, holder
from fleet_agent.errors import StateError
from fleet_agent.support import orphans
from tests.support.patience import PATIENCE_S


def test_second_holder_is_refused_and_told_who_the_first_is(tmp_path: Path) -> None:
    lock = tmp_path / "state" / "converge.lock"
    with converging(lock, "updating"):
        assert holder(lock) is not None
        with pytest.raises(StateError) as refusal, converging(lock, "restarting"):
            pass
    assert refusal.value.kind == "locked"
    assert f"updating by process {os.getpid()} since " in refusal.value.message
    assert holder(lock) is None


def test_killed_holder_leaves_no_lock(tmp_path: Path) -> None:
    lock = tmp_path / "converge.lock"
    program = (
        "import sys, pathlib, time\n"
        "from fleet_agent.engine.lock import converging\n"
        f"with converging(pathlib.Path({str(lock)!r}), 'dying'):\n"
        "    print('held', flush=True)\n"
        "    time.sleep(60)\n"
    )
    child = subprocess.Popen([sys.executable, "-c", program], stdout=subprocess.PIPE)
    assert child.stdout is not None
    assert child.stdout.readline() == b"held\n"
    assert holder(lock) is not None
    child.send_signal(signal.SIGKILL)
    child.wait()
    child.stdout.close()
    with converging(lock, "next"):
        pass


def test_released_after_an_error(tmp_path: Path) -> None:
    lock = tmp_path / "converge.lock"
    with pytest.raises(ValueError, match="inside"), converging(lock, "failing"):
        raise ValueError("inside")
    with converging(lock, "next"):
        pass


def test_program_that_outlives_its_holder_does_not_hold_the_lock(tmp_path: Path) -> None:
    """What it started may be left running; `orphans` ends that, and needs this lock to do so."""
    lock, mark = tmp_path / "converge.lock", tmp_path / "children.lock"
    with converging(lock, "dying"), orphans.none_beside(mark):
        left = subprocess.Popen(["sleep", "600"], pass_fds=orphans.inherited())
    assert holder(lock) is None
    with converging(lock, "next"), orphans.none_beside(mark):
        assert left.wait(timeout=PATIENCE_S) == -signal.SIGKILL
