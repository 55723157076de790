"""A disk that is full or read-only from some instant on; files damaged or gone while the engine was dead."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from tests.faults.test_crash_matrix import ROOT, SEED, SOAK


@pytest.mark.parametrize("scenario", ["update", "bad-update"])
def test_broken_disk_is_said_in_words_and_recovered_from(
    scenario: str, capsys: pytest.CaptureFixture[str]
) -> None:
    stride = 4 if SOAK else 24
    done = subprocess.run(
        [sys.executable, "-m", "tests.faults.lab", "disk", scenario, str(stride), str(SEED)],
        capture_output=True, text=True, cwd=ROOT, check=False,
        env={**os.environ, "PYTHONPATH": f"{ROOT}:{ROOT / 'scripts'}"},
    )  # fmt: skip
    assert done.returncode == 0, done.stderr[-3000:]
    _, *results = [json.loads(line) for line in done.stdout.splitlines()]
    wrong = [result for result in results if result["wrong"]]
    with capsys.disabled():
        print(f"\n  {scenario}: {len(results)} broken disks, {len(wrong)} unrecovered", end="")
    assert not wrong
    assert {result["mode"] for result in results} >= {
        "No space left on device", "Read-only file system", "corrupt journal", "vanished release folders",
        "empty image store",
    }  # fmt: skip


def test_full_disk_is_refused_before_anything_is_fetched(tmp_path: Path) -> None:
    from fleet_agent.engine import api
    from fleet_agent.engine.effects import Seams
    from tests.engine_kit import FakeClock, Fleet, rows

    fleet = Fleet(tmp_path / "repo")
    config = fleet.config(tmp_path / "device", min_free_bytes=1 << 60)
    status = api.converge(config, fleet.directive(fleet.release("v1")), seams=Seams(clock=FakeClock()))
    assert (status.error_kind, status.phase) == ("disk_full", "steady")
    assert [(row.outcome, row.failed_phase) for row in rows(config)] == [("failed", "fetching")]
    # Passing trouble: not tried again at once, and not held against the release.
    api.converge(config, fleet.directive(fleet.release("v1")), seams=Seams(clock=FakeClock()))
    assert len(rows(config)) == 1
