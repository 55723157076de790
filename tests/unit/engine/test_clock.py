"""What is recorded and waited for goes by the control plane's time, durations by the monotonic clock."""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import TypeVar

import pytest

from fleet_agent.containers.base import LogLine
from fleet_agent.containers.simulated import SimulatedRuntime
from fleet_agent.engine import api
from fleet_agent.engine.dependencies import Dependencies, Direct
from fleet_agent.model import Attempt, Outcome, ReportState
from fleet_agent.support.clock import Heard, boottime
from tests.support.engine_harness import ROLE_YAML, START, FakeClock, Fleet, rows

T = TypeVar("T")
#: How far a machine's clock may be wrong: no clock at all (1970), and a year ahead.
WRONG = [datetime(1970, 1, 1, tzinfo=UTC) - START, timedelta(days=365)]
MINUTE = timedelta(minutes=1)


class Jumps(FakeClock):
    """The machine's clock jumps at the second nap."""

    def __init__(self, ahead: timedelta) -> None:
        super().__init__()
        self.ahead_later = ahead

    def sleep(self, seconds: float) -> None:
        super().sleep(seconds)
        if len(self.naps) == 2:
            self.ahead = self.ahead_later


def attempts(fleet: Fleet, root: Path) -> list[Attempt]:
    return rows(fleet.config(root))


@pytest.mark.parametrize("ahead", WRONG, ids=["1970", "a year ahead"])
def test_an_attempt_is_dated_by_the_corrected_clock(fleet: Fleet, root: Path, ahead: timedelta) -> None:
    clock = FakeClock(ahead=ahead)
    api.converge(
        fleet.config(root), fleet.directive(fleet.release("v1")), dependencies=Dependencies(clock=clock)
    )
    (row,) = attempts(fleet, root)
    assert START <= row.started_at < START + MINUTE
    assert row.started_at < row.finished_at < START + MINUTE


class DiesStarting(Direct):
    def perform(self, name: str, action: Callable[[], T]) -> T:
        if name == "compose up":
            raise SystemExit
        return super().perform(name, action)


@pytest.mark.parametrize("ahead", WRONG, ids=["1970", "a year ahead"])
def test_an_attempt_of_which_only_the_links_are_left_is_dated_by_it_too(
    fleet: Fleet, root: Path, ahead: timedelta
) -> None:
    config, clock = fleet.config(root), FakeClock(ahead=ahead)
    api.converge(config, fleet.directive(fleet.release("v1")), dependencies=Dependencies(clock=clock))
    with pytest.raises(SystemExit):
        dying = Dependencies(clock=clock, effects=DiesStarting())
        api.converge(config, fleet.directive(fleet.release("v2")), dependencies=dying)
    for name in ("journal.json", "attempt.json"):
        (config.paths.state / name).write_bytes(b"\0" * 100)
    api.recover(config, dependencies=Dependencies(clock=clock))
    _, row = attempts(fleet, root)
    assert row.outcome is Outcome.ROLLED_BACK
    assert START <= row.started_at <= row.finished_at < START + MINUTE


@pytest.mark.parametrize("ahead", WRONG, ids=["1970", "a year ahead"])
def test_safe_mode_after_a_lost_journal_is_dated_by_it_too(
    fleet: Fleet, root: Path, ahead: timedelta
) -> None:
    config, dependencies = fleet.config(root), Dependencies(clock=FakeClock(ahead=ahead))
    api.converge(config, fleet.directive(fleet.release("bad-crash", "crash")), dependencies=dependencies)
    config.paths.journal.write_bytes(b"\0" * 100)
    assert api.recover(config, dependencies=dependencies).state is ReportState.SAFE_MODE
    mode = json.loads(config.paths.journal.read_text())["safe_mode"]
    assert START <= datetime.fromisoformat(mode["since"]) < START + MINUTE


class Asked(SimulatedRuntime):
    """Notes from when on it is asked for logs; Docker goes by the machine's own clock."""

    #: So that the role's log check looks.
    reachable = True

    def __init__(self, file: Path) -> None:
        super().__init__(file)
        self.since: list[datetime] = []

    def logs(self, project: str, *, lines: int, since: datetime | None = None) -> list[LogLine]:
        if since is not None:
            self.since.append(since)
        return super().logs(project, lines=lines, since=since)


@pytest.mark.parametrize("ahead", WRONG, ids=["1970", "a year ahead"])
def test_docker_is_asked_by_the_machines_clock_and_safe_mode_is_dated_by_the_corrected_one(
    fleet: Fleet, root: Path, ahead: timedelta
) -> None:
    """In the control plane's time, logs would be asked for from the future, and none would come."""
    clock, runtime = FakeClock(ahead=ahead), Asked(root / "state" / "simulated.json")
    role = ROLE_YAML + "  checks: [{kind: log, pattern: ERROR}, {kind: container}]\n"
    bad = fleet.release("bad", "crash-later=3", edits={"role.yaml": role})
    status = api.converge(
        fleet.config(root), fleet.directive(bad), dependencies=Dependencies(clock=clock, runtime=runtime)
    )
    # Its rounds' and its last words.
    assert len(runtime.since) > 1
    assert [since for since in runtime.since if not START <= since - ahead < START + MINUTE] == []
    assert status.state == "safe_mode"
    page = json.loads((root / "state" / "safe-mode" / "public" / "status.json").read_text())
    assert START <= datetime.fromisoformat(page["since"]) < START + MINUTE


@pytest.mark.parametrize("ahead", WRONG, ids=["back to 1970", "a year ahead"])
def test_a_jump_during_an_update_changes_neither_its_durations_nor_its_end(
    fleet: Fleet, root: Path, ahead: timedelta
) -> None:
    clock = Jumps(ahead)
    status = api.converge(
        fleet.config(root), fleet.directive(fleet.release("v1")), dependencies=Dependencies(clock=clock)
    )
    assert clock.ahead == ahead
    assert status.state == "healthy"
    (row,) = attempts(fleet, root)
    assert row.outcome == "succeeded"
    spent = timedelta(milliseconds=sum(row.phase_durations_ms.values()))
    assert abs((row.finished_at - row.started_at) - spent) < timedelta(seconds=1)
    assert spent < MINUTE


@pytest.mark.parametrize("ahead", WRONG, ids=["back to 1970", "a year ahead"])
def test_a_wait_between_attempts_outlasts_a_jump_of_the_machines_clock(
    fleet: Fleet, root: Path, ahead: timedelta
) -> None:
    full = fleet.config(root, min_free_bytes=2**60)
    clock = FakeClock()
    directive = fleet.directive(fleet.release("v1"))
    api.converge(full, directive, dependencies=Dependencies(clock=clock))
    memory = root / "state" / "known_bad.json"
    (trouble,) = json.loads(memory.read_text())["trouble"].values()
    clock.at = datetime.fromisoformat(trouble["not_before"]) - timedelta(seconds=clock.passed + 0.1)
    clock.ahead = ahead
    before = len(attempts(fleet, root))
    api.converge(full, directive, dependencies=Dependencies(clock=clock))
    assert len(attempts(fleet, root)) == before, "too early"
    clock.at += timedelta(seconds=1)
    api.converge(full, directive, dependencies=Dependencies(clock=clock))
    assert len(attempts(fleet, root)) == before + 1


@pytest.mark.parametrize("known", ["heard", "floor"])
def test_the_engines_process_goes_by_what_the_daemon_heard_and_else_by_the_floor_on_disk(
    fleet: Fleet, root: Path, known: str
) -> None:
    config = fleet.config(root)
    then = datetime(2031, 1, 1, tzinfo=UTC)
    heard = Heard(server_time=then, boot_s=boottime()) if known == "heard" else None
    config.paths.state.mkdir(parents=True, exist_ok=True)
    config.paths.clock_floor.write_text((then if heard is None else then - timedelta(days=1)).isoformat())
    request = {
        "verb": "converge",
        "config": config.model_dump(mode="json"),
        "directive": fleet.directive(fleet.release("v1")).model_dump(mode="json"),
        "heard": heard.model_dump(mode="json") if heard is not None else None,
    }
    done = subprocess.run(
        [sys.executable, "-m", "fleet_agent.engine"],
        input=json.dumps(request) + "\n", capture_output=True, text=True, check=True,
    )  # fmt: skip
    assert '"done"' in done.stdout
    (row,) = attempts(fleet, root)
    assert then <= row.started_at <= row.finished_at < then + timedelta(days=1)
