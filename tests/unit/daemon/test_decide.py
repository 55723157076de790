"""What to do next: pure decisions."""

from __future__ import annotations

from typing import Any
from uuid import uuid4

import pytest

from fleet_agent.config import DeviceConfig
from fleet_agent.daemon import decide, settings
from fleet_agent.daemon.decide import Converge, Finish, Stay
from fleet_agent.model import Directive, EngineStatus
from tests.support.device import Device

V1 = {"id": str(uuid4()), "commit_sha": "1" * 40, "version": "1", "branch": "main"}
V2 = {"id": str(uuid4()), "commit_sha": "2" * 40, "version": "2", "branch": "main"}


def engine(**changes: Any) -> EngineStatus:
    return EngineStatus.model_validate(
        {"state": "healthy", "phase": "steady", "role": "beacon", "current": V1, **changes}
    )


@pytest.fixture
def asks(device: Device) -> Any:
    return lambda **changes: Directive.model_validate(device.directive(**changes))


@pytest.mark.parametrize("action", ["run", "hold"])
def test_run_and_hold_change_nothing_whatever_release_they_name(asks: Any, action: str) -> None:
    assert isinstance(decide.next_step(asks(action=action, release=V2), engine()), Stay)


def test_the_first_gate_that_does_not_pass_is_the_reason(asks: Any) -> None:
    gates = [
        {"gate": "pin", "verdict": "pass", "detail": "not pinned"},
        {"gate": "window", "verdict": "wait", "detail": "opens 02:00"},
        {"gate": "halt", "verdict": "refuse", "detail": "halted"},
    ]
    assert decide.next_step(asks(gates=gates), engine()) == Stay("window: opens 02:00")


SHUT = [{"gate": "window", "verdict": "wait", "detail": "Window nights opens 2026-11-27 02:00 UTC."}]


def ahead(*, ready: bool, again: bool = False, **changes: Any) -> dict[str, Any]:
    return {"release": V2, "role": "beacon", "ready": ready, "again": again, **changes}


@pytest.mark.parametrize("found", [None, ahead(ready=False, again=True), ahead(ready=True, release=V1)])
def test_what_only_the_window_keeps_away_is_prefetched(asks: Any, found: Any) -> None:
    directive = asks(prefetch=V2, gates=SHUT)
    assert decide.next_step(directive, engine(prefetch=found)) == Converge(directive, "prefetching 2")


def test_what_is_ready_waits_for_the_window(asks: Any) -> None:
    step = decide.next_step(asks(prefetch=V2, gates=SHUT), engine(prefetch=ahead(ready=True)))
    assert step == Stay(
        "2 is ready; it will be applied when the window opens "
        "(window: Window nights opens 2026-11-27 02:00 UTC)"
    )


def test_what_cannot_be_made_ready_is_not_tried_at_each_poll(asks: Any) -> None:
    directive, failed = asks(prefetch=V2), engine(prefetch=ahead(ready=False))
    assert decide.next_step(directive, failed) == Stay(
        "2 was not prefetched; it will be fetched when the window opens"
    )
    assert isinstance(decide.next_step(directive, failed, operator_requested=True), Converge)


def test_another_role_is_prefetched_anew(asks: Any) -> None:
    found = ahead(ready=True, role="gateway")
    assert isinstance(decide.next_step(asks(prefetch=V2), engine(prefetch=found)), Converge)


def test_on_hold_nothing_is_prefetched(asks: Any) -> None:
    assert isinstance(decide.next_step(asks(action="hold", prefetch=V2), engine()), Stay)


def test_what_runs_is_not_prefetched(asks: Any) -> None:
    assert decide.next_step(asks(prefetch=V1), engine()) == Stay("already on 1")


def test_another_release_is_converged_to(asks: Any) -> None:
    directive = asks(action="update", release=V2)
    assert decide.next_step(directive, engine()) == Converge(directive, "to 2")


def test_the_release_that_runs_is_left_alone(asks: Any) -> None:
    assert decide.next_step(asks(action="update", release=V1), engine()) == Stay("already on 1")


@pytest.mark.parametrize(
    "changed",
    [
        pytest.param({"role": "gateway"}, id="another role runs"),
        pytest.param({"current": None, "role": None}, id="nothing runs"),
        pytest.param({"state": "safe_mode", "phase": "safe_mode"}, id="in safe mode a fix is accepted"),
        pytest.param({"current": {**V1, "id": str(uuid4())}}, id="the same commit under another row"),
    ],
)
def test_the_same_commit_is_converged_to_again_when(asks: Any, changed: dict[str, Any]) -> None:
    step = decide.next_step(asks(action="update", release=V1), engine(**changed))
    assert isinstance(step, Converge)


def test_an_update_without_a_release_changes_nothing(asks: Any) -> None:
    assert isinstance(decide.next_step(asks(action="update"), engine()), Stay)


def test_a_rollback_without_a_release_changes_nothing(asks: Any) -> None:
    """It would go back and forth at every poll."""
    assert isinstance(decide.next_step(asks(action="rollback"), engine()), Stay)


def test_a_rollback_goes_to_the_release_it_names(asks: Any) -> None:
    directive = asks(action="rollback", release=V2)
    assert decide.next_step(directive, engine()) == Converge(directive, "back to 2")


def test_safe_mode_is_entered_once(asks: Any) -> None:
    directive = asks(action="safe_mode")
    assert isinstance(decide.next_step(directive, engine()), Converge)
    assert isinstance(decide.next_step(directive, engine(state="safe_mode", phase="safe_mode")), Stay)


@pytest.mark.parametrize("action", ["run", "hold", "update", "rollback", "safe_mode"])
@pytest.mark.parametrize("phase", ["fetching", "swapping", "probation", "recording"])
def test_an_unfinished_attempt_comes_before_whatever_is_asked(asks: Any, action: str, phase: str) -> None:
    assert isinstance(decide.next_step(asks(action=action, release=V2), engine(phase=phase)), Finish)


def test_what_an_operator_asked_is_passed_on(asks: Any) -> None:
    step = decide.next_step(asks(action="update", release=V2), engine(), operator_requested=True)
    assert isinstance(step, Converge)
    assert step.operator_requested


@pytest.mark.parametrize(
    ("pinned", "asked", "interval"), [(60, 900, 60), (None, 300, 300), (None, None, 900), (5, None, 5)]
)
def test_the_devices_own_pin_wins_over_the_servers_interval(
    asks: Any, pinned: int | None, asked: int | None, interval: float
) -> None:
    directive = asks(action="run", next_poll_s=asked) if asked is not None else None
    found = settings.in_effect(_config(poll_interval_s=pinned), directive)
    assert found.poll_interval_s == interval
    assert ("poll_interval_s" in found.pinned) is (pinned is not None)


def test_labels_of_the_server_are_merged_below_the_devices_own(asks: Any) -> None:
    directive = asks(action="run", config={"labels": {"site": "rome", "floor": "2"}})
    found = settings.in_effect(_config(labels={"site": "milan", "rack": "b"}), directive)
    assert found.labels == {"site": "milan", "floor": "2", "rack": "b"}
    assert found.pinned == ("labels.rack", "labels.site")


def _config(**changes: Any) -> DeviceConfig:
    required = {
        "api_url": "http://a.test",
        "publishable_key": "sb_publishable_x",
        "git_url": "/g",
        "verify_signatures": False,
    }
    return DeviceConfig.model_validate({**required, **changes})


def test_polls_are_spread_by_a_fifth_both_ways() -> None:
    bounds: list[tuple[float, float]] = []

    def uniform(low: float, high: float) -> float:
        bounds.append((low, high))
        return high

    assert decide.poll_wait_s(900, uniform) == 1080
    assert bounds == [(0.8, 1.2)]


@pytest.mark.parametrize(("failures", "most"), [(1, 15), (2, 30), (4, 120), (7, 900), (500, 900)])
def test_failures_wait_longer_each_time_but_never_longer_than_a_poll(failures: int, most: float) -> None:
    assert decide.failure_wait_s(failures, 900, lambda _low, high: high) == most
    assert decide.failure_wait_s(failures, 900, lambda low, _high: low) == most / 2


def test_a_wake_waits_a_random_part_of_its_spread() -> None:
    assert decide.wake_wait_s(30, lambda low, high: (low + high) / 2) == 15


@pytest.mark.parametrize(
    ("changed", "since", "due"),
    [
        (True, 0.0, True),
        (False, None, True),
        (False, 899 * decide.HEARTBEAT_INTERVALS, False),
        (False, 900 * decide.HEARTBEAT_INTERVALS, True),
    ],
)
def test_a_report_is_due_when_something_changed_or_the_slow_heartbeat_is(
    changed: bool, since: float | None, due: bool
) -> None:
    assert decide.report_is_due(changed=changed, since_last_s=since, interval_s=900) is due
