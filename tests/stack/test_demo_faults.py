"""`fleetctl demo faults`: a device is broken and gets out, and the command would say if it did not."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

from fleet_agent.model import Outcome
from fleetctl.demo.beacon import BeaconRepo, Breakage
from fleetctl.demo.faults.device import FaultDevice
from fleetctl.demo.faults.scenarios.bad_releases import bad_release
from fleetctl.demo.faults.scenarios.base import Expected, Result, Setup
from tests.support.patience import PATIENCE_S


def _faults(*arguments: str) -> tuple[int, dict[str, Any]]:
    done = subprocess.run(
        [sys.executable, "-m", "fleetctl", "demo", "faults", "--simulated", "--json", *arguments],
        capture_output=True, text=True, timeout=2 * PATIENCE_S, check=False,
    )  # fmt: skip
    found = json.loads(done.stdout)
    assert isinstance(found, dict), done.stderr
    return done.returncode, found


def test_each_scenario_says_what_was_broken_and_how_the_device_got_out() -> None:
    code, found = _faults("--only", "crash", "--only", "variable-missing", "--only", "compose-hangs")
    assert (code, found["ok"], found["containers"]) == (0, True, "simulated")
    crash, missing, hang = found["scenarios"]
    assert (crash["outcome"], crash["phase"], crash["kind"], crash["message"], crash["problems"]) == (
        "rolled_back", "probation", "container_exited", "Web exited with code 1.", [],
    )  # fmt: skip
    assert "web: exit code 1, 0 restarts" in crash["evidence"]
    assert crash["recovered_s"] > 0
    assert (missing["outcome"], missing["phase"], missing["kind"]) == (
        "failed", "validating", "variable_missing",
    )  # fmt: skip
    assert missing["recovered_s"] is None
    # Never passed off as played.
    assert (hang["skipped"], hang["outcome"]) == ("there is no Compose to hang", "")


def test_unknown_scenario_is_refused_by_name() -> None:
    code, found = _faults("--only", "gremlins")
    assert code == 2
    assert found["error"]["kind"] == "scenario_unknown"
    assert "crash-late" in found["error"]["hint"]


def test_scenario_that_ends_otherwise_is_called_wrong(tmp_path: Path) -> None:
    """A release that is well, where a rollback is expected."""
    repo = BeaconRepo.create(tmp_path / "repo")
    device = FaultDevice(tmp_path / "d", repo, "simulated", "demo-faults-test")
    setup = Setup(device, lambda _: None, lambda: device)
    result = Result("crash", "nothing, in truth")
    bad_release(Expected(Outcome.ROLLED_BACK, "probation", ("container_exited",)))(setup, result)
    assert not result.ok
    assert result.problems[0] == "expected rolled_back while probation, got succeeded"
    again = Result("crash", "it exits at once")
    bad_release(Expected(Outcome.ROLLED_BACK, "probation", ("container_exited",)), Breakage.CRASH)(
        setup, again
    )
    assert again.problems == []
