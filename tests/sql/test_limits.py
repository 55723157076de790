"""Limits hold however a stage came to be open, and in any sixty seconds; a late row frees no slot that is in use."""

from __future__ import annotations

from typing import Any
from uuid import UUID, uuid4

import pytest

from tests.support.identities import DEVICE, OTHER, V1, V2, Fleet, detail
from tests.support.profiles import OLDER_SERVER_IN_FULL
from tests.support.rollout_builders import (
    ask,
    check_counters,
    device_id,
    finish,
    make_devices,
    roll_out,
    state,
    tick,
)

pytestmark = OLDER_SERVER_IN_FULL

OPEN = "update public.rollout_stages set opened_at = now() where rollout_id = %s and position in (2, 3)"


def added_when_completed(fleet: Fleet) -> UUID:
    rollout = roll_out(fleet, {"segment": "canary"})
    ask(fleet)
    finish(fleet, rollout)
    assert state(fleet, rollout) == "completed"
    fleet.sql(
        "insert into public.rollout_stages (rollout_id, position, segment, max_in_flight) values (%s, 2, 'early', 1)",
        rollout, who="operator",
    )  # fmt: skip
    fleet.sql(OPEN, rollout, who="operator")
    return rollout


def two_by_one_statement(fleet: Fleet) -> UUID:
    rollout = roll_out(
        fleet, {"segment": "canary"}, {"segment": "early", "max_in_flight": 1}, {"segment": "stable"}
    )
    fleet.sql(OPEN, rollout, who="operator")
    return rollout


def the_later_one_first(fleet: Fleet) -> UUID:
    rollout = roll_out(
        fleet, {"segment": "canary"}, {"segment": "early", "max_in_flight": 1}, {"segment": "stable"}
    )
    for position in (3, 2):
        fleet.sql(f"{OPEN} and position = {position}", rollout, who="operator")
    return rollout


def of_a_draft(fleet: Fleet) -> UUID:
    rollout = roll_out(
        fleet,
        {"segment": "canary"},
        {"segment": "early", "max_in_flight": 1},
        {"segment": "stable"},
        start=False,
    )
    fleet.sql(OPEN, rollout, who="operator")
    fleet.sql("select public.start_rollout(%s)", rollout, who="operator")
    return rollout


def while_paused(fleet: Fleet) -> UUID:
    rollout = roll_out(
        fleet, {"segment": "canary"}, {"segment": "early", "max_in_flight": 1}, {"segment": "stable"}
    )
    fleet.sql("select public.pause_rollout(%s)", rollout, who="operator")
    fleet.sql(OPEN, rollout, who="operator")
    fleet.sql("select public.resume_rollout(%s)", rollout, who="operator")
    return rollout


@pytest.mark.parametrize(
    "opened_by_hand",
    [added_when_completed, two_by_one_statement, the_later_one_first, of_a_draft, while_paused],
    ids=lambda way: way.__name__,
)
def test_a_stage_that_was_opened_by_hand_has_its_limits(fleet: Fleet, opened_by_hand: Any) -> None:
    make_devices(fleet, 3, "early")
    rollout = opened_by_hand(fleet)
    devices = [device_id(fleet, f"bulk{n}") for n in range(1, 4)]
    answers = [ask(fleet, device) for device in devices]
    assert [answer["action"] for answer in answers].count("update") == 1
    assert detail(answers[2], "slot") == "The only slot of stage 2 is taken."
    progress = fleet.one("select public.rollout_progress(%s)", rollout, who="viewer")
    assert (progress["in_flight"], progress["stages"][1]["in_flight"]) == (1, 1)
    finish(fleet, rollout, devices[0])
    assert ask(fleet, devices[1])["action"] == "update"
    assert ask(fleet, devices[2])["action"] == "run"
    check_counters(fleet)


def test_a_small_percentage_that_is_opened_by_hand_is_somebody(fleet: Fleet) -> None:
    make_devices(fleet, 4, "early")
    rollout = roll_out(
        fleet, {"segment": "canary"}, {"segment": "early", "percent": 0.001}, {"segment": "stable"}
    )
    fleet.sql(OPEN, rollout, who="operator")
    served = [
        n for n in range(1, 5) if ask(fleet, device_id(fleet, f"bulk{n}"))["rollout_id"] == str(rollout)
    ]
    assert len(served) == 1


def most_starts_within_a_minute(fleet: Fleet) -> int:
    most: int = fleet.one(
        "select coalesce(max(n), 0) from (select count(*) over (order by claimed_at range between current row "
        "and interval '60 seconds' following) as n from public.rollout_claims) w"
    )
    return most


def later(fleet: Fleet, seconds: float) -> None:
    """So much time goes by: every start is so much longer ago."""
    fleet.sql("update public.rollout_claims set claimed_at = claimed_at - make_interval(secs => %s)", seconds)


@pytest.mark.parametrize("steps", [[58, 3, 30], [30, 29.5, 1], [59, 0, 2, 59], [10] * 7])
def test_no_sixty_seconds_see_more_starts_than_allowed(fleet: Fleet, steps: list[float]) -> None:
    make_devices(fleet, 12)
    roll_out(fleet, max_per_minute=3)
    devices = [device_id(fleet, f"bulk{n}") for n in range(1, 13)]
    assert ask(fleet, devices[0])["action"] == "update"
    for seconds in steps:
        later(fleet, seconds)
        for device in devices[1:]:
            ask(fleet, device)
        assert most_starts_within_a_minute(fleet) <= 3
    later(fleet, 61)
    started = fleet.one("select count(*) from public.rollout_claims")
    for device in devices:
        ask(fleet, device)
    assert fleet.one("select count(*) from public.rollout_claims") == min(12, started + 3)
    check_counters(fleet)


def test_who_tries_again_at_once_is_a_start_too(fleet: Fleet) -> None:
    rollout = roll_out(fleet, max_per_minute=2)
    ask(fleet)
    finish(fleet, rollout, outcome="failed")
    answer = ask(fleet)
    assert (answer["action"], detail(answer, "slot")) == ("run", "It started less than a minute ago.")
    assert 1 < answer["next_poll_s"] <= 62
    later(fleet, 61)
    assert ask(fleet)["action"] == "update"


def test_the_next_in_line_are_woken_as_the_rate_allows(fleet: Fleet) -> None:
    make_devices(fleet, 6)
    rollout = roll_out(fleet, max_per_minute=2)
    for number in range(1, 7):
        ask(fleet, device_id(fleet, f"bulk{number}"))
    fleet.messages()
    tick(fleet)
    assert fleet.woken() == {}
    fleet.sql(
        "update public.rollout_claims set claimed_at = claimed_at - interval '61 seconds' where device_id = %s",
        device_id(fleet, "bulk1"),
    )
    tick(fleet)
    assert fleet.woken() == {f"device:{device_id(fleet, 'bulk3')}": "slot_free"}
    check_counters(fleet)
    assert state(fleet, rollout) == "running"


# Late rows


def ended(fleet: Fleet, rollout: UUID, outcome: str, finished: str) -> None:
    """A row of an attempt of DEVICE that was over at `finished`, by its clock, arrives."""
    fleet.sql(
        "insert into public.update_history (id, device_id, release_id, rollout_id, to_commit, outcome, started_at, finished_at) "
        f"values (%s, %s, %s, %s, repeat('2', 40), %s, {finished} - interval '1 minute', {finished})",
        uuid4(), DEVICE, V2, rollout, outcome, who="device",
    )  # fmt: skip


def claim(fleet: Fleet) -> tuple[Any, ...]:
    return fleet.sql(
        "select state::text, last_outcome::text from public.rollout_claims where device_id = %s", DEVICE
    )[0]


@pytest.mark.parametrize("outcome", ["failed", "succeeded", "skipped"])
def test_a_late_row_of_another_attempt_frees_no_slot_in_use(fleet: Fleet, outcome: str) -> None:
    rollout = roll_out(fleet, max_in_flight=1, lease_s=600, halt_consecutive_failures=None)
    ask(fleet)
    fleet.report(V1)
    later(fleet, 3600)
    fleet.sql("update public.rollout_claims set lease_until = now() where true")
    fleet.sql("alter table public.device_status disable trigger stamp_reported_at")
    fleet.sql("update public.device_status set reported_at = now() - interval '1 hour' where true")
    assert tick(fleet)["leases_expired"] == 1
    assert ask(fleet)["action"] == "update"
    ended(fleet, rollout, outcome, "now() - interval '30 minutes'")
    assert claim(fleet) == ("claimed", "expired" if outcome == "skipped" else outcome)
    assert ask(fleet, OTHER)["action"] == "run"
    check_counters(fleet)
    ended(fleet, rollout, "succeeded", "now()")
    assert claim(fleet) == ("succeeded", "succeeded")
    assert ask(fleet, OTHER)["action"] == "update"
    check_counters(fleet)


def test_a_late_row_frees_no_slot_while_its_device_is_on_its_way_again(fleet: Fleet) -> None:
    """Its first try failed and it began again with the same slot; then the row of the first try arrives."""
    rollout = roll_out(fleet, max_in_flight=1, halt_consecutive_failures=None)
    ask(fleet)
    later(fleet, 3600)
    fleet.sql(
        "insert into public.device_status (device_id, state, current_release, target_release) values (%s, 'updating', %s, %s)",
        DEVICE, V1, V2, who="device",
    )  # fmt: skip
    ended(fleet, rollout, "failed", "now() - interval '10 minutes'")
    assert claim(fleet) == ("claimed", "failed")
    assert ask(fleet, OTHER)["action"] == "run"
    assert fleet.one("select public.rollout_progress(%s)", rollout, who="viewer")["failed"] == 1
    check_counters(fleet)


@pytest.mark.parametrize("off", ["-40 years", "-1 day", "1 day"])
def test_a_wrong_clock_makes_no_row_late(fleet: Fleet, off: str) -> None:
    rollout = roll_out(fleet)
    ask(fleet)
    fleet.sql(
        "insert into public.device_status (device_id, state, current_release, target_release, device_time) "
        f"values (%s, 'updating', %s, %s, now() + interval '{off}')",
        DEVICE, V1, V2, who="device",
    )  # fmt: skip
    ended(fleet, rollout, "succeeded", f"now() + interval '{off}'")
    assert claim(fleet) == ("succeeded", "succeeded")


# What rollout_progress() counts


def test_progress_counts_only_devices_of_its_stages(fleet: Fleet) -> None:
    fleet.report(V2)
    fleet.report(V2, who="other device")
    rollout = roll_out(fleet, {"segment": "canary"})
    progress = fleet.one("select public.rollout_progress(%s)", rollout, who="viewer")
    assert (progress["devices"], progress["on_release"]) == (1, 1)
    assert "1 of 1 device on v2" in progress["summary"]
