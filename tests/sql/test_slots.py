"""Slots: caps, rates, leases and three ways to be out of touch. Time is passed in."""

from __future__ import annotations

from typing import Any

import pytest

from tests.support.identities import DEVICE, OTHER, V1, V2, Fleet, gates
from tests.support.profiles import OLDER_SERVER_IN_FULL
from tests.support.rollout_builders import (
    ask,
    check_counters,
    device_id,
    finish,
    make_devices,
    roll_out,
    tick,
)

pytestmark = OLDER_SERVER_IN_FULL

# Slots


@pytest.mark.parametrize(("limit", "where"), [(2, "rollout"), (2, "stage"), (2, "fleet")])
def test_no_more_devices_are_in_flight_than_allowed(fleet: Fleet, limit: int, where: str) -> None:
    make_devices(fleet, 4)
    stage: dict[str, Any] = {"max_in_flight": limit} if where == "stage" else {}
    options: dict[str, Any] = {"max_in_flight": limit} if where == "rollout" else {}
    if where == "fleet":
        fleet.sql("update public.fleet_settings set max_in_flight = %s where id", limit, who="admin")
    rollout = roll_out(fleet, stage, **options)
    devices = [device_id(fleet, f"bulk{n}") for n in range(1, 5)]
    answers = [ask(fleet, device) for device in devices]
    assert [a["action"] for a in answers] == ["update", "update", "run", "run"]
    assert gates(answers[2])["slot"] == "wait"
    # Asking again keeps the slot.
    assert ask(fleet, devices[0])["action"] == "update"
    assert fleet.one("select count(*) from public.rollout_claims") == limit
    finish(fleet, rollout, devices[0])
    assert ask(fleet, devices[2])["action"] == "update"
    assert ask(fleet, devices[3])["action"] == "run"
    check_counters(fleet)


def test_the_first_in_line_is_woken_when_a_slot_is_free(fleet: Fleet) -> None:
    make_devices(fleet, 3)
    rollout = roll_out(fleet, max_in_flight=1)
    devices = [device_id(fleet, f"bulk{n}") for n in range(1, 4)]
    for device in devices:
        ask(fleet, device)
    fleet.messages()
    finish(fleet, rollout, devices[0])
    assert fleet.woken() == {f"device:{devices[1]}": "slot_free"}


def test_starting_wakes_only_as_many_as_could_get_a_slot(fleet: Fleet) -> None:
    make_devices(fleet, 30)
    fleet.messages()
    rollout = roll_out(fleet, max_in_flight=3)
    woken = fleet.woken()
    assert len(woken) == 3
    assert set(woken.values()) == {"stage_opened"}
    rows = fleet.sql(
        "select p.device_id from public.rollouts r, private.rollout_devices(r) p where r.id = %s "
        "order by private.bucket(r.release_id, p.device_id) limit 3",
        rollout,
    )
    assert set(woken) == {f"device:{row[0]}" for row in rows}


def test_starting_without_a_limit_wakes_everybody_in_the_stage(fleet: Fleet) -> None:
    make_devices(fleet, 30)
    fleet.messages()
    roll_out(fleet, {"segment": "stable"}, {})
    assert len(fleet.woken()) == 31


def test_a_rate_lets_so_many_start_within_a_minute(fleet: Fleet) -> None:
    make_devices(fleet, 4)
    rollout = roll_out(fleet, max_per_minute=2)
    answers = [ask(fleet, device_id(fleet, f"bulk{n}")) for n in range(1, 5)]
    assert [a["action"] for a in answers] == ["update", "update", "run", "run"]
    assert 1 <= answers[2]["next_poll_s"] <= 61
    fleet.sql(
        "update public.rollout_claims set claimed_at = claimed_at - interval '61 seconds' where rollout_id = %s",
        rollout,
    )
    assert [ask(fleet, device_id(fleet, f"bulk{n}"))["action"] for n in (3, 4)] == ["update", "update"]


def test_a_device_asks_no_more_often_than_its_attempts(fleet: Fleet) -> None:
    rollout = roll_out(fleet, max_attempts=2, halt_consecutive_failures=None)
    for _ in range(2):
        assert ask(fleet)["action"] == "update"
        finish(fleet, rollout, outcome="failed")
    answer = ask(fleet)
    assert (answer["action"], gates(answer)["slot"]) == ("run", "refuse")
    check_counters(fleet)


def test_a_pinned_device_takes_no_slot(fleet: Fleet) -> None:
    roll_out(fleet, max_in_flight=1)
    fleet.sql("select public.pin_device(%s, %s)", DEVICE, V2, who="operator")
    assert ask(fleet)["action"] == "update"
    assert fleet.one("select count(*) from public.rollout_claims") == 0


# Silence


def test_three_ways_to_be_out_of_touch_differ(fleet: Fleet) -> None:
    """Never asked, asked and waiting, claimed and dark: only the last is a failure, and only after its lease."""
    rollout = roll_out(fleet, {"max_in_flight": 1}, lease_s=600)
    ask(fleet)
    ask(fleet, OTHER)
    tick(fleet, "now() + interval '599 seconds'")
    assert fleet.sql("select device_id, state::text from public.rollout_claims") == [(DEVICE, "claimed")]
    assert tick(fleet, "now() + interval '601 seconds'")["leases_expired"] == 1
    assert fleet.sql("select device_id, state::text from public.rollout_claims") == [(DEVICE, "expired")]
    progress = fleet.one("select public.rollout_progress(%s)", rollout, who="viewer")
    assert (progress["failed"], progress["in_flight"]) == (1, 0)
    check_counters(fleet)


def test_a_device_that_still_reports_keeps_its_slot(fleet: Fleet) -> None:
    roll_out(fleet, lease_s=600)
    ask(fleet)
    fleet.report(V1, state="updating")
    fleet.sql("alter table public.device_status disable trigger user")
    fleet.sql("update public.device_status set reported_at = now() + interval '500 seconds' where true")
    assert tick(fleet, "now() + interval '601 seconds'")["leases_expired"] == 0
    assert fleet.one("select state::text from public.rollout_claims") == "claimed"
    assert tick(fleet, "now() + interval '1101 seconds'")["leases_expired"] == 1


def test_a_suspended_device_gives_its_slot_back_without_blame(fleet: Fleet) -> None:
    roll_out(fleet, lease_s=600)
    ask(fleet)
    fleet.sql("update public.devices set state = 'suspended' where id = %s", DEVICE, who="operator")
    tick(fleet, "now() + interval '601 seconds'")
    assert fleet.one("select state::text from public.rollout_claims") == "released"
    check_counters(fleet)


def test_a_device_that_comes_back_after_its_lease_is_counted_by_what_it_says(fleet: Fleet) -> None:
    rollout = roll_out(fleet, lease_s=600)
    ask(fleet)
    tick(fleet, "now() + interval '601 seconds'")
    finish(fleet, rollout)
    assert fleet.one("select state::text from public.rollout_claims") == "succeeded"
    check_counters(fleet)


def test_an_outcome_for_another_commit_ends_no_claim(fleet: Fleet) -> None:
    rollout = roll_out(fleet)
    ask(fleet)
    finish(fleet, rollout, release=V1)
    assert fleet.one("select state::text from public.rollout_claims") == "claimed"
