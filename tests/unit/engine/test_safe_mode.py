"""What leads into safe mode from rest, and out of it."""

from __future__ import annotations

import itertools
import json
import shutil
from pathlib import Path
from typing import NoReturn

import pytest

from fleet_agent.config import RescueAccess
from fleet_agent.engine import api, disk_space, repair
from fleet_agent.engine.dependencies import Dependencies
from fleet_agent.errors import ContainerError, Kind, StateError
from fleet_agent.model import ReportState
from fleet_agent.support.sizes import MIB
from tests.support.engine_harness import Fleet

KEYS = Path("/etc/fleet/rescue_keys")
ACCESS = RescueAccess(authorized_keys=KEYS)


def test_full_disk_is_safe_mode_beside_the_release_until_space_is_back(
    fleet: Fleet, root: Path, dependencies: Dependencies, monkeypatch: pytest.MonkeyPatch
) -> None:
    config, v1 = fleet.config(root, min_free_bytes=64 * MIB), fleet.release("v1")
    fleet.on_v1(config, dependencies)

    def free(mib: int) -> None:
        monkeypatch.setattr(disk_space, "free_bytes", lambda _: mib * MIB)

    free(15)
    status = api.recover(config, dependencies=dependencies)
    assert (status.state, status.error_kind) == (ReportState.SAFE_MODE, "disk_full")
    assert status.reason == "Safe mode: the disk is full; 15 MiB are free."
    assert {service.state for service in status.services} == {"running"}
    free(63)
    assert api.recover(config, dependencies=dependencies).state is ReportState.SAFE_MODE
    free(64)
    status = api.recover(config, dependencies=dependencies)
    assert (status.state, status.phase, status.current) == (ReportState.HEALTHY, "steady", v1)


@pytest.mark.parametrize(("mib", "state"), [(16, ReportState.HEALTHY), (15, ReportState.SAFE_MODE)])
def test_the_floor_of_free_space(  # noqa: PLR0917  fixtures
    fleet: Fleet,
    root: Path,
    dependencies: Dependencies,
    monkeypatch: pytest.MonkeyPatch,
    mib: int,
    state: ReportState,
) -> None:
    config = fleet.config(root)
    fleet.on_v1(config, dependencies)
    monkeypatch.setattr(disk_space, "free_bytes", lambda _: mib * MIB)
    assert api.recover(config, dependencies=dependencies).state is state


def test_release_that_cannot_be_made_again_is_safe_mode(
    fleet: Fleet, root: Path, dependencies: Dependencies
) -> None:
    config = fleet.config(root)
    fleet.on_v1(config, dependencies)
    for gone in ("releases", "git", "content", "state/stacks"):
        shutil.rmtree(root / gone)
    world = root / "state" / "simulated.json"
    world.write_text(json.dumps({**json.loads(world.read_text()), "containers": {}}))
    status = api.recover(config, dependencies=dependencies)
    assert (status.state, status.error_kind) == (ReportState.SAFE_MODE, "role_missing")
    # A fix is still accepted, and is the way out.
    status = api.converge(config, fleet.directive(fleet.release("v2")), dependencies=dependencies)
    assert (status.state, status.current) == (ReportState.HEALTHY, fleet.release("v2"))


#: What no further try mends.
CRITICAL = ("state_corrupt", "role_missing", "role_invalid", "compose_invalid", "commit_missing")


def test_the_critical_errors_are_safe_mode_at_once_and_no_others(
    fleet: Fleet, root: Path, dependencies: Dependencies, monkeypatch: pytest.MonkeyPatch
) -> None:
    """And only where nothing runs: a release that does is left alone, although it could not be made again."""
    config = fleet.config(root)
    fleet.on_v1(config, dependencies)
    world = root / "state" / "simulated.json"
    running = world.read_text()
    worlds = {
        "runs": running,
        "ended": running.replace('"behavior":""', '"behavior":"crash"'),
        "gone": json.dumps({**json.loads(running), "containers": {}}),
    }
    states: dict[tuple[str, str], ReportState] = {}
    for kind, what in itertools.product(Kind, worlds):
        world.write_text(worlds[what])

        def fail(*_: object, kind: Kind = kind) -> NoReturn:
            raise StateError(kind, f"It cannot be started: {kind}.")

        with monkeypatch.context() as patch:
            patch.setattr(repair, "restore_stack", fail)
            status = api.recover(config, dependencies=dependencies)
        assert status.error_kind == kind
        states[kind.value, what] = status.state
        if status.state is ReportState.SAFE_MODE:
            assert api.leave_safe_mode(config, dependencies=dependencies).state is ReportState.HEALTHY
    assert {at for at, state in states.items() if state is ReportState.SAFE_MODE} == {
        (kind, what) for kind in CRITICAL for what in ("ended", "gone")
    }
    assert set(states.values()) == {ReportState.SAFE_MODE, ReportState.DEGRADED}


def test_release_that_does_not_stay_up_is_safe_mode_after_three_tries(
    fleet: Fleet, root: Path, dependencies: Dependencies
) -> None:
    """It was well in probation and dies each time later, and its image is gone too."""
    config = fleet.config(root)
    api.converge(config, fleet.directive(fleet.release("tired", "crash-later=40")), dependencies=dependencies)
    world = root / "state" / "simulated.json"
    states = []
    for _ in range(3):
        broken = json.loads(world.read_text())
        for container in broken["containers"]["fleet"].values():
            container["behavior"] = "crash"
        broken["images"] = []
        broken["absent_images"] = ["busybox:stable"]
        world.write_text(json.dumps(broken))
        status = api.recover(config, dependencies=dependencies)
        states.append(status.state)
    assert states == [ReportState.DEGRADED, ReportState.DEGRADED, ReportState.SAFE_MODE]
    assert status.reason.startswith("Safe mode: the release failed to start 3 times in a row.")


def test_ordered_safe_mode_is_not_left_for_the_same_release_but_for_a_fix(
    fleet: Fleet, root: Path, dependencies: Dependencies
) -> None:
    config, v1, v2 = fleet.config(root), fleet.release("v1"), fleet.release("v2")
    fleet.on_v1(config, dependencies)
    api.enter_safe_mode(config, reason="a look at the wiring", dependencies=dependencies)
    status = api.converge(config, fleet.directive(v1), dependencies=dependencies)
    assert (status.state, status.services) == (ReportState.SAFE_MODE, ())
    assert status.reason == "Safe mode: a look at the wiring."
    status = api.converge(config, fleet.directive(v2), dependencies=dependencies)
    assert (status.state, status.current) == (ReportState.HEALTHY, v2)


def test_leaving_starts_what_was_committed_last(fleet: Fleet, root: Path, dependencies: Dependencies) -> None:
    config, v1 = fleet.config(root), fleet.release("v1")
    fleet.on_v1(config, dependencies)
    api.enter_safe_mode(config, dependencies=dependencies)
    status = api.leave_safe_mode(config, dependencies=dependencies)
    assert (status.state, status.current, status.previous) == (ReportState.HEALTHY, v1, None)


# The mark by which systemd opens the rescue access


def test_the_mark_is_there_exactly_while_in_safe_mode(
    fleet: Fleet, root: Path, dependencies: Dependencies
) -> None:
    config = fleet.config(root)
    fleet.on_v1(config, dependencies)
    assert not config.paths.in_safe_mode.exists()
    api.enter_safe_mode(config, dependencies=dependencies)
    assert config.paths.in_safe_mode.stat().st_mode & 0o777 == 0o600
    api.recover(config, dependencies=dependencies)
    assert config.paths.in_safe_mode.exists()
    api.leave_safe_mode(config, dependencies=dependencies)
    assert not config.paths.in_safe_mode.exists()


def test_the_mark_goes_with_the_update_that_works(
    fleet: Fleet, root: Path, dependencies: Dependencies
) -> None:
    config = fleet.config(root)
    api.converge(
        config, fleet.directive(fleet.release("crashes", "crash-later=2")), dependencies=dependencies
    )
    assert config.paths.in_safe_mode.exists()
    api.converge(config, fleet.directive(fleet.release("v1")), dependencies=dependencies)
    assert not config.paths.in_safe_mode.exists()


def test_the_mark_follows_a_full_disk_both_ways(
    fleet: Fleet, root: Path, dependencies: Dependencies, monkeypatch: pytest.MonkeyPatch
) -> None:
    config = fleet.config(root, min_free_bytes=64 * MIB)
    fleet.on_v1(config, dependencies)
    for mib, there in ((15, True), (64, False)):
        monkeypatch.setattr(disk_space, "free_bytes", lambda _, mib=mib: mib * MIB)
        api.recover(config, dependencies=dependencies)
        assert config.paths.in_safe_mode.exists() is there


def test_the_mark_is_made_before_docker_is_asked_for_anything(
    fleet: Fleet, root: Path, dependencies: Dependencies
) -> None:
    """A Docker that hangs or is gone must not keep the person out who comes for its sake."""
    config = fleet.config(root)
    fleet.on_v1(config, dependencies)
    world = root / "state" / "simulated.json"
    world.write_text(json.dumps({**json.loads(world.read_text()), "down": True}))
    with pytest.raises(ContainerError) as caught:
        api.enter_safe_mode(config, dependencies=dependencies)
    assert caught.value.kind == Kind.DOCKER_UNAVAILABLE
    assert config.paths.in_safe_mode.exists()


def test_a_mark_that_was_removed_or_left_behind_is_put_right_at_the_next_look(
    fleet: Fleet, root: Path, dependencies: Dependencies
) -> None:
    config = fleet.config(root)
    fleet.on_v1(config, dependencies)
    config.paths.in_safe_mode.write_text("")
    api.recover(config, dependencies=dependencies)
    assert not config.paths.in_safe_mode.exists()
    api.enter_safe_mode(config, dependencies=dependencies)
    config.paths.in_safe_mode.unlink()
    api.recover(config, dependencies=dependencies)
    assert config.paths.in_safe_mode.exists()


def test_the_page_and_the_report_say_whether_ssh_is_open(
    fleet: Fleet, root: Path, dependencies: Dependencies
) -> None:
    page = root / "state/safe-mode/public/status.json"
    for access, on_the_page, told in (
        (None, "off", "Safe mode: a look."),
        (
            ACCESS,
            f"ssh is open on port 2222 for root with the keys in {KEYS}",
            f"Safe mode: a look. Meanwhile ssh is open on port 2222 for root with the keys in {KEYS}.",
        ),
    ):
        config = fleet.config(root, rescue_access=access)
        assert (
            "ssh"
            not in api.converge(
                config, fleet.directive(fleet.release("v1")), dependencies=dependencies
            ).reason
        )
        status = api.enter_safe_mode(config, reason="a look", dependencies=dependencies)
        assert json.loads(page.read_text())["rescue_access"] == on_the_page
        assert status.reason == told
        assert "ssh" not in api.leave_safe_mode(config, dependencies=dependencies).reason


def test_in_safe_mode_looking_writes_nothing(fleet: Fleet, root: Path, dependencies: Dependencies) -> None:
    config = fleet.config(root)
    fleet.on_v1(config, dependencies)
    api.enter_safe_mode(config, dependencies=dependencies)

    def files() -> dict[Path, tuple[int, int]]:
        state = root / "state"
        return {p: (p.stat().st_ino, p.stat().st_mtime_ns) for p in state.rglob("*") if p.name[0] != "."}

    # The lock names its holder, the simulated containers are no file of a device.
    own = {"converge.lock", "simulated.json"}
    before = {path: seen for path, seen in files().items() if path.name not in own and path.is_file()}
    api.recover(config, dependencies=dependencies)
    assert {path: seen for path, seen in files().items() if path in before} == before


# A journal that is lost


def _lose_journal(root: Path) -> None:
    (root / "state" / "journal.json").write_bytes(b"\0" * 100)


@pytest.mark.parametrize("beside", [False, True])
def test_safe_mode_outlives_a_lost_journal(
    fleet: Fleet, root: Path, dependencies: Dependencies, beside: bool
) -> None:
    """Whoever came in by the rescue access is not thrown out, and what was stopped is not started."""
    config, v1, v2 = fleet.config(root, safe_mode_after=1), fleet.release("v1"), fleet.release("v2")
    fleet.on_v1(config, dependencies)
    if beside:
        bad = fleet.release("bad-crash", "crash")
        assert (
            api.converge(config, fleet.directive(bad), dependencies=dependencies).state
            is ReportState.SAFE_MODE
        )
    else:
        api.enter_safe_mode(config, dependencies=dependencies)
    _lose_journal(root)
    status = api.recover(config, dependencies=dependencies)
    assert (status.state, status.phase, status.current) == (ReportState.SAFE_MODE, "safe_mode", v1)
    assert status.reason == "Safe mode: the agent's journal was lost, and the reason with it."
    assert {service.state for service in status.services} == ({"running"} if beside else set())
    assert config.paths.in_safe_mode.exists()
    status = api.converge(config, fleet.directive(v2), dependencies=dependencies)
    assert (status.state, status.current) == (ReportState.HEALTHY, v2)


def test_a_lost_journal_without_any_release_stays_safe_mode(
    fleet: Fleet, root: Path, dependencies: Dependencies
) -> None:
    config, bad = fleet.config(root), fleet.release("bad-crash", "crash")
    api.converge(config, fleet.directive(bad), dependencies=dependencies)
    _lose_journal(root)
    status = api.converge(config, fleet.directive(bad), dependencies=dependencies)
    assert (status.state, status.phase, status.current) == (ReportState.SAFE_MODE, "safe_mode", None)
    assert "no release is known to have worked here" in status.reason


def test_a_lost_journal_is_written_again_at_the_next_look(
    fleet: Fleet, root: Path, dependencies: Dependencies
) -> None:
    """Who only looks, like `fleet-agent status`, reads the file."""
    config, v1 = fleet.config(root), fleet.release("v1")
    fleet.on_v1(config, dependencies)
    _lose_journal(root)
    api.recover(config, dependencies=dependencies)
    assert api.status(config).current == v1
