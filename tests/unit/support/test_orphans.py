"""What is left running by an engine that was killed: real processes, found and ended."""

from __future__ import annotations

import os
import select
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from fleet_agent.errors import Kind, StateError
from fleet_agent.release.git_command import GitCommand
from fleet_agent.support import orphans, processes
from tests.support.patience import PATIENCE_S

#: Stands for an engine: marks what it starts, and runs one program that takes for ever.
ENGINE = """\
import sys
from pathlib import Path
from fleet_agent.support import orphans, processes
with orphans.none_beside(Path(sys.argv[1])):
    processes.run(sys.argv[2:], timeout_s=600)
"""
#: Stands for `docker compose`: does its work in a child, here even in another session; both say who they are.
#: The child holds no pipe of ours, so nothing of ours would notice that it lives.
IN_A_CHILD = """\
setsid sh -c 'echo $$ > child.new && mv child.new child && exec sleep 600' > /dev/null 2>&1 &
echo $$ > own.new && mv own.new own
exec sleep 600
"""


@pytest.fixture
def folder(tmp_path: Path) -> Iterator[Path]:
    yield tmp_path
    for name in ("own", "child"):
        if (tmp_path / name).exists() and _lives(int((tmp_path / name).read_text())):
            os.kill(int((tmp_path / name).read_text()), signal.SIGKILL)


def _started(folder: Path) -> tuple[subprocess.Popen[bytes], int, int]:
    """An engine at work, and the process ids of the two programs that it has running."""
    mark = folder / "state" / "children.lock"
    engine = subprocess.Popen(
        [sys.executable, "-c", ENGINE, mark, "sh", "-c", IN_A_CHILD], cwd=folder,
        env={**os.environ, "PYTHONPATH": str(Path(__file__).resolve().parents[3])},
    )  # fmt: skip
    deadline = time.monotonic() + PATIENCE_S
    while not all((folder / name).exists() for name in ("own", "child")):
        assert engine.poll() is None
        assert time.monotonic() < deadline
        time.sleep(0.01)
    return engine, int((folder / "own").read_text()), int((folder / "child").read_text())


def _lives(pid: int) -> bool:
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] not in ("Z", "X")
    except OSError:
        return False


def _gone(pid: int) -> bool:
    """Whether it ends, waiting as long as a slow machine may need."""
    try:
        process = os.pidfd_open(pid)
    except ProcessLookupError:
        return True
    try:
        return bool(select.select([process], [], [], PATIENCE_S)[0])
    finally:
        os.close(process)


def test_a_killed_engine_takes_its_program_with_it_and_the_next_ends_the_rest(folder: Path) -> None:
    engine, own, child = _started(folder)
    engine.kill()
    engine.wait()
    assert _gone(own)
    assert _lives(child)
    with orphans.none_beside(folder / "state" / "children.lock"):
        assert not _lives(child)


def test_an_engine_that_is_asked_to_end_leaves_nothing(folder: Path) -> None:
    engine, own, child = _started(folder)
    engine.send_signal(signal.SIGINT)
    engine.wait()
    assert not _lives(own)
    assert not _lives(child)


def test_what_was_being_started_when_we_were_stopped_is_ended_too(folder: Path) -> None:
    """The interruption came out of the start itself, so nothing holds the program that runs by now."""
    with pytest.raises(KeyboardInterrupt), orphans.none_beside(folder / "children.lock"):
        started = subprocess.Popen(["sleep", "600"], pass_fds=orphans.inherited(), start_new_session=True)
        raise KeyboardInterrupt
    assert started.wait(PATIENCE_S) == -signal.SIGKILL


def test_what_cannot_be_ended_keeps_others_from_working(folder: Path) -> None:
    """We are not ended by ourselves: the one process that stands for an unkillable one here."""
    mark = folder / "children.lock"
    with (
        orphans.none_beside(mark),
        pytest.raises(StateError) as caught,
        orphans.none_beside(mark, patience_s=0.05),
    ):
        pytest.fail("two at once")
    assert caught.value.kind is Kind.LOCKED
    with orphans.none_beside(mark):
        pass


def test_a_stranger_is_not_touched(folder: Path) -> None:
    """A file of the same name elsewhere, and our own file opened by nobody but us."""
    other = folder / "other" / "children.lock"
    other.parent.mkdir()
    with other.open("w") as held:
        stranger = subprocess.Popen(["sleep", "600"], pass_fds=[held.fileno()])
    engine, _, child = _started(folder)
    engine.kill()
    engine.wait()
    with orphans.none_beside(folder / "state" / "children.lock"):
        assert not _lives(child)
        assert stranger.poll() is None
    stranger.kill()
    stranger.wait()


def test_a_program_that_hangs_is_ended_with_what_left_its_session(folder: Path) -> None:
    with orphans.none_beside(folder / "children.lock"), pytest.raises(processes.StoppedError):
        processes.run(["sh", "-c", IN_A_CHILD], timeout_s=1, folder=folder)
    assert not _lives(int((folder / "own").read_text()))
    assert not _lives(int((folder / "child").read_text()))


def test_gits_helpers_are_marked_too(folder: Path) -> None:
    """An alias runs a shell below git, as a fetch runs ssh and index-pack."""
    subprocess.run(["git", "init", "--quiet", "--bare", folder / "git"], check=True)
    helper = f"!cd {folder} && {IN_A_CHILD.splitlines()[0]} wait"
    with orphans.none_beside(folder / "children.lock"):
        with GitCommand(folder / "git").batch("-c", f"alias.linger={helper}", "linger"):
            while not (folder / "child").exists():
                time.sleep(0.01)
            child = int((folder / "child").read_text())
            assert _lives(child)
        assert not _lives(child)
