"""`fleetctl demo --once` where there is no Docker: what a first visitor runs."""

from __future__ import annotations

import json
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest

from fleetctl.stack import Stack


@pytest.fixture
def data() -> Iterator[Path]:
    # Not tmp_path: as root, Postgres runs as another user, and pytest closes its folders to others.
    folder = Path(tempfile.mkdtemp(prefix="fleet-demo-"))
    yield folder / "data"
    shutil.rmtree(folder)


def test_the_whole_story_is_seen_without_docker(data: Path) -> None:
    told = subprocess.run(
        [sys.executable, "-m", "fleetctl", "demo", "--once", "--simulated", "--no-web", "--port", "0",
         "--data", str(data)],
        capture_output=True, text=True, timeout=300, check=False,
    )  # fmt: skip
    assert told.returncode == 0, told.stdout + told.stderr
    facts = json.loads((data / "demo.json").read_text())
    assert facts["ok"]
    assert facts["containers"] == "simulated"
    assert [step["title"] for step in facts["steps"] if not step["seen"]] == []
    assert [
        (release["version"], release["outcomes"], release["devices"]) for release in facts["releases"]
    ] == [
        ("1.0.0", ["succeeded"], 6),
        ("2.0.0", ["rolled_back"], 6),
        ("3.0.0", ["succeeded"], 6),
    ]
    assert [(row["kind"], row["why"]) for row in facts["rolled_back"]] == [
        ("unhealthy", "Web is unhealthy.")
    ] * 6
    assert facts["outage_ms"] == {}, "simulated containers serve nobody"
    assert not Stack.is_running(data)
