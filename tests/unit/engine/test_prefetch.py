"""Download now, apply in the window: a release is brought here, and what runs is left alone."""

from __future__ import annotations

import json
from collections.abc import Callable
from datetime import timedelta
from pathlib import Path
from typing import TypeVar

import pytest

from fleet_agent.engine import api, disk_space, failure_memory
from fleet_agent.engine import journal as journals
from fleet_agent.engine.config import EngineConfig
from fleet_agent.engine.dependencies import Dependencies, Direct
from fleet_agent.engine.retention import KEPT_FOR
from fleet_agent.engine.state_files import points_at
from fleet_agent.model import Action, Directive, EngineStatus, Outcome, Progress, Release, ReportState
from tests.support.engine_harness import COMPOSE_YAML, FakeClock, Fleet, rows
from tests.unit.engine.test_update import _ids

T = TypeVar("T")
REFUSES = {"validate": "#!/bin/sh\necho the moon is full\nexit 3\n"}


@pytest.fixture
def config(fleet: Fleet, root: Path, dependencies: Dependencies) -> EngineConfig:
    """A device on v1."""
    config = fleet.config(root)
    fleet.on_v1(config, dependencies)
    return config


def ahead(fleet: Fleet, release: Release | None, running: str = "v1") -> Directive:
    """What a device is told for which only the window is shut."""
    return fleet.directive(fleet.release(running), Action.RUN, prefetch=release)


class Recorder(Direct):
    """Which effects there were."""

    def __init__(self) -> None:
        self.seen: list[str] = []

    def perform(self, name: str, action: Callable[[], T]) -> T:
        self.seen.append(name)
        return action()


def prefetched(status: EngineStatus) -> tuple[str, bool] | None:
    found = status.prefetch
    return (found.release.version, found.ready) if found is not None else None


def images(root: Path) -> set[str]:
    return set(json.loads((root / "state" / "simulated.json").read_text())["images"])


def with_image(tag: str) -> dict[str, str]:
    return {"compose.yaml": COMPOSE_YAML.format(behavior="").replace("busybox:stable", f"app:{tag}", 1)}


def test_a_release_is_brought_here_and_what_runs_is_not_touched(
    fleet: Fleet, config: EngineConfig, root: Path, dependencies: Dependencies
) -> None:
    v1, coming = fleet.release("v1"), fleet.release("coming", edits=with_image("coming"))
    before, links = _ids(root), points_at(config.paths.current)
    told: list[Progress] = []
    status = api.converge(config, ahead(fleet, coming), told.append, dependencies=dependencies)
    assert (status.state, status.phase, status.current) == (ReportState.HEALTHY, "steady", v1)
    assert prefetched(status) == ("coming", True)
    assert (_ids(root), points_at(config.paths.current)) == (before, links)
    assert not config.paths.next.is_symlink()
    assert "app:coming" in images(root)
    assert config.paths.release(coming.commit_sha).is_dir()
    # It is no attempt: the device did not try to move.
    assert [row.to_commit for row in rows(config)] == [v1.commit_sha]
    assert list(dict.fromkeys(line.phase for line in told if line.prefetching)) == [
        "fetching", "verifying", "validating", "pulling", "recording",
    ]  # fmt: skip
    assert not (config.paths.state / "attempt.json").exists()


def test_what_is_ready_is_left_alone_at_each_poll(
    fleet: Fleet, config: EngineConfig, dependencies: Dependencies
) -> None:
    api.converge(config, ahead(fleet, fleet.release("v2")), dependencies=dependencies)
    journal, recorder = config.paths.journal.read_bytes(), Recorder()
    api.converge(
        config,
        ahead(fleet, fleet.release("v2")),
        dependencies=Dependencies(clock=dependencies.clock, effects=recorder),
    )
    assert config.paths.journal.read_bytes() == journal
    assert not [name for name in recorder.seen if name.startswith(("write", "git", "docker pull", "compose"))]


def test_the_update_then_fetches_and_pulls_nothing(
    fleet: Fleet, config: EngineConfig, root: Path, dependencies: Dependencies
) -> None:
    coming = fleet.release("coming-2", edits=with_image("coming-2"))
    api.converge(config, ahead(fleet, coming), dependencies=dependencies)
    recorder = Recorder()
    status = api.converge(
        config, fleet.directive(coming), dependencies=Dependencies(clock=dependencies.clock, effects=recorder)
    )
    assert (status.current, status.prefetch) == (coming, None)
    assert "docker pull" not in recorder.seen
    row = rows(config)[-1]
    assert (row.outcome, row.bytes_fetched) == (Outcome.SUCCEEDED, 0)
    assert row.evidence["prefetched_bytes"] > 0


def test_the_same_commit_under_another_row_stays_ready(
    fleet: Fleet, config: EngineConfig, dependencies: Dependencies
) -> None:
    v2 = fleet.release("v2")
    api.converge(config, ahead(fleet, v2), dependencies=dependencies)
    renamed, recorder = v2.model_copy(update={"version": "2.0.0-final"}), Recorder()
    status = api.converge(
        config, ahead(fleet, renamed), dependencies=Dependencies(clock=dependencies.clock, effects=recorder)
    )
    assert prefetched(status) == ("2.0.0-final", True)
    assert "git fetch" not in recorder.seen


def test_what_runs_already_is_not_prefetched(
    fleet: Fleet, config: EngineConfig, dependencies: Dependencies
) -> None:
    assert (
        prefetched(api.converge(config, ahead(fleet, fleet.release("v1")), dependencies=dependencies)) is None
    )


# Failures


def test_a_release_that_fails_is_told_once_and_is_no_failed_update(
    fleet: Fleet, config: EngineConfig, root: Path, dependencies: Dependencies
) -> None:
    refusing, before = fleet.release("refuses-ahead", edits=REFUSES), _ids(root)
    for _ in range(4):
        status = api.converge(config, ahead(fleet, refusing), dependencies=dependencies)
    assert (status.state, status.phase, status.error_kind) == (ReportState.HEALTHY, "steady", None)
    assert status.prefetch is not None
    assert (status.prefetch.ready, status.prefetch.again) == (False, False)
    assert status.prefetch.error_kind == "validate_failed"
    assert status.prefetch.error == "The role's validate refused the release (exit code 3): the moon is full."
    [_, row] = rows(config)
    # Skipped: policy counts neither a failure nor an attempt, and does not take the release for known bad.
    assert (row.outcome, row.error_kind, row.failed_phase) == (
        Outcome.SKIPPED, "validate_failed", "validating",
    )  # fmt: skip
    assert row.evidence["prefetching"] is True
    journal = journals.load(config.paths.journal)
    assert journal is not None and journal.failures_in_a_row == 0
    assert _ids(root) == before
    assert not config.paths.release(refusing.commit_sha).exists()


def test_the_update_is_tried_all_the_same_and_its_failure_counts(
    fleet: Fleet, config: EngineConfig, dependencies: Dependencies
) -> None:
    refusing = fleet.release("refuses-ahead", edits=REFUSES)
    api.converge(config, ahead(fleet, refusing), dependencies=dependencies)
    status = api.converge(config, fleet.directive(refusing), dependencies=dependencies)
    assert [row.outcome for row in rows(config)[1:]] == [Outcome.SKIPPED, Outcome.FAILED]
    assert (status.error_kind, status.prefetch) == ("validate_failed", None)


def test_what_failed_as_an_update_is_not_prefetched(
    fleet: Fleet, config: EngineConfig, dependencies: Dependencies
) -> None:
    bad = fleet.release("bad-unhealthy", "unhealthy")
    api.converge(config, fleet.directive(bad), dependencies=dependencies)
    status = api.converge(config, ahead(fleet, bad), dependencies=dependencies)
    assert prefetched(status) is None
    assert len(rows(config)) == 2


def test_an_edited_env_lets_it_be_prefetched_again(
    fleet: Fleet, config: EngineConfig, root: Path, dependencies: Dependencies
) -> None:
    wants = fleet.release("wants-env", edits={"validate": '#!/bin/sh\n[ "$GREETING" = ciao ]\n'})
    status = api.converge(config, ahead(fleet, wants), dependencies=dependencies)
    assert status.prefetch is not None and not status.prefetch.again
    (root / ".env").write_text("GREETING=ciao\n")
    seen = api.status(config).prefetch
    assert seen is not None and seen.again
    assert prefetched(api.converge(config, ahead(fleet, wants), dependencies=dependencies)) == (
        "wants-env",
        True,
    )


def test_an_order_to_update_now_tries_once_more(
    fleet: Fleet, config: EngineConfig, dependencies: Dependencies
) -> None:
    refusing = fleet.release("refuses-ahead", edits=REFUSES)
    api.converge(config, ahead(fleet, refusing), dependencies=dependencies)
    api.converge(config, ahead(fleet, refusing), dependencies=dependencies, operator_requested=True)
    assert len(rows(config)) == 3


def test_passing_trouble_makes_no_row_and_waits_before_the_next_try(
    fleet: Fleet, config: EngineConfig, root: Path, clock: FakeClock, monkeypatch: pytest.MonkeyPatch
) -> None:
    # With full jitter a short wait may be over at once.
    monkeypatch.setattr(failure_memory, "RETRY_FIRST", failure_memory.RETRY_CAP)
    away = fleet.config(root, git_url="http://127.0.0.1:1/fleet.git")
    v2 = fleet.release("v2-away")
    for _ in range(3):
        recorder = Recorder()
        status = api.converge(
            away, ahead(fleet, v2), dependencies=Dependencies(clock=clock, effects=recorder)
        )
    assert status.prefetch is not None
    assert (status.prefetch.again, status.prefetch.error_kind) == (True, "git_unreachable")
    assert "git fetch" not in recorder.seen
    assert len(rows(config)) == 1
    clock.passed += 7200
    assert prefetched(api.converge(config, ahead(fleet, v2), dependencies=Dependencies(clock=clock))) == (
        "v2-away",
        True,
    )


def test_failing_to_prefetch_never_brings_safe_mode(
    fleet: Fleet, root: Path, dependencies: Dependencies
) -> None:
    """Not even where nothing runs yet, and there is nothing to keep."""
    config = fleet.config(root)
    nothing = fleet.directive(None, Action.RUN, prefetch=fleet.release("refuses-ahead", edits=REFUSES))
    status = api.converge(config, nothing, dependencies=dependencies)
    assert (status.state, status.phase) == (ReportState.HEALTHY, "steady")


# A newer wish


@pytest.mark.parametrize("action", [Action.HOLD, Action.RUN, Action.SAFE_MODE])
def test_another_wish_ends_it_without_a_row(
    fleet: Fleet, config: EngineConfig, clock: FakeClock, action: Action
) -> None:
    newest = fleet.directive(None, action)
    status = api.converge(
        config,
        ahead(fleet, fleet.release("v2")),
        dependencies=Dependencies(clock=clock, newest=lambda: newest),
    )
    assert prefetched(status) == ("v2", False)
    assert status.prefetch is not None and status.prefetch.error is None
    assert len(rows(config)) == 1
    assert status.state is (ReportState.SAFE_MODE if action is Action.SAFE_MODE else ReportState.HEALTHY)


def test_the_window_that_opens_meanwhile_is_used_in_the_same_run(
    fleet: Fleet, config: EngineConfig, clock: FakeClock
) -> None:
    v2 = fleet.release("v2")
    recorder = Recorder()
    opened = fleet.directive(v2)
    status = api.converge(
        config,
        ahead(fleet, v2),
        dependencies=Dependencies(clock=clock, newest=lambda: opened, effects=recorder),
    )
    assert status.current == v2
    assert [row.outcome for row in rows(config)] == [Outcome.SUCCEEDED] * 2


# What stays


def test_what_is_prefetched_stays_while_others_come_and_go(
    fleet: Fleet, config: EngineConfig, root: Path, dependencies: Dependencies
) -> None:
    """It is not asked for while a halt is open: that is no reason to download it twice."""
    coming = fleet.release("coming", edits=with_image("coming"))
    api.converge(config, ahead(fleet, coming), dependencies=dependencies)
    api.converge(config, fleet.directive(None, Action.HOLD), dependencies=dependencies)
    api.restart(config, dependencies=dependencies)
    status = api.recover(config, dependencies=dependencies)
    assert prefetched(status) == ("coming", True)
    assert "app:coming" in images(root)


@pytest.mark.parametrize("how", ["prefetched", "updated to"])
def test_another_target_takes_its_place(
    fleet: Fleet, config: EngineConfig, root: Path, dependencies: Dependencies, how: str
) -> None:
    first, second = (fleet.release(f"img-{tag}", edits=with_image(tag)) for tag in ("a", "b"))
    api.converge(config, ahead(fleet, first), dependencies=dependencies)
    asks = ahead(fleet, second) if how == "prefetched" else fleet.directive(second)
    status = api.converge(config, asks, dependencies=dependencies)
    assert prefetched(status) == (("img-b", True) if how == "prefetched" else None)
    assert images(root) == {"app:b", "busybox:stable"}
    assert not config.paths.release(first.commit_sha).exists()


def test_a_rolled_back_update_leaves_nothing_prefetched(
    fleet: Fleet, config: EngineConfig, dependencies: Dependencies
) -> None:
    bad = fleet.release("bad-crash", "crash")
    assert prefetched(api.converge(config, ahead(fleet, bad), dependencies=dependencies)) == (
        "bad-crash",
        True,
    )
    status = api.converge(config, fleet.directive(bad), dependencies=dependencies)
    assert (status.state, status.prefetch) == (ReportState.ROLLED_BACK, None)
    assert not config.paths.release(bad.commit_sha).exists()


def test_a_superseded_update_keeps_what_was_prefetched(
    fleet: Fleet, config: EngineConfig, clock: FakeClock
) -> None:
    v2 = fleet.release("v2")
    api.converge(config, ahead(fleet, v2), dependencies=Dependencies(clock=clock))
    halted = fleet.directive(None, Action.RUN)
    status = api.converge(
        config, fleet.directive(v2), dependencies=Dependencies(clock=clock, newest=lambda: halted)
    )
    assert prefetched(status) == ("v2", True)
    assert config.paths.release(v2.commit_sha).is_dir()


def test_the_floor_of_free_space_wins_and_it_is_not_fetched_again(
    fleet: Fleet,
    config: EngineConfig,
    root: Path,
    dependencies: Dependencies,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    coming = fleet.release("coming", edits=with_image("coming"))
    api.converge(config, ahead(fleet, coming), dependencies=dependencies)
    monkeypatch.setattr(disk_space, "free_bytes", lambda _engine: config.min_free_bytes - 1)
    status = api.recover(config, dependencies=dependencies)
    assert status.prefetch is not None
    assert (status.prefetch.ready, status.prefetch.again) == (False, False)
    assert status.prefetch.error_kind == "disk_full"
    assert not config.paths.release(coming.commit_sha).exists()
    assert "app:coming" not in images(root)
    monkeypatch.undo()
    assert prefetched(api.converge(config, ahead(fleet, coming), dependencies=dependencies)) == (
        "coming",
        False,
    )
    assert api.converge(config, fleet.directive(coming), dependencies=dependencies).current == coming


def test_a_release_that_leaves_too_little_space_is_not_kept(
    fleet: Fleet, config: EngineConfig, dependencies: Dependencies, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Found out only when all of it is here: images tell their size no earlier."""
    coming = fleet.release("coming", edits=with_image("coming"))
    free = iter([10 * config.min_free_bytes])

    def falls(engine: object) -> int:
        journal = journals.load(config.paths.journal)
        pulling = journal is not None and journal.phase == "pulling"
        return 0 if pulling and next(free, None) is None else 10 * config.min_free_bytes

    monkeypatch.setattr(disk_space, "free_bytes", falls)
    status = api.converge(config, ahead(fleet, coming), dependencies=dependencies)
    assert prefetched(status) == ("coming", False)
    assert not config.paths.release(coming.commit_sha).exists()
    # Told by the status: it is the device that is small, not the release that is bad.
    assert status.prefetch is not None and status.prefetch.error_kind == "disk_full"
    assert len(rows(config)) == 1


@pytest.mark.parametrize(
    ("later", "kept"), [(KEPT_FOR - timedelta(hours=1), True), (KEPT_FOR + timedelta(hours=1), False)]
)
def test_what_nobody_applies_is_not_kept_for_ever(
    fleet: Fleet, config: EngineConfig, clock: FakeClock, later: timedelta, kept: bool
) -> None:
    v2 = fleet.release("v2")
    api.converge(config, ahead(fleet, v2), dependencies=Dependencies(clock=clock))
    clock.at += later
    assert prefetched(api.recover(config, dependencies=Dependencies(clock=clock))) == (
        ("v2", True) if kept else None
    )
    assert config.paths.release(v2.commit_sha).is_dir() is kept


@pytest.mark.parametrize("damage", ["folder", "stack", "image", "content"])
def test_what_is_no_longer_whole_is_prefetched_again(
    fleet: Fleet, config: EngineConfig, root: Path, dependencies: Dependencies, damage: str
) -> None:
    coming = fleet.release("coming", edits={**with_image("coming"), "page/index.html": "<p>coming</p>\n"})
    api.converge(config, ahead(fleet, coming), dependencies=dependencies)
    before = _whole(config, root, coming, fleet.role)
    match damage:
        case "folder":
            config.paths.release(coming.commit_sha).rename(root / "taken")
        case "stack":
            (config.paths.state / "stacks" / f"{coming.commit_sha}.{fleet.role}" / "stack.json").write_text(
                "{"
            )
        case "image":
            world = json.loads((root / "state" / "simulated.json").read_text())
            world["images"] = [image for image in world["images"] if image != "app:coming"]
            (root / "state" / "simulated.json").write_text(json.dumps(world))
        case "content":
            for folder in (root / "content").iterdir():
                folder.rename(root / f"taken-{folder.name}")
    assert prefetched(api.recover(config, dependencies=dependencies)) is None
    assert prefetched(api.converge(config, ahead(fleet, coming), dependencies=dependencies)) == (
        "coming",
        True,
    )
    assert _whole(config, root, coming, fleet.role) == before


def _whole(config: EngineConfig, root: Path, release: Release, role: str) -> object:
    stack = config.paths.state / "stacks" / f"{release.commit_sha}.{role}"
    return (
        config.paths.release(release.commit_sha).is_dir(),
        (stack / "stack.json").read_text(),
        "app:coming" in images(root),
        # Content that was lost is brought back to another place of the same hash.
        sorted(folder.name.partition("~")[0] for folder in (root / "content").iterdir()),
    )


def test_death_while_prefetching_is_no_attempt_and_three_deaths_are_enough(
    fleet: Fleet, config: EngineConfig, clock: FakeClock
) -> None:
    class Killed(BaseException):
        pass

    class DiesAtThePull(Direct):
        def perform(self, name: str, action: Callable[[], T]) -> T:
            if name == "docker pull":
                raise Killed
            return action()

    coming = fleet.release("coming", edits=with_image("coming"))
    for _ in range(3):
        with pytest.raises(Killed):
            api.converge(
                config, ahead(fleet, coming), dependencies=Dependencies(clock=clock, effects=DiesAtThePull())
            )
        # Between the death and the next start it is an update to nobody.
        assert api.status(config).state is ReportState.HEALTHY
    status = api.converge(config, ahead(fleet, coming), dependencies=Dependencies(clock=clock))
    assert status.prefetch is not None
    assert (status.prefetch.ready, status.prefetch.again) == (False, False)
    assert [(row.outcome, row.error_kind) for row in rows(config)[1:]] == [(Outcome.SKIPPED, "internal")]
    assert (
        api.converge(config, fleet.directive(coming), dependencies=Dependencies(clock=clock)).current
        == coming
    )


def test_progress_says_that_it_only_prefetches(
    fleet: Fleet, config: EngineConfig, dependencies: Dependencies
) -> None:
    told: list[Progress] = []
    api.converge(config, ahead(fleet, fleet.release("v2")), told.append, dependencies=dependencies)
    assert {line.prefetching for line in told[:-1]} == {True}
    assert not told[-1].prefetching
