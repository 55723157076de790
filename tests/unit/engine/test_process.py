"""The engine as a process: one request on standard input, the answer in the last line."""

from __future__ import annotations

import json
import subprocess
import sys
from typing import Any

import pytest

from fleet_agent.engine import api
from fleet_agent.engine.config import EngineConfig
from fleet_agent.engine.dependencies import Dependencies
from fleet_agent.engine.lock import converging
from tests.support.engine_harness import Fleet


def ask(config: EngineConfig, verb: str, **request: object) -> tuple[int, dict[str, Any]]:
    """The exit code and the last line."""
    request |= {"verb": verb, "config": config.model_dump(mode="json")}
    done = subprocess.run(
        [sys.executable, "-m", "fleet_agent.engine"],
        input=json.dumps(request), capture_output=True, text=True, timeout=60, check=False,
    )  # fmt: skip
    answer: dict[str, Any] = json.loads(done.stdout.splitlines()[-1])
    return done.returncode, answer


@pytest.fixture
def running(fleet: Fleet, dependencies: Dependencies, config: EngineConfig) -> EngineConfig:
    api.converge(config, fleet.directive(fleet.release("talks", "slow=1")), dependencies=dependencies)
    return config


@pytest.fixture
def config(fleet: Fleet, root: Any) -> EngineConfig:
    return fleet.config(root)


def test_logs_are_answered_while_somebody_converges(running: EngineConfig) -> None:
    with converging(running.paths.lock, "testing"):
        code, answer = ask(running, "logs", lines=5)
    assert (code, answer) == (
        0,
        {"done": {"lines": [{"service": "web", "text": "simulated slow=1", "at": None}]}},
    )


def test_drift_is_answered_while_somebody_converges(running: EngineConfig) -> None:
    with converging(running.paths.lock, "testing"):
        assert ask(running, "drift") == (0, {"done": {"changed": []}})
        running.paths.current.unlink()
        code, answer = ask(running, "drift")
    assert code == 0
    assert answer == {"done": {"changed": ["the link app_current does not point to the committed release"]}}


def test_a_device_without_a_release_has_no_logs_and_no_drift(config: EngineConfig) -> None:
    assert ask(config, "logs") == (0, {"done": {"lines": []}})
    assert ask(config, "drift") == (0, {"done": {"changed": []}})


@pytest.mark.parametrize("lines", [0, -1, "many"])
def test_a_number_of_lines_that_is_none_is_refused(config: EngineConfig, lines: object) -> None:
    code, answer = ask(config, "logs", lines=lines)
    assert (code, answer["error"]["kind"]) == (2, "config_invalid")


def test_a_verb_that_the_engine_does_not_know_is_refused(config: EngineConfig) -> None:
    code, answer = ask(config, "dance")
    assert (code, answer["error"]["kind"]) == (1, "internal")
    assert "dance" in answer["error"]["message"]
