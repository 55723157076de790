"""Kill the engine before and after everything it does, in every kind of move: the next start puts it right.

The count of kill points is printed after the run. `.ci/run` kills around each effect and at a sample of the
instants inside of effects, `make test` at one in three of these, `make soak` at all. Samples differ by day.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Callable
from datetime import UTC, datetime
from pathlib import Path

import pytest

from tests.support.crash_scenarios import SCENARIOS
from tests.support.profiles import SOAK, amount

ROOT = Path(__file__).resolve().parents[2]
HARNESS = "tests.support.crash_harness"
SEED = int(os.environ.get("FLEET_SEED") or datetime.now(UTC).strftime("%Y%m%d"))

#: One in so many points, others each day.
SHARE = amount(6, full=1)


@pytest.mark.parametrize("scenario", SCENARIOS)
def test_every_kill_is_recovered_from(
    scenario: str, counted: Callable[[str], None], record_property: Callable[[str, object], None]
) -> None:
    """Exactly one healthy release (or safe mode) at the end, links and journal agreeing, one row."""
    modes, stride, pairs = ("kill,lose,tear", 1, 100) if SOAK else ("tear", 16, amount(1, full=3))
    done = subprocess.run(
        [sys.executable, "-m", HARNESS, scenario, modes, str(stride), str(SEED), str(pairs), str(SHARE)],
        capture_output=True, text=True, cwd=ROOT, check=False,
        env={**os.environ, "PYTHONPATH": f"{ROOT}:{ROOT / 'scripts'}"},
    )  # fmt: skip
    assert done.returncode == 0, done.stderr[-3000:]
    first, *results = [json.loads(line) for line in done.stdout.splitlines()]
    unrecovered = [result for result in results if result["wrong"]]
    record_property("kills", len(results))
    counted(
        f"crash matrix, {scenario}: {len(results)} kills at {len({r['point'] for r in results})} of "
        f"{first['points']} points ({modes}, seed {SEED}), {len(unrecovered)} unrecovered"
    )
    assert not unrecovered
    assert first["distinct"] >= 7, "the matrix has hardly any points: is the recording broken?"
    assert len(results) >= first["distinct"] // SHARE
