"""The halt rule counts devices, not tries: each by what it last said in this rollout. Time is passed in."""

from __future__ import annotations

import json
from typing import Any
from uuid import UUID

import pytest

from tests.support.identities import V2, Fleet, detail
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

OFF: dict[str, Any] = {
    "halt_failure_ratio": None,
    "halt_consecutive_failures": None,
    "halt_max_failures": None,
}
CAP = {**OFF, "halt_max_failures": 3}
RUN = {**OFF, "halt_consecutive_failures": 3}


def bulk(fleet: Fleet, number: int) -> UUID:
    return device_id(fleet, f"bulk{number}")


def halts(fleet: Fleet) -> list[str]:
    """The reasons of the halts that are open."""
    return [row[0] for row in fleet.sql("select reason from public.halts where lifted_at is null")]


def lift(fleet: Fleet) -> None:
    fleet.sql("update public.halts set lift_reason = 'looked' where lifted_at is null", who="operator")


def say(fleet: Fleet, rollout: UUID, number: int, *outcomes: str) -> None:
    """It asks, and its attempt ends so; several times."""
    for outcome in outcomes:
        ask(fleet, bulk(fleet, number))
        finish(fleet, rollout, bulk(fleet, number), outcome)


def failed(fleet: Fleet, rollout: UUID) -> int:
    progress: dict[str, int] = fleet.one("select public.rollout_progress(%s)", rollout, who="viewer")
    return progress["failed"]


PASSING = '{"passing": true}'


@pytest.mark.parametrize(
    ("outcome", "phase", "evidence", "counts"),
    [
        ("failed", "fetching", "{}", False),
        ("failed", "pulling", PASSING, False),
        ("failed", "pulling", "{}", True),
        ("failed", "pulling", '{"passing": false}', True),
        # It was touched, so it counts; but it is no verdict on the release for this device.
        ("rolled_back", "starting", PASSING, True),
        ("rolled_back", "fetching", "{}", True),
    ],
)
def test_a_passing_problem_before_the_swap_is_no_failure_of_the_release(
    fleet: Fleet, outcome: str, phase: str, evidence: str, counts: bool
) -> None:
    """A Git host that is away once halted the rollout, as did each registry."""
    make_devices(fleet, 4)
    rollout = roll_out(fleet, {"min_attempted": 4}, max_in_flight=1, **{**OFF, "halt_max_failures": 2})
    for number in (1, 2):
        assert ask(fleet, bulk(fleet, number))["action"] == "update"
        finish(fleet, rollout, bulk(fleet, number), outcome, phase=phase, evidence=evidence)
    assert failed(fleet, rollout) == (2 if counts else 0)
    assert len(halts(fleet)) == counts
    known = fleet.one("select count(*) from public.known_bad_releases")
    assert known == (2 if outcome == "rolled_back" and evidence == "{}" else 0)
    check_counters(fleet)
    replayed = fleet.one(
        """select public.replay_halt_rule(%s, '{"halt_max_failures": 2}')""", rollout, who="viewer"
    )
    assert replayed["would_halt"] is counts
    patterns = fleet.sql("select 1 from private.failure_patterns(%s, 1, 0)", V2)
    assert counts or patterns == []
    if not counts:
        # It may take a slot again, as often as it takes, and then proves the release.
        for _ in range(4):
            assert ask(fleet, bulk(fleet, 1))["action"] == "update"
            finish(fleet, rollout, bulk(fleet, 1), outcome, phase=phase, evidence=evidence)
        assert ask(fleet, bulk(fleet, 1))["action"] == "update"
        finish(fleet, rollout, bulk(fleet, 1))
        check_counters(fleet)


def test_what_rolled_back_by_a_passing_problem_is_tried_as_often_as_the_rollout_allows(fleet: Fleet) -> None:
    make_devices(fleet, 1)
    rollout = roll_out(fleet, {"min_attempted": 4}, max_attempts=2, **OFF)
    for _ in range(2):
        assert ask(fleet, bulk(fleet, 1))["action"] == "update"
        finish(fleet, rollout, bulk(fleet, 1), "rolled_back", phase="starting", evidence=PASSING)
    answer = ask(fleet, bulk(fleet, 1))
    assert (answer["action"], detail(answer, "slot")) == (
        "run", "It has tried 2 times, as often as the rollout allows.",
    )  # fmt: skip


@pytest.mark.parametrize("rule", [CAP, RUN], ids=["cap", "run"])
def test_a_failure_stays_counted_while_its_device_tries_again(fleet: Fleet, rule: dict[str, Any]) -> None:
    make_devices(fleet, 4)
    rollout = roll_out(fleet, **rule)
    for number in range(1, 4):
        assert halts(fleet) == []
        say(fleet, rollout, number, "failed")
        ask(fleet, bulk(fleet, number))
        assert failed(fleet, rollout) == number
    assert len(halts(fleet)) == 1
    check_counters(fleet)


@pytest.mark.parametrize("rule", [CAP, RUN], ids=["cap", "run"])
@pytest.mark.parametrize("outcome", ["failed", "expired"])
def test_a_device_that_fails_again_and_again_is_one_failure(
    fleet: Fleet, rule: dict[str, Any], outcome: str
) -> None:
    make_devices(fleet, 3)
    rollout = roll_out(fleet, lease_s=600, max_attempts=9, **rule)
    for days in range(1, 5):
        if outcome == "failed":
            say(fleet, rollout, 1, "failed")
        else:
            ask(fleet, bulk(fleet, 1))
            tick(fleet, f"now() + interval '{days} days'")
    assert (failed(fleet, rollout), halts(fleet)) == (1, [])
    say(fleet, rollout, 2, "failed")
    say(fleet, rollout, 3, "failed")
    assert len(halts(fleet)) == 1
    check_counters(fleet)


@pytest.mark.parametrize("rule", [CAP, RUN], ids=["cap", "run"])
@pytest.mark.parametrize("meanwhile", ["in flight", "succeeded", "stayed"])
def test_after_a_lift_as_many_new_failures_halt_it_again(
    fleet: Fleet, rule: dict[str, Any], meanwhile: str
) -> None:
    """Whatever becomes of those that failed before."""
    make_devices(fleet, 6)
    rollout = roll_out(fleet, **rule)
    for number in range(1, 4):
        say(fleet, rollout, number, "failed")
    lift(fleet)
    for number in range(1, 4):
        if meanwhile == "in flight":
            ask(fleet, bulk(fleet, number))
        elif meanwhile == "succeeded":
            say(fleet, rollout, number, "succeeded")
    for number in range(4, 7):
        assert halts(fleet) == []
        say(fleet, rollout, number, "failed")
    assert len(halts(fleet)) == 1
    check_counters(fleet)


def test_who_fails_again_after_a_lift_is_a_new_failure(fleet: Fleet) -> None:
    make_devices(fleet, 3)
    rollout = roll_out(fleet, max_attempts=5, **CAP)
    for again in range(2):
        for number in range(1, 4):
            assert halts(fleet) == []
            say(fleet, rollout, number, "failed", "failed")
            if number < 3:
                assert halts(fleet) == [], f"round {again}"
        assert halts(fleet) == ["3 of 3 attempted devices failed; the limit is 2."]
        lift(fleet)
    check_counters(fleet)


def test_one_device_hides_no_bad_run(fleet: Fleet) -> None:
    """It repeats its success between the failures of the others, with or without a slot."""
    make_devices(fleet, 4)
    rollout = roll_out(fleet, **RUN)
    say(fleet, rollout, 1, "succeeded")
    for number in range(2, 5):
        assert halts(fleet) == []
        say(fleet, rollout, number, "failed")
        finish(fleet, rollout, bulk(fleet, 1))
    assert halts(fleet) == ["3 devices failed in a row."]
    check_counters(fleet)


def test_a_device_that_turns_with_every_word_moves_each_counter_by_one(fleet: Fleet) -> None:
    make_devices(fleet, 2)
    rollout = roll_out(fleet, **{**OFF, "halt_max_failures": 2, "halt_consecutive_failures": 2})
    ask(fleet, bulk(fleet, 1))
    for outcome in ["failed", "rolled_back", "succeeded", "failed", "succeeded", "failed", "failed"]:
        finish(fleet, rollout, bulk(fleet, 1), outcome)
        counted = fleet.sql(
            "select succeeded, failed from private.rollout_counters where rollout_id = %s and position = 0",
            rollout,
        )
        assert counted == [(1, 0) if outcome == "succeeded" else (0, 1)]
    assert halts(fleet) == []
    check_counters(fleet)


def test_a_replay_counts_devices_too(fleet: Fleet) -> None:
    make_devices(fleet, 4)
    rollout = roll_out(fleet, max_attempts=9, **OFF)
    say(fleet, rollout, 1, "failed", "failed", "failed", "succeeded")
    finish(fleet, rollout, bulk(fleet, 1))
    say(fleet, rollout, 2, "failed")
    finish(fleet, rollout, bulk(fleet, 1))
    say(fleet, rollout, 3, "failed")
    rule = json.dumps({"halt_consecutive_failures": 3})
    answer = fleet.one("select public.replay_halt_rule(%s, %s)", rollout, rule, who="viewer")
    assert (answer["attempted"], answer["failed"], answer["would_halt"]) == (3, 2, False)
    say(fleet, rollout, 4, "failed")
    answer = fleet.one("select public.replay_halt_rule(%s, %s)", rollout, rule, who="viewer")
    assert (answer["halt"]["cause"], answer["halt"]["failed"]) == ("consecutive_failures", 3)
