"""`make demo ONCE=1`, the main job: each line of its story is seen, with real containers where Docker is."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Iterator
from typing import Any

import pytest

from fleetctl.stack.layout import DEMO_MARKER
from tests.conftest import missing, required
from tests.support.patience import PATIENCE_S
from tests.support.stack import stack_folder

DEVICES = 6


@pytest.fixture(scope="module", params=["as it comes", pytest.param("simulated", marks=pytest.mark.full)])
def facts(request: pytest.FixtureRequest) -> Iterator[dict[str, Any]]:
    """What one run of the demo wrote down: as on this machine, and as where there is no Docker."""
    if request.param == "simulated" and missing("docker"):
        pytest.skip("the first run was simulated: there is no Docker here")
    extra = ["--simulated"] if request.param == "simulated" else []
    with stack_folder() as folder:
        done = subprocess.run(
            [
                sys.executable, "-m", "fleetctl", "demo", "--once", "--data", str(folder / "data"),
                "--port", "0", "--no-web", *extra,
            ],
            capture_output=True, text=True, timeout=4 * PATIENCE_S, check=False,
            env={**os.environ, "COLUMNS": "150"},
        )  # fmt: skip
        assert done.returncode == 0, f"{done.stdout}\n{done.stderr}"
        found = json.loads((folder / "data" / "demo.json").read_text())
        assert isinstance(found, dict)
        yield {**found, "simulated_on_purpose": request.param == "simulated"}


def test_every_step_was_seen(facts: dict[str, Any]) -> None:
    assert facts["ok"] is True
    assert [step["title"] for step in facts["steps"] if not step["seen"]] == []
    assert len(facts["steps"]) >= 10


def test_real_containers_are_used_where_docker_is(facts: dict[str, Any]) -> None:
    if facts["simulated_on_purpose"]:
        assert facts["containers"] == "simulated"
        return
    assert facts["containers"] == ("simulated" if missing("docker") else "docker")
    assert not ("docker" in required() and facts["containers"] == "simulated")


def test_the_broken_release_is_rolled_back_by_every_device_with_its_reason(facts: dict[str, Any]) -> None:
    outcomes = {release["version"]: release["outcomes"] for release in facts["releases"]}
    assert outcomes == {"1.0.0": ["succeeded"], "2.0.0": ["rolled_back"], "3.0.0": ["succeeded"]}
    assert len(facts["rolled_back"]) == DEVICES
    assert {row["kind"] for row in facts["rolled_back"]} == {"unhealthy"}
    assert all("unhealthy" in row["why"] for row in facts["rolled_back"])


def test_a_staged_rollout_of_a_bad_release_hurts_the_canary_alone(facts: dict[str, Any]) -> None:
    assert facts["halted"]["hurt"] == ["beacon-1"]
    assert facts["halted"]["spared"] == DEVICES - 1
    assert facts["halted"]["reason"] == "1 of 1 attempted device failed; the limit is 0."
    assert "4.0.0 is being rolled out" in facts["halted"]["explained"]


def test_the_unchanged_service_loses_nothing(facts: dict[str, Any]) -> None:
    if facts["containers"] == "simulated":
        assert facts["outage_ms"] == {}, "simulated containers serve nothing that could be measured"
        return
    assert {version: ms["clock"] for version, ms in facts["outage_ms"].items()} == {"2.0.0": 0, "3.0.0": 0}


def test_devices_were_woken_rather_than_polling(facts: dict[str, Any]) -> None:
    """The poll comes every 15 minutes; each release was heard of in its step."""
    assert set(facts["wake_latency_ms"]) == {"1.0.0", "2.0.0", "3.0.0"}


def test_the_demo_leaves_a_folder_alone_that_somebody_started_a_stack_in() -> None:
    """`make demo`, then `make up`: what is built there from then on is a real fleet."""
    with stack_folder() as data:
        (data / DEMO_MARKER).write_text("Made by the demo.")
        assert _fleetctl("up", "--data", str(data), "--port", "0", "--no-web", "--detach").returncode == 0
        assert _fleetctl("down", "--data", str(data)).returncode == 0
        keys = (data / "keys.json").read_text()
        demo = _fleetctl("demo", "--once", "--data", str(data), "--port", "0")
        assert demo.returncode == 1
        assert "data_in_use" in demo.stderr
        assert (data / "keys.json").read_text() == keys


def _fleetctl(*arguments: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-m", "fleetctl", *arguments],
        capture_output=True,
        text=True,
        timeout=2 * PATIENCE_S,
        check=False,
    )
