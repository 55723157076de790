"""What a person can ask about a rollout."""

from __future__ import annotations

from tests.support.identities import OTHER, V2, Fleet
from tests.support.rollout_builders import (
    ask,
    device_id,
    finish,
    make_devices,
    roll_out,
    state,
    window,
)


def test_a_preview_says_who_and_when_and_starts_nothing(fleet: Fleet) -> None:
    make_devices(fleet, 2)
    fleet.report(V2)
    window(fleet, "daily", "02:00", 60, "UTC")
    fleet.sql("update public.devices set maintenance_window = 'w', timezone = 'UTC' where id = %s", OTHER)
    draft = roll_out(fleet, {"segment": "canary", "soak_s": 3600}, {}, start=False)
    rows = fleet.sql(
        "select stage, name, already_there, to_char(earliest at time zone 'UTC', 'YYYY-MM-DD HH24:MI') "
        "from public.preview_rollout(%s, '2026-06-10 12:00Z') order by stage, name",
        draft, who="viewer",
    )  # fmt: skip
    assert rows == [
        (1, "device", True, None),
        (2, "bulk1", False, "2026-06-10 13:00"),
        (2, "bulk2", False, "2026-06-10 13:00"),
        (2, "other", False, "2026-06-11 02:00"),
    ]
    assert (state(fleet, draft), fleet.one("select count(*) from public.rollout_claims")) == ("draft", 0)


def test_a_preview_knows_of_a_window_that_is_set_aside(fleet: Fleet) -> None:
    window(fleet, "daily", "02:00", 60, "UTC")
    draft = roll_out(fleet, {"segment": "canary"}, start=False)
    for until, earliest in (("13:00", "10 12:00"), ("12:00", "11 02:00")):
        fleet.sql("update public.devices set ignore_window_until = %s", f"2026-06-10 {until}Z")
        (row,) = fleet.sql(
            "select to_char(earliest at time zone 'UTC', 'DD HH24:MI') from public.preview_rollout(%s, '2026-06-10 12:00Z')",
            draft, who="viewer",
        )  # fmt: skip
        assert row[0] == earliest


def test_progress_counts_what_is_there(fleet: Fleet) -> None:
    make_devices(fleet, 4)
    rollout = roll_out(fleet, {"segment": "canary"}, {"min_attempted": 5, "max_in_flight": 2})
    ask(fleet)
    finish(fleet, rollout)
    for n in range(1, 4):
        ask(fleet, device_id(fleet, f"bulk{n}"))
    finish(fleet, rollout, device_id(fleet, "bulk1"))
    progress = fleet.one("select public.rollout_progress(%s)", rollout, who="viewer")
    assert (progress["devices"], progress["on_release"], progress["in_flight"], progress["succeeded"]) == (
        6,
        2,
        1,
        2,
    )
    assert [s["devices"] for s in progress["stages"]] == [1, 5]
    assert progress["stages"][1]["offline"] == 3
    assert progress["summary"] == "Running: 2 of 6 devices run v2; 1 in flight, 0 failed."


def test_operators_see_a_rollout_move_live(fleet: Fleet) -> None:
    fleet.messages()
    roll_out(fleet)
    events = {event for _, event, _ in fleet.messages("fleet")}
    assert {"rollouts", "rollout_stages"} <= events
