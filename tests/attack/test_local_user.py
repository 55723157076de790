"""A user of the device without any rights."""

from __future__ import annotations

import os
import signal
import subprocess
from pathlib import Path

import pytest

from fleet_agent.control_plane.identity import Identity
from fleet_agent.engine import api
from fleet_agent.engine.dependencies import Dependencies
from fleet_agent.engine.lock import converging
from fleet_agent.errors import StateError
from fleet_agent.model import ReportState
from fleet_agent.paths import Paths
from tests.support.engine_harness import Fleet

NOBODY = 65534


@pytest.fixture
def opened(tmp_path: Path) -> Path:
    """The folders above the device's are open to all, and so is its state: an older agent made it."""
    for folder in (tmp_path, *tmp_path.parents):
        if folder != Path("/tmp") and os.access(folder, os.W_OK) and Path("/tmp") in folder.parents:
            folder.chmod(0o755)
    state = tmp_path / "device" / "state"
    state.mkdir(parents=True)
    (state / "converge.lock").touch(0o644)
    return state


def as_nobody(*command: object) -> subprocess.CompletedProcess[str]:
    """As another user: only root can become one."""
    if os.geteuid() != 0:
        pytest.skip("only root can become another user")
    return subprocess.run(
        [str(part) for part in command], user=NOBODY, group=NOBODY, extra_groups=[], text=True,
        capture_output=True, check=False, cwd="/",
    )  # fmt: skip


def test_they_cannot_hold_the_lock_nor_read_what_the_agent_keeps(
    opened: Path, fleet: Fleet, root: Path, dependencies: Dependencies
) -> None:
    """Whoever can read a file can lock it: then nothing would be updated, repaired or rolled back."""
    assert as_nobody("flock", "-n", opened / "converge.lock", "true").returncode == 0
    config = fleet.config(root)
    directive = fleet.directive(fleet.release("v1"))
    assert api.converge(config, directive, dependencies=dependencies).state is ReportState.HEALTHY
    for file in ("converge.lock", "children.lock"):
        done = as_nobody("flock", "-n", opened / file, "true")
        assert (done.returncode, "Permission denied" in done.stderr) == (66, True), done
        assert (opened / file).stat().st_mode & 0o777 == 0o600
    for folder in (opened, opened / "outbox", opened / "history"):
        assert as_nobody("ls", folder).returncode != 0
    assert opened.stat().st_mode & 0o777 == 0o700


def test_enrolling_closes_the_state_folder(opened: Path) -> None:
    Identity.load_or_create(Paths(opened.parent))
    assert opened.stat().st_mode & 0o777 == 0o700


def test_whoever_keeps_the_lock_is_named(opened: Path) -> None:
    """Also one that does not say who it is, where the file still names an agent that was killed."""
    lock = opened / "converge.lock"
    lock.write_text('{"pid": 1, "what": "updating", "program": "x", "since": "long ago"}')
    keeper = subprocess.Popen(
        ["flock", "-x", str(lock), "sh", "-c", "echo held; exec sleep 600"],
        stdout=subprocess.PIPE, start_new_session=True,
    )  # fmt: skip
    assert keeper.stdout is not None
    try:
        assert keeper.stdout.readline() == b"held\n"
        with pytest.raises(StateError) as refused, converging(lock, "updating"):
            pass
    finally:
        os.killpg(keeper.pid, signal.SIGKILL)
        keeper.communicate()
    assert refused.value.kind == "locked"
    assert f"flock, process {keeper.pid} of " in refused.value.message
    assert "long ago" not in refused.value.message
    assert refused.value.hint == "End it: only the agent may hold state/converge.lock."
