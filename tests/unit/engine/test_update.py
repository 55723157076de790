"""Whole updates on simulated containers, with real Git and real files."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from fleet_agent.engine import api
from fleet_agent.engine.dependencies import Dependencies
from fleet_agent.engine.state_files import points_at
from fleet_agent.errors import Kind, StateError
from fleet_agent.model import Action, Outcome, ReportState
from tests.support.engine_harness import FakeClock, Fleet, rows


def test_first_release_runs_and_is_recorded(fleet: Fleet, root: Path, dependencies: Dependencies) -> None:
    config, v1 = fleet.config(root), fleet.release("v1")
    phases: list[str] = []
    status = api.converge(
        config, fleet.directive(v1), lambda p: phases.append(p.phase), dependencies=dependencies
    )
    assert (status.state, status.phase, status.current) == (ReportState.HEALTHY, "steady", v1)
    assert status.reason == "running, which is weaker evidence: the role declares no health checks"
    assert {service.service: service.state for service in status.services} == {
        "web": "running",
        "clock": "running",
    }
    assert points_at(config.paths.current) == config.paths.release(v1.commit_sha)
    assert not config.paths.next.is_symlink()
    [row] = rows(config)
    assert (row.outcome, row.to_commit, row.from_commit) == (Outcome.SUCCEEDED, v1.commit_sha, None)
    assert row.bytes_fetched > 0
    assert list(dict.fromkeys(phases)) == [
        "fetching", "verifying", "validating", "pulling", "swapping", "starting", "probation", "committing",
        "recording", "steady",
    ]  # fmt: skip
    assert set(row.phase_durations_ms) == set(phases) - {"steady", "recording"}
    assert row.phase_durations_ms["probation"] >= 1000


def test_update_restarts_only_what_changed(fleet: Fleet, root: Path, dependencies: Dependencies) -> None:
    config = fleet.config(root)
    fleet.on_v1(config, dependencies)
    before = _ids(root)
    status = api.converge(config, fleet.directive(fleet.release("v2")), dependencies=dependencies)
    after = _ids(root)
    assert after["clock"] == before["clock"]
    assert after["web"] != before["web"]
    assert status.previous == fleet.release("v1")
    assert points_at(config.paths.previous) == config.paths.release(fleet.release("v1").commit_sha)


@pytest.mark.parametrize("behavior", ["unhealthy", "crash", "crash-later=2", "no-start"])
def test_bad_release_goes_back_and_says_why(
    fleet: Fleet, root: Path, dependencies: Dependencies, behavior: str
) -> None:
    config, v1 = fleet.config(root), fleet.release("v1")
    bad = fleet.release(f"bad-{behavior}", behavior)
    fleet.on_v1(config, dependencies)
    status = api.converge(config, fleet.directive(bad), dependencies=dependencies)
    assert (status.state, status.current, status.phase) == (ReportState.ROLLED_BACK, v1, "steady")
    assert status.reason.startswith(f"Went back to v1. bad-{behavior} failed ")
    assert points_at(config.paths.current) == config.paths.release(v1.commit_sha)
    assert not config.paths.next.is_symlink()
    row = rows(config)[-1]
    assert (row.outcome, row.failed_phase) == (
        Outcome.ROLLED_BACK,
        "starting" if behavior == "no-start" else "probation",
    )
    assert row.error_kind == {"unhealthy": "unhealthy", "no-start": "compose_failed"}.get(
        behavior, "container_exited"
    )
    assert row.evidence["containers"]
    web = next(service for service in status.services if service.service == "web")
    assert web.state == "running"


def test_bad_release_is_not_tried_again_unasked(fleet: Fleet, root: Path, dependencies: Dependencies) -> None:
    config = fleet.config(root)
    bad = fleet.release("bad-unhealthy", "unhealthy")
    fleet.on_v1(config, dependencies)
    api.converge(config, fleet.directive(bad), dependencies=dependencies)
    api.converge(config, fleet.directive(bad), dependencies=dependencies)
    assert len(rows(config)) == 2
    api.converge(config, fleet.directive(bad), dependencies=dependencies, operator_requested=True)
    assert len(rows(config)) == 3


def test_first_release_that_fails_ends_in_safe_mode(
    fleet: Fleet, root: Path, dependencies: Dependencies
) -> None:
    config = fleet.config(root)
    status = api.converge(
        config, fleet.directive(fleet.release("bad-crash", "crash")), dependencies=dependencies
    )
    assert (status.state, status.phase, status.current) == (ReportState.SAFE_MODE, "safe_mode", None)
    assert status.reason == (
        "Safe mode: there is no earlier release to go back to. "
        "bad-crash failed in probation: Web exited with code 1."
    )
    assert status.services == ()
    assert not config.paths.current.is_symlink()
    assert [row.outcome for row in rows(config)] == [Outcome.FAILED]


def test_safe_mode_accepts_a_fix_and_leaves_by_itself(
    fleet: Fleet, root: Path, dependencies: Dependencies
) -> None:
    config, v1 = fleet.config(root), fleet.release("v1")
    api.converge(config, fleet.directive(fleet.release("bad-crash", "crash")), dependencies=dependencies)
    status = api.converge(config, fleet.directive(v1), dependencies=dependencies)
    assert (status.state, status.phase, status.current) == (ReportState.HEALTHY, "steady", v1)


def test_release_that_cannot_be_validated_touches_nothing(
    fleet: Fleet, root: Path, dependencies: Dependencies
) -> None:
    config, v1 = fleet.config(root), fleet.release("v1")
    fleet.on_v1(config, dependencies)
    before = _ids(root)
    refusing = fleet.release("refusing", edits={"validate": "#!/bin/sh\necho the moon is full\nexit 3\n"})
    status = api.converge(config, fleet.directive(refusing), dependencies=dependencies)
    assert (status.state, status.current, status.error_kind) == (ReportState.HEALTHY, v1, "validate_failed")
    assert status.error == "The role's validate refused the release (exit code 3): the moon is full."
    assert _ids(root) == before
    row = rows(config)[-1]
    assert (row.outcome, row.failed_phase) == (Outcome.FAILED, "validating")


def test_unsigned_release_is_refused(fleet: Fleet, root: Path, dependencies: Dependencies) -> None:
    config = fleet.config(root)
    fleet.on_v1(config, dependencies)
    status = api.converge(
        config, fleet.directive(fleet.release("unsigned", sign=False)), dependencies=dependencies
    )
    assert status.error_kind == "signature_missing"
    assert status.current == fleet.release("v1")


def test_operator_goes_back_and_the_left_release_stays_away(
    fleet: Fleet, root: Path, dependencies: Dependencies
) -> None:
    config, v1, v2 = fleet.config(root), fleet.release("v1"), fleet.release("v2")
    fleet.on_v1(config, dependencies)
    api.converge(config, fleet.directive(v2), dependencies=dependencies)
    status = api.rollback(config, reason="too green", dependencies=dependencies)
    assert (status.state, status.current, status.previous) == (ReportState.HEALTHY, v1, v2)
    row = rows(config)[-1]
    # Told as what happened to v2, so that the control plane does not offer it again either.
    assert (row.outcome, row.release_id, row.error_kind) == (Outcome.ROLLED_BACK, v2.id, Kind.LEFT)
    assert (row.from_commit, row.to_commit, row.error) == (v1.commit_sha, v2.commit_sha, "too green")
    status = api.converge(config, fleet.directive(v2), dependencies=dependencies)
    assert status.current == v1


def test_nothing_to_go_back_to_is_a_refusal(fleet: Fleet, root: Path, dependencies: Dependencies) -> None:
    config = fleet.config(root)
    fleet.on_v1(config, dependencies)
    with pytest.raises(StateError) as refusal:
        api.rollback(config, dependencies=dependencies)
    assert refusal.value.kind == "nothing_to_roll_back"
    assert len(rows(config)) == 1


@pytest.mark.parametrize("action", [Action.RUN, Action.HOLD])
def test_newer_wish_before_the_swap_ends_the_attempt(
    fleet: Fleet, root: Path, clock: FakeClock, action: Action
) -> None:
    """A halt, a pin or a suspension that arrives mid-update; what runs is not touched."""
    config, v1, v2 = fleet.config(root), fleet.release("v1"), fleet.release("v2")
    fleet.on_v1(config, Dependencies(clock=clock))
    before = _ids(root)
    newest = fleet.directive(None, action)
    status = api.converge(
        config, fleet.directive(v2), dependencies=Dependencies(clock=clock, newest=lambda: newest)
    )
    assert (status.current, status.state) == (v1, ReportState.HEALTHY)
    assert _ids(root) == before
    row = rows(config)[-1]
    assert (row.outcome, row.error_kind) == (Outcome.SKIPPED, "superseded")


def test_newer_release_mid_update_is_taken_in_the_same_run(
    fleet: Fleet, root: Path, clock: FakeClock
) -> None:
    config, v2, v3 = fleet.config(root), fleet.release("v2"), fleet.release("v3")
    newest = fleet.directive(v3)
    status = api.converge(
        config, fleet.directive(v2), dependencies=Dependencies(clock=clock, newest=lambda: newest)
    )
    assert status.current == v3
    assert [row.outcome for row in rows(config)] == [Outcome.SKIPPED, Outcome.SUCCEEDED]


def test_three_failures_in_a_row_are_safe_mode_beside_the_release(
    fleet: Fleet, root: Path, dependencies: Dependencies
) -> None:
    config, v1 = fleet.config(root), fleet.release("v1")
    fleet.on_v1(config, dependencies)
    for behavior in ("unhealthy", "crash", "no-start"):
        bad = fleet.release(f"bad-{behavior}", behavior)
        status = api.converge(config, fleet.directive(bad), dependencies=dependencies)
    assert (status.state, status.current) == (ReportState.SAFE_MODE, v1)
    assert {service.state for service in status.services} == {"running"}
    assert [row.outcome for row in rows(config)[1:]] == [Outcome.ROLLED_BACK] * 3
    status = api.converge(config, fleet.directive(fleet.release("v2")), dependencies=dependencies)
    assert (status.state, status.current) == (ReportState.HEALTHY, fleet.release("v2"))


def test_what_has_stopped_is_started_again(fleet: Fleet, root: Path, dependencies: Dependencies) -> None:
    config = fleet.config(root)
    fleet.on_v1(config, dependencies)
    (root / "state" / "simulated.json").write_text(json.dumps({**_world(root), "containers": {}}))
    status = api.recover(config, dependencies=dependencies)
    assert status.state is ReportState.HEALTHY
    assert set(_ids(root)) == {"web", "clock"}


def test_idle_convergence_writes_nothing(fleet: Fleet, root: Path, dependencies: Dependencies) -> None:
    config, v1 = fleet.config(root), fleet.release("v1")
    fleet.on_v1(config, dependencies)
    before = _mtimes(root)
    api.converge(config, fleet.directive(v1), dependencies=dependencies)
    api.recover(config, dependencies=dependencies)
    assert _mtimes(root) == before


def test_only_current_and_previous_are_kept(fleet: Fleet, root: Path, dependencies: Dependencies) -> None:
    config = fleet.config(root)
    for version in ("v1", "v2", "v3"):
        api.converge(config, fleet.directive(fleet.release(version)), dependencies=dependencies)
    kept = {fleet.release("v2").commit_sha, fleet.release("v3").commit_sha}
    assert {folder.name for folder in config.paths.releases.iterdir()} == kept
    assert {folder.name.partition(".")[0] for folder in (root / "state" / "stacks").iterdir()} == kept
    assert len(list((root / "content").iterdir())) == 2


def test_secrets_reach_no_row(fleet: Fleet, root: Path, dependencies: Dependencies) -> None:
    config = fleet.config(root)
    (root / ".env").write_text("PASSWORD=correct-horse-battery\n")
    refusing = fleet.release("tells", edits={"validate": '#!/bin/sh\necho "bad $PASSWORD"\nexit 1\n'})
    status = api.converge(config, fleet.directive(refusing), dependencies=dependencies)
    assert status.error == "The role's validate refused the release (exit code 1): bad ***."
    assert "correct-horse" not in rows(config)[0].model_dump_json()
    assert "correct-horse" not in config.paths.journal.read_text()


def _world(root: Path) -> dict[str, dict[str, object]]:
    world: dict[str, dict[str, object]] = json.loads((root / "state" / "simulated.json").read_text())
    return world


def _ids(root: Path) -> dict[str, int]:
    """Container ids by service of the release."""
    found = json.loads((root / "state" / "simulated.json").read_text())["containers"].get("fleet", {})
    return {name: container["id"] for name, container in found.items()}


def _mtimes(root: Path) -> dict[str, int]:
    """Every file but the lock, which is only a name for people and is not synced."""
    return {
        str(path): path.lstat().st_mtime_ns
        for path in root.rglob("*")
        if path.is_file() and path.name != "converge.lock"
    }


@pytest.mark.parametrize("verifies", [True, False])
def test_the_row_says_who_signed_it_as_verified_here(
    fleet: Fleet, root: Path, dependencies: Dependencies, verifies: bool
) -> None:
    config = fleet.config(root, verify_signatures=verifies)
    api.converge(config, fleet.directive(fleet.release("v1")), dependencies=dependencies)
    signers = fleet.repo.allowed_signers.read_text().split()
    assert rows(config)[-1].signer == (signers[0] if verifies else None)


def test_nothing_to_restart_has_its_own_words(fleet: Fleet, root: Path, dependencies: Dependencies) -> None:
    with pytest.raises(StateError) as caught:
        api.restart(fleet.config(root), dependencies=dependencies)
    assert caught.value.kind is Kind.NOTHING_TO_RESTART
    assert str(caught.value) == (
        "No release is running on this device, so there is nothing to restart. "
        "In safe mode, send leave_safe_mode; otherwise roll out a release."
    )
