"""The halt rule: when it strikes, what follows, alerts, and trying another rule out. Time is passed in."""

from __future__ import annotations

import json
from typing import Any
from uuid import UUID

import pytest

from tests.support.identities import DEVICE, V1, V2, Fleet, detail
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

# The halt rule


def _fail(fleet: Fleet, rollout: UUID, numbers: range, outcome: str = "rolled_back") -> None:
    for n in numbers:
        device = device_id(fleet, f"bulk{n}")
        assert ask(fleet, device)["action"] == "update", f"bulk{n}"
        finish(fleet, rollout, device, outcome)


@pytest.mark.parametrize(
    ("rule", "failures", "cause"),
    [
        ({"halt_max_failures": 3}, 2, None),
        ({"halt_max_failures": 3}, 3, "failure_cap"),
        ({"halt_consecutive_failures": 3}, 2, None),
        ({"halt_consecutive_failures": 3}, 3, "consecutive_failures"),
        # Five succeeded before: 1 of 6 is above a tenth, and 6 is the least sample or just too few.
        ({"halt_failure_ratio": 0.1, "halt_min_attempted": 6}, 1, "failure_ratio"),
        ({"halt_failure_ratio": 0.1, "halt_min_attempted": 7}, 1, None),
        ({"halt_failure_ratio": 0.17, "halt_min_attempted": 6}, 1, None),
    ],
)
def test_a_rollout_that_goes_bad_halts_as_the_outcome_arrives(
    fleet: Fleet, rule: dict[str, Any], failures: int, cause: str | None
) -> None:
    make_devices(fleet, 10)
    off = {"halt_failure_ratio": None, "halt_consecutive_failures": None}
    rollout = roll_out(fleet, {"min_success_ratio": 1, "min_attempted": 10}, **{**off, **rule})
    _fail(fleet, rollout, range(1, 6), "succeeded")
    _fail(fleet, rollout, range(6, 6 + failures))
    halts = fleet.sql("select scope::text, target, cause, opened_by from public.halts")
    assert halts == ([("rollout", str(rollout), cause, None)] if cause else [])
    answer = ask(fleet, device_id(fleet, "bulk10"))
    assert answer["action"] == ("run" if cause else "update")
    assert state(fleet, rollout) == "running", "policy is never overwritten by an automatic halt"
    check_counters(fleet)


def test_an_automatic_halt_says_what_it_saw(fleet: Fleet) -> None:
    make_devices(fleet, 3)
    rollout = roll_out(fleet, halt_max_failures=2)
    _fail(fleet, rollout, range(1, 3))
    reason, evidence = fleet.sql("select reason, evidence from public.halts")[0]
    assert reason == "2 of 2 attempted devices failed; the limit is 1."
    assert evidence["error_kinds"] == {"health_failed": 2}
    alerts = fleet.sql("select kind, severity::text, rollout_id, summary from public.alerts")
    assert alerts == [("rollout_halted", "critical", rollout, f"The rollout of v2 is halted: {reason}")]
    fleet.sql("update public.halts set lift_reason = 'fixed' where true", who="operator")
    assert fleet.one("select resolved_at is not null from public.alerts")


@pytest.mark.parametrize(
    ("scope", "target", "said"),
    [
        ("fleet", None, "The fleet is halted: x"),
        ("segment", "stable", "Segment stable is halted: x"),
        ("role", "beacon", "Role beacon is halted: x"),
        ("branch", "main", "Branch main is halted: x"),
        ("release", str(V2), "Release v2 is halted: x"),
        ("rollout", "", "The rollout of v2 is halted: x"),
    ],
)
def test_an_alert_names_what_is_halted(fleet: Fleet, scope: str, target: str | None, said: str) -> None:
    """Also with all that a reason and its evidence may be: a brake never fails by the alert about it."""
    if scope == "rollout":
        target = str(roll_out(fleet))
    fleet.sql(
        "insert into public.halts (scope, target, reason, evidence) values (%s, %s, repeat('x', 4000), "
        "jsonb_build_object('seen', repeat('y', 65520)))",
        scope, target,
    )  # fmt: skip
    (summary,) = fleet.sql("select summary from public.alerts where kind ~ 'halted'")[0]
    assert summary.rstrip("x") + "x" == said
    assert len(summary) == 4000


def test_lifting_a_halt_starts_the_count_afresh(fleet: Fleet) -> None:
    make_devices(fleet, 6)
    rollout = roll_out(fleet, halt_max_failures=2)
    _fail(fleet, rollout, range(1, 3))
    fleet.sql("update public.halts set lift_reason = 'bad site' where true", who="operator")
    _fail(fleet, rollout, range(3, 4))
    assert fleet.one("select count(*) from public.halts where lifted_at is null") == 0
    _fail(fleet, rollout, range(4, 5))
    assert fleet.one("select count(*) from public.halts where lifted_at is null") == 1


@pytest.mark.parametrize("on_bad", ["halt_release", "roll_back"])
def test_what_follows_is_the_rollouts_choice(fleet: Fleet, on_bad: str) -> None:
    make_devices(fleet, 3)
    good = device_id(fleet, "bulk1")
    fleet.sql("insert into public.device_status (device_id, current_release) values (%s, %s)", good, V1)
    rollout = roll_out(fleet, {"min_success_ratio": 1}, halt_max_failures=1, on_bad=on_bad)
    _fail(fleet, rollout, range(1, 2), "succeeded")
    _fail(fleet, rollout, range(2, 3))
    assert fleet.sql("select scope::text, target, roll_back from public.halts") == [
        ("release", str(V2), on_bad == "roll_back")
    ]
    answer = ask(fleet, good)
    if on_bad == "roll_back":
        assert (answer["action"], answer["release"]["id"]) == ("rollback", str(V1))
        assert detail(answer, "roll_back").endswith("back to v1.")
    else:
        assert (answer["action"], answer["release"]["id"]) == ("run", str(V2))


def test_losing_health_after_a_success_is_a_failure(fleet: Fleet) -> None:
    rollout = roll_out(fleet, halt_max_failures=1)
    ask(fleet)
    finish(fleet, rollout)
    fleet.report(V2, state="degraded")
    assert fleet.one("select state::text from public.rollout_claims") == "regressed"
    assert fleet.one("select cause from public.halts") == "failure_cap"
    check_counters(fleet)


def test_losing_health_long_after_is_not_the_rollouts_fault(fleet: Fleet) -> None:
    rollout = roll_out(fleet, halt_max_failures=1, regression_s=0)
    ask(fleet)
    finish(fleet, rollout)
    fleet.report(V2, state="degraded")
    assert fleet.one("select state::text from public.rollout_claims") == "succeeded"


# Alerts


def test_a_silent_device_raises_one_alert_until_it_is_back(fleet: Fleet) -> None:
    fleet.report(V1)
    assert tick(fleet, "now() + interval '2699 seconds'")["offline_opened"] == 0
    assert tick(fleet, "now() + interval '2800 seconds'")["offline_opened"] == 1
    assert tick(fleet, "now() + interval '2900 seconds'")["offline_opened"] == 0
    assert fleet.sql("select kind, device_id from public.alerts where resolved_at is null") == [
        ("device_offline", DEVICE)
    ]
    fleet.sql("update public.alerts set acknowledged_at = now() where true", who="operator")
    assert fleet.one("select acknowledged_by is not null from public.alerts")
    fleet.sql("alter table public.device_status disable trigger user")
    fleet.sql("update public.device_status set reported_at = now() + interval '3000 seconds' where true")
    assert tick(fleet, "now() + interval '3000 seconds'")["offline_resolved"] == 1


def test_a_tick_run_twice_or_late_does_the_work_once(fleet: Fleet) -> None:
    rollout = roll_out(fleet, {"segment": "canary", "soak_s": 60}, {}, lease_s=600)
    ask(fleet)
    finish(fleet, rollout)
    late = "now() + interval '30 days'"
    assert tick(fleet, late)["stages_opened"] == 1
    assert tick(fleet, late)["stages_opened"] == 0


# Trying a rule out


@pytest.mark.parametrize(
    ("rule", "cause", "after"),
    [
        ({"halt_max_failures": 2}, "failure_cap", 5),
        ({"halt_consecutive_failures": 3}, "consecutive_failures", 6),
        ({"halt_failure_ratio": 0.2, "halt_min_attempted": 4}, "failure_ratio", 4),
        ({"halt_failure_ratio": 0.9}, None, None),
    ],
)
def test_a_replay_says_where_a_rule_would_have_stopped_a_rollout(
    fleet: Fleet, rule: dict[str, Any], cause: str | None, after: int | None
) -> None:
    """Three successes, three failures, one more success."""
    make_devices(fleet, 7)
    off: dict[str, Any] = {
        "halt_failure_ratio": None,
        "halt_consecutive_failures": None,
        "halt_max_failures": None,
    }
    rollout = roll_out(fleet, {"min_attempted": 10}, **off)
    for n, outcome in enumerate(["succeeded"] * 3 + ["rolled_back"] * 3 + ["succeeded"], 1):
        ask(fleet, device_id(fleet, f"bulk{n}"))
        finish(fleet, rollout, device_id(fleet, f"bulk{n}"), outcome)
    answer = fleet.one("select public.replay_halt_rule(%s, %s)", rollout, json.dumps(rule), who="viewer")
    assert (answer["outcomes"], answer["attempted"], answer["failed"]) == (7, 7, 3)
    assert answer["would_halt"] is (cause is not None)
    if cause is not None:
        assert after is not None
        assert (answer["halt"]["cause"], answer["halt"]["after_outcomes"]) == (cause, after)
        assert answer["spared"] == 7 - after


def test_a_replay_of_the_rollouts_own_rule_stops_where_it_stopped(fleet: Fleet) -> None:
    make_devices(fleet, 4)
    rollout = roll_out(fleet, halt_max_failures=2)
    _fail(fleet, rollout, range(1, 3))
    answer = fleet.one("select public.replay_halt_rule(%s)", rollout, who="viewer")
    cause, evidence = fleet.sql("select cause, evidence from public.halts")[0]
    assert (answer["halt"]["cause"], answer["halt"]["failed"]) == (cause, evidence["failed"])
    refusal = fleet.refused("select public.replay_halt_rule(%s, '{\"mood\": 1}')", rollout, who="viewer")
    assert (refusal.code, refusal.kind) == ("PT400", "unknown_option")
