"""Stages and percentages: who is served when, and why a stage is shut. Time is passed in."""

from __future__ import annotations

from uuid import UUID

import pytest

from tests.support.identities import OTHER, V1, V2, Fleet, detail
from tests.support.profiles import OLDER_SERVER_IN_FULL
from tests.support.rollout_builders import (
    ask,
    check_counters,
    device_id,
    finish,
    make_devices,
    opened,
    roll_out,
    state,
    tick,
)

pytestmark = OLDER_SERVER_IN_FULL

# Stages


def test_only_the_open_stage_is_served(fleet: Fleet) -> None:
    rollout = roll_out(fleet, {"segment": "canary"}, {})
    answer = ask(fleet)
    assert (answer["action"], answer["rollout_id"], answer["release"]["id"]) == (
        "update",
        str(rollout),
        str(V2),
    )
    waiting = ask(fleet, OTHER)
    assert (waiting["release"]["id"], waiting["rollout_id"]) == (str(V1), None)
    assert detail(waiting, "stage") == (
        "v2 is being rolled out, but stage 2 is not open yet: stage 1 is not proved (0 of 1 device attempted it)."
    )


def test_a_proved_stage_opens_the_next_at_once_when_nothing_soaks(fleet: Fleet) -> None:
    rollout = roll_out(fleet, {"segment": "canary"}, {})
    ask(fleet)
    assert opened(fleet, rollout) == [1]
    finish(fleet, rollout)
    assert opened(fleet, rollout) == [1, 2]
    assert ask(fleet, OTHER)["action"] == "update"
    finish(fleet, rollout, OTHER)
    assert state(fleet, rollout) == "completed"
    check_counters(fleet)


@pytest.mark.parametrize(("seconds", "stages"), [(599, [1]), (601, [1, 2])])
def test_a_stage_soaks_before_the_next_opens(fleet: Fleet, seconds: int, stages: list[int]) -> None:
    rollout = roll_out(fleet, {"segment": "canary", "soak_s": 600}, {})
    ask(fleet)
    finish(fleet, rollout)
    assert opened(fleet, rollout) == [1]
    tick(fleet, f"now() + interval '{seconds} seconds'")
    assert opened(fleet, rollout) == stages


@pytest.mark.parametrize(("succeeded", "stages"), [(8, [1]), (9, [1, 2])])
def test_a_stage_needs_its_success_ratio(fleet: Fleet, succeeded: int, stages: list[int]) -> None:
    make_devices(fleet, 10, "early")
    rollout = roll_out(
        fleet, {"segment": "early", "min_attempted": 10, "min_success_ratio": 0.9}, {},
        halt_failure_ratio=None, halt_consecutive_failures=None,
    )  # fmt: skip
    for n in range(1, 11):
        device = device_id(fleet, f"bulk{n}")
        ask(fleet, device)
        finish(fleet, rollout, device, "succeeded" if n <= succeeded else "rolled_back")
    assert opened(fleet, rollout) == stages


def test_a_stage_needs_its_minimum_sample_or_all_it_has(fleet: Fleet) -> None:
    make_devices(fleet, 3, "early")
    rollout = roll_out(
        fleet, {"segment": "early", "min_attempted": 2}, {"segment": "canary", "min_attempted": 50}, {}
    )
    ask(fleet, device_id(fleet, "bulk1"))
    finish(fleet, rollout, device_id(fleet, "bulk1"))
    assert opened(fleet, rollout) == [1]
    ask(fleet, device_id(fleet, "bulk2"))
    finish(fleet, rollout, device_id(fleet, "bulk2"))
    assert opened(fleet, rollout) == [1, 2]
    # The canary is one device: 50 cannot be asked of it.
    ask(fleet)
    finish(fleet, rollout)
    assert opened(fleet, rollout) == [1, 2, 3]


def test_a_stage_without_devices_holds_nobody_up(fleet: Fleet) -> None:
    rollout = roll_out(fleet, {"segment": "early"}, {"segment": "canary"})
    assert opened(fleet, rollout) == [1, 2]


def test_one_silent_device_does_not_hold_a_stage_up(fleet: Fleet) -> None:
    make_devices(fleet, 2, "early")
    rollout = roll_out(fleet, {"segment": "early"}, {})
    ask(fleet, device_id(fleet, "bulk1"))
    finish(fleet, rollout, device_id(fleet, "bulk1"))
    assert opened(fleet, rollout) == [1, 2]


def test_a_stage_waits_for_its_approval(fleet: Fleet) -> None:
    rollout = roll_out(fleet, {"segment": "canary"}, {"needs_approval": True})
    ask(fleet)
    finish(fleet, rollout)
    assert opened(fleet, rollout) == [1]
    refusal = fleet.refused("select public.approve_stage(%s, stage => 9)", rollout, who="operator")
    assert (refusal.code, refusal.kind) == ("PT404", "stage_unknown")
    assert fleet.one("select (public.approve_stage(%s, stage => 2)).position", rollout, who="operator") == 2
    assert opened(fleet, rollout) == [1, 2]


def test_an_open_halt_keeps_the_next_stage_shut(fleet: Fleet) -> None:
    rollout = roll_out(fleet, {"segment": "canary", "soak_s": 60}, {})
    ask(fleet)
    finish(fleet, rollout)
    fleet.sql(
        "insert into public.halts (scope, target, reason) values ('rollout', %s, 'look')",
        str(rollout),
        who="operator",
    )
    tick(fleet, "now() + interval '2 minutes'")
    assert opened(fleet, rollout) == [1]
    fleet.sql("update public.halts set lift_reason = 'looked' where true", who="operator")
    tick(fleet, "now() + interval '2 minutes'")
    assert opened(fleet, rollout) == [1, 2]


def why_shut(fleet: Fleet, device: UUID = OTHER, at: str = "now()") -> tuple[str, str]:
    """What the stage gate says after the version and the stage, and what would have to change."""
    (gate,) = (
        gate
        for gate in fleet.one(f"select public.explain_device(%s, {at})", device, who="viewer")["gates"]
        if gate["gate"] == "stage"
    )
    said = gate["detail"].removeprefix("v2 is being rolled out, but ")
    return said, gate["hint"]


def test_a_shut_stage_says_what_the_one_before_lacks(fleet: Fleet) -> None:
    make_devices(fleet, 3, "early")
    rollout = roll_out(
        fleet, {"segment": "early", "min_attempted": 2, "min_success_ratio": 0.75}, {}, {"segment": "canary"},
        halt_failure_ratio=None, halt_consecutive_failures=None,
    )  # fmt: skip
    assert (
        why_shut(fleet)[0] == "stage 2 is not open yet: stage 1 is not proved (0 of 2 devices attempted it)."
    )
    for n, outcome in ((1, "succeeded"), (2, "rolled_back")):
        ask(fleet, device_id(fleet, f"bulk{n}"))
        finish(fleet, rollout, device_id(fleet, f"bulk{n}"), outcome)
    assert why_shut(fleet) == (
        "stage 2 is not open yet: stage 1 is not proved (1 of 2 devices succeeded, 75 % are required).",
        "No action needed: it opens when stage 1 is proved and has soaked. To skip the wait, set opened_at of the stage.",
    )


def test_a_shut_stage_says_how_long_the_one_before_soaks(fleet: Fleet) -> None:
    rollout = roll_out(fleet, {"segment": "canary", "soak_s": 3600}, {})
    ask(fleet)
    finish(fleet, rollout)
    ends = fleet.one(
        "select to_char(proved_at + interval '1 hour', 'YYYY-MM-DD HH24:MI') from public.rollout_stages where position = 1"
    )
    assert why_shut(fleet) == (
        f"stage 2 is not open yet: stage 1 soaks until {ends} UTC.",
        "No action needed: it opens automatically. To skip the wait, set opened_at of the stage.",
    )
    answer = fleet.one("select public.explain_device(%s)", OTHER, who="viewer")
    assert answer["next_poll_s"] <= 3600
    assert why_shut(fleet, at="now() + interval '61 minutes'")[0] == "stage 2 is not open yet: it is due."


def test_a_shut_stage_says_whose_approval_it_waits_for(fleet: Fleet) -> None:
    rollout = roll_out(fleet, {"segment": "canary"}, {"needs_approval": True})
    ask(fleet)
    finish(fleet, rollout)
    assert why_shut(fleet) == (
        "stage 2 is not open yet: stage 2 waits for approval.",
        "Approve it: fleetctl rollout approve v2 2.",
    )


@pytest.mark.parametrize(
    ("scope", "target", "named"),
    [
        ("release", str(V2), "release v2"),
        ("rollout", None, "the rollout of v2"),
        ("branch", "main", "branch main"),
        ("fleet", None, "the fleet"),
    ],
)
def test_a_shut_stage_names_the_halt_that_keeps_it_shut(
    fleet: Fleet, scope: str, target: str | None, named: str
) -> None:
    rollout = roll_out(fleet, {"segment": "canary"}, {})
    halt = fleet.one(
        "insert into public.halts (scope, target, reason) values (%s, %s, 'smoke') returning id",
        scope, str(rollout) if scope == "rollout" else target, who="operator",
    )  # fmt: skip
    assert why_shut(fleet) == (
        f"stage 2 is not open yet: {named} is halted: smoke",
        f'Lift the halt: fleetctl halt lift {halt} "why".',
    )


def test_a_shut_stage_of_a_paused_rollout_says_so(fleet: Fleet) -> None:
    rollout = roll_out(fleet, {"segment": "canary"}, {})
    fleet.sql("select public.pause_rollout(%s)", rollout, who="operator")
    assert why_shut(fleet)[0] == "stage 2 is not open yet: the rollout is paused."


def test_a_device_that_no_stage_holds_is_told_so(fleet: Fleet) -> None:
    roll_out(fleet, {"segment": "canary"})
    assert why_shut(fleet) == (
        "no stage includes this device.",
        "Add a stage that includes it, raise the percentage of a stage, or pin the device.",
    )


def test_named_devices_are_a_stage(fleet: Fleet) -> None:
    rollout = roll_out(fleet, {"device_ids": [str(OTHER)]}, {})
    assert ask(fleet, OTHER)["rollout_id"] == str(rollout)
    assert ask(fleet)["rollout_id"] is None


def test_a_device_that_joins_or_changes_segment_gets_its_stage_at_once(fleet: Fleet) -> None:
    rollout = roll_out(fleet, {"segment": "canary"}, {})
    assert ask(fleet, OTHER)["rollout_id"] is None
    fleet.sql("update public.devices set segment = 'canary' where id = %s", OTHER, who="operator")
    assert ask(fleet, OTHER)["rollout_id"] == str(rollout)
    make_devices(fleet, 1, "canary", "newcomer")
    assert ask(fleet, device_id(fleet, "newcomer1"))["rollout_id"] == str(rollout)


# Percentages


def _members(fleet: Fleet, release: UUID, percent: float) -> set[UUID]:
    rollout = roll_out(fleet, {"percent": percent}, release=release, start=False)
    rows = fleet.sql(
        "select p.device_id from public.rollouts r, private.rollout_devices(r) p where r.id = %s and p.stage = 1",
        rollout,
    )
    return {row[0] for row in rows}


def test_a_percentage_is_nested_stable_and_about_its_size(fleet: Fleet) -> None:
    make_devices(fleet, 1000)
    smaller: set[UUID] = set()
    for percent in (0, 1, 10, 33.3, 50, 99, 100):
        members = _members(fleet, V2, percent)
        assert smaller <= members, f"raising to {percent} took devices away"
        assert abs(len(members) - 10.02 * percent) < 60
        assert members == _members(fleet, V2, percent)
        smaller = members
    assert len(smaller) == 1002


def test_each_release_has_another_order(fleet: Fleet) -> None:
    make_devices(fleet, 300)
    first, second = _members(fleet, V1, 20), _members(fleet, V2, 20)
    assert first != second
    assert len(first & second) < 0.5 * len(first)


def test_a_small_percentage_of_a_small_fleet_is_somebody(fleet: Fleet) -> None:
    make_devices(fleet, 4, "early")
    rollout = roll_out(fleet, {"segment": "early", "percent": 0.001}, {})
    served = [
        n for n in range(1, 5) if ask(fleet, device_id(fleet, f"bulk{n}"))["rollout_id"] == str(rollout)
    ]
    assert len(served) == 1


def test_the_audience_and_the_single_device_are_judged_alike(fleet: Fleet) -> None:
    """The set-based query and stage_holds() are two writings of one rule."""
    make_devices(fleet, 120)
    make_devices(fleet, 60, "early", "e")
    rollout = roll_out(
        fleet, {"segment": "early", "percent": 30}, {"percent": 50}, {"device_ids": [str(OTHER)]}, start=False
    )
    assert fleet.sql(
        "select p.device_id from public.rollouts r, private.rollout_devices(r) p where r.id = %s and p.stage is distinct from ("
        "select min(s.position) from public.rollout_stages s where s.rollout_id = %s and private.stage_holds(s, p.device_id, "
        "p.segment, private.bucket(%s, p.device_id))) and private.bucket(r.release_id, p.device_id) >= 1000",
        rollout, rollout, V2,
    ) == []  # fmt: skip
