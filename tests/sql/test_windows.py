"""Maintenance windows: when a device may start, and what it may fetch before. Time is passed in."""

from __future__ import annotations

import pytest

from tests.support.identities import DEVICE, V1, V2, Fleet, detail, gates
from tests.support.profiles import OLDER_SERVER_IN_FULL
from tests.support.rollout_builders import (
    ask,
    roll_out,
    window,
)

pytestmark = OLDER_SERVER_IN_FULL


@pytest.mark.parametrize(
    ("at", "verdict"),
    [
        ("2026-06-10 23:59:59Z", "wait"),
        ("2026-06-11 00:00:00Z", "pass"),  # 02:00 in Rome
        ("2026-06-11 01:59:59Z", "pass"),
        ("2026-06-11 02:00:00Z", "wait"),
    ],
)
def test_an_update_starts_only_inside_the_window(fleet: Fleet, at: str, verdict: str) -> None:
    window(fleet, "daily", "02:00", 120)
    answer = fleet.explain(at=at)
    assert gates(answer)["window"] == verdict
    assert answer["action"] == ("update" if verdict == "pass" else "run")


def test_the_window_gate_says_when_it_opens_in_the_devices_own_time(fleet: Fleet) -> None:
    window(fleet, "saturday", "22:30", 60)
    answer = fleet.explain(at="2026-06-10 12:00Z")
    assert detail(answer, "window") == "Window w opens 2026-06-13 22:30 Europe/Rome."


def test_a_poll_falls_inside_the_window_by_construction(fleet: Fleet) -> None:
    window(fleet, "daily", "02:00", 5)
    fleet.sql("update public.devices set poll_interval_s = 86400 where id = %s", DEVICE)
    poll = fleet.explain(at="2026-06-10 20:00Z")["next_poll_s"]
    assert 4 * 3600 < poll <= 4 * 3600 + 5 * 60


@pytest.mark.parametrize("set_aside", [False, True])
def test_a_device_that_polls_once_a_week_still_polls_in_every_opening(fleet: Fleet, set_aside: bool) -> None:
    """Also when it asks while the window is open, or does not count."""
    window(fleet, "daily", "02:00", 60, "UTC")
    window(fleet, "daily", "14:00", 60, "UTC")
    at = "2026-06-10 12:00Z" if set_aside else "2026-06-10 02:30Z"
    fleet.sql(
        "update public.devices set poll_interval_s = 604800, ignore_window_until = %s where id = %s",
        "2026-06-10 13:00Z" if set_aside else None, DEVICE,
    )  # fmt: skip
    answer = fleet.explain(at=at)
    assert gates(answer)["window"] == "pass"
    until_it_opens = 2 * 3600 if set_aside else 11 * 3600 + 1800
    assert until_it_opens < answer["next_poll_s"] <= until_it_opens + 121


@pytest.mark.parametrize(
    ("days", "at", "opens"),
    [
        ("weekdays", "2026-06-12 12:00Z", "2026-06-15 02:00"),
        ("weekends", "2026-06-12 12:00Z", "2026-06-13 02:00"),
        ("sunday", "2026-06-14 00:00Z", None),
        # Spring: 02:00 is skipped on 2026-03-29; it opens at 03:00 summer time.
        ("daily", "2026-03-28 12:00Z", "2026-03-29 03:00"),
        # Autumn: 02:00 comes twice on 2026-10-25; the second one counts.
        ("daily", "2026-10-25 00:30Z", "2026-10-25 02:00"),
    ],
)
def test_days_and_the_two_odd_nights_follow_the_written_rules(
    fleet: Fleet, days: str, at: str, opens: str | None
) -> None:
    window(fleet, days, "02:00", 60)
    answer = fleet.explain(at=at)
    if opens is None:
        assert gates(answer)["window"] == "pass"
    else:
        assert detail(answer, "window") == f"Window w opens {opens} Europe/Rome."


def test_autumns_window_is_open_once_not_twice(fleet: Fleet) -> None:
    window(fleet, "daily", "02:00", 60)
    verdicts = [gates(fleet.explain(at=f"2026-10-25 {hour}:30Z"))["window"] for hour in ("00", "01", "02")]
    assert verdicts == ["wait", "pass", "wait"]


def test_a_window_may_reach_past_midnight_and_a_device_may_have_several(fleet: Fleet) -> None:
    window(fleet, "friday", "23:00", 180, "UTC")
    window(fleet, "monday", "05:00", 60, "UTC")
    assert gates(fleet.explain(at="2026-06-13 01:59Z"))["window"] == "pass"
    assert gates(fleet.explain(at="2026-06-13 02:00Z"))["window"] == "wait"
    assert gates(fleet.explain(at="2026-06-15 05:30Z"))["window"] == "pass"


def test_the_segments_window_holds_where_the_device_has_none(fleet: Fleet) -> None:
    window(fleet, "daily", "02:00", 60, "UTC")
    fleet.sql("update public.devices set maintenance_window = null where id = %s", DEVICE)
    fleet.messages()
    fleet.sql("update public.segments set maintenance_window = 'w' where name = 'canary'", who="operator")
    assert fleet.woken() == {"segment:canary": "window_changed"}
    assert gates(fleet.explain(at="2026-06-13 12:00Z"))["window"] == "wait"


def test_a_window_without_openings_never_opens(fleet: Fleet) -> None:
    fleet.sql("insert into public.maintenance_windows (name) values ('empty')")
    fleet.sql("update public.devices set maintenance_window = 'empty' where id = %s", DEVICE)
    assert (
        detail(fleet.explain(), "window")
        == "Window empty never opens: it has no row in maintenance_openings."
    )


def test_an_update_under_way_is_not_stopped_by_a_window_that_closes(fleet: Fleet) -> None:
    roll_out(fleet)
    ask(fleet)
    fleet.sql(
        "insert into public.device_status (device_id, state, target_release) values (%s, 'updating', %s)",
        DEVICE, V2, who="device",
    )  # fmt: skip
    window(fleet, "daily", "02:00", 60, "UTC")
    answer = fleet.explain(at="2026-06-13 12:00Z")
    assert (answer["action"], gates(answer)["window"]) == ("update", "pass")


@pytest.mark.parametrize(("at", "action"), [("2026-06-13 11:59Z", "update"), ("2026-06-13 12:00Z", "run")])
def test_a_window_can_be_set_aside_for_a_time(fleet: Fleet, at: str, action: str) -> None:
    window(fleet, "daily", "02:00", 60, "UTC")
    fleet.messages()
    fleet.sql(
        # As the owner: for people, this time has passed.
        "update public.devices set ignore_window_until = '2026-06-13 12:00Z' where id = %s",
        DEVICE,
    )
    assert fleet.woken() == {f"device:{DEVICE}": "device_changed"}
    answer = fleet.explain(at=at)
    assert answer["action"] == action
    if action == "update":
        assert detail(answer, "window") == "Window w is ignored until 2026-06-13 12:00 UTC."
    assert fleet.one(
        "select after ? 'ignore_window_until' from public.audit_log where table_name = 'devices' order by id desc limit 1"
    )


# Download now, apply in the window


@pytest.fixture
def shut(fleet: Fleet) -> str:
    """A window that lets devices download ahead, and an instant at which it is shut."""
    window(fleet, "daily", "02:00", 60, "UTC")
    fleet.sql("update public.maintenance_windows set prefetch = true where name = 'w'", who="operator")
    return "2026-06-13 12:00Z"


def test_outside_of_the_window_a_release_is_only_prefetched(fleet: Fleet, shut: str) -> None:
    fleet.report(V1)
    roll_out(fleet, max_in_flight=1)
    answer = fleet.explain(at=shut)
    assert (answer["action"], answer["release"]["id"], answer["blocked_by"]) == ("run", str(V1), ["window"])
    assert set(answer["prefetch"]) == set(answer["release"])
    assert answer["prefetch"]["id"] == str(V2)


def test_devices_of_the_window_are_woken_when_they_may_prefetch(fleet: Fleet, shut: str) -> None:
    fleet.sql("update public.devices set maintenance_window = null where id = %s", DEVICE)
    fleet.sql("update public.segments set maintenance_window = 'w' where name = 'canary'")
    fleet.messages()
    fleet.sql("update public.maintenance_windows set prefetch = false where name = 'w'", who="operator")
    assert fleet.woken() == {f"device:{DEVICE}": "window_changed"}
    fleet.sql("update public.maintenance_windows set description = 'x' where name = 'w'", who="operator")
    assert fleet.woken() == {}


def test_prefetching_takes_no_slot(fleet: Fleet, shut: str) -> None:
    roll_out(fleet, max_in_flight=1)
    fleet.sql(
        "update public.maintenance_openings set starts_at = (now() at time zone 'UTC' + interval '5 hours')::time"
    )
    assert ask(fleet)["prefetch"]["id"] == str(V2)
    assert fleet.sql("select * from public.rollout_claims") == []
    assert fleet.sql("select * from private.rollout_queue") == []


def test_inside_of_the_window_nothing_is_left_to_prefetch(fleet: Fleet, shut: str) -> None:
    answer = fleet.explain(at="2026-06-13 02:10Z")
    assert (answer["action"], answer["prefetch"]) == ("update", None)


def test_the_segments_window_prefetches_too(fleet: Fleet, shut: str) -> None:
    fleet.sql("update public.devices set maintenance_window = null where id = %s", DEVICE)
    fleet.sql("update public.segments set maintenance_window = 'w' where name = 'canary'")
    assert fleet.explain(at=shut)["prefetch"]["id"] == str(V2)


@pytest.mark.parametrize(
    "edit",
    [
        "update public.maintenance_windows set prefetch = false",
        "delete from public.maintenance_openings",
        "insert into public.halts (reason) values ('smoke')",
        "insert into public.halts (scope, target, reason) select 'release', id::text, 'smoke' from public.releases where version = 'v2'",
        "update public.devices set hold = true",
        "insert into public.known_bad_releases (device_id, release_id) select d.id, r.id from public.devices d, public.releases r where r.version = 'v2'",
    ],
)
def test_nothing_is_prefetched_that_anything_but_the_window_holds_up(
    fleet: Fleet, shut: str, edit: str
) -> None:
    fleet.sql(edit)
    answer = fleet.explain(at=shut)
    assert (answer["action"], answer["prefetch"]) == ("run", None)


def test_a_device_that_runs_it_prefetches_nothing(fleet: Fleet, shut: str) -> None:
    fleet.report(V2)
    assert fleet.explain(at=shut)["prefetch"] is None
