"""Real processes and SIGKILL at random instants: the engine is killed mid-work again and again."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from random import Random

import pytest

from fleet_agent.containers.compose import ComposeRuntime
from fleet_agent.containers.factory import make
from fleet_agent.engine import api, links
from fleet_agent.engine.config import EngineConfig
from fleet_agent.engine.phases import RESTING
from fleet_agent.model import Directive, EngineStatus
from tests.faults.test_crash_matrix import ROOT, SEED
from tests.support.engine_harness import Fleet, rows
from tests.support.own_project import own
from tests.support.profiles import amount

ROLE = """\
description: Two services that are killed a lot.
variables: {GREETING: {default: hello, description: What the page says.}}
health: {grace_s: 0.2, successes: 2, interval_s: 0.1, watch_s: 0.2, deadline_s: 10, failure_budget: 1}
"""


def _rounds(runtime: str) -> int:
    return amount(4, full=50, soak=500) if runtime == "docker" else amount(5, full=12, soak=500)


@pytest.mark.parametrize("runtime", ["simulated", pytest.param("docker", marks=pytest.mark.docker)])
def test_sigkill_at_any_instant(runtime: str, tmp_path: Path, counted: Callable[[str], None]) -> None:
    random, rounds = Random(SEED), _rounds(runtime)
    fleet = Fleet(tmp_path / "repo")
    config = fleet.config(tmp_path / "device", runtime=runtime, project=own("kill"), safe_mode_after=10_000)
    killed = 0
    try:
        api.converge(config, fleet.directive(fleet.release("v0", edits={"role.yaml": ROLE})))
        for number in range(1, rounds + 1):
            bad = random.random() < 0.3
            behavior = "crash" if bad else ""
            # A bad release fails for real, too: its program does not exist.
            release = fleet.release(
                f"v{number}", behavior, edits={"role.yaml": ROLE, **(_broken() if bad else {})}
            )
            killed += _run_and_kill(config, fleet.directive(release), random)
            _check(config, api.recover(config), bad=f"v{number}" if bad else None)
        ids = [row.id for row in rows(config)]
        assert len(set(ids)) == len(ids)
        assert len(ids) <= rounds + 1
    finally:
        if runtime == "docker":
            ComposeRuntime().down(config.project)
    counted(f"SIGKILL, {runtime}: {rounds} rounds, {killed} killed in time (seed {SEED})")
    assert killed > rounds // 4, "the engine was hardly ever caught at work"


def _broken() -> dict[str, str]:
    return {
        "compose.yaml": (
            "services:\n"
            '  web: {image: "busybox:stable", command: ["/no/such/program"], init: true,'
            " labels: {fleet.simulate: crash}}\n"
            '  clock: {image: "busybox:stable", command: [sleep, "1000000"], init: true,'
            " stop_grace_period: 1s}\n"
        )
    }


def _run_and_kill(config: EngineConfig, directive: Directive, random: Random) -> bool:
    """Start the engine and kill it at a random instant of its work; whether it still ran."""
    request = {
        "verb": "converge",
        "config": config.model_dump(mode="json"),
        "directive": directive.model_dump(mode="json"),
    }
    engine = subprocess.Popen(
        [sys.executable, "-m", "fleet_agent.engine"],
        stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, cwd=ROOT,
    )  # fmt: skip
    assert engine.stdin is not None
    assert engine.stdout is not None
    engine.stdin.write(json.dumps(request).encode() + b"\n")
    engine.stdin.close()
    # Counted in what it says, not in seconds: a slow machine is killed in the same places.
    for _ in range(random.randrange(1, 14)):
        engine.stdout.readline()
    time.sleep(random.random() * 0.05)
    engine.send_signal(signal.SIGKILL)
    engine.stdout.close()
    return engine.wait() == -signal.SIGKILL


def _check(config: EngineConfig, status: EngineStatus, bad: str | None) -> None:
    assert status.phase in RESTING, status
    assert status.current is not None
    assert status.current.version != bad
    seen = links.read(config.paths)
    assert (seen.current, seen.next) == (status.current.commit_sha, None)
    runtime = make("docker" if config.runtime == "docker" else "simulated", config.paths)
    found = {c.service: c.state for c in runtime.services(config.project)}
    assert found == {"web": "running", "clock": "running"}, (status, found)
    assert not (config.paths.state / "attempt.json").exists()
    assert os.access(config.paths.journal, os.R_OK)
