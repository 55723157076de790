"""When a stage is proved: by the devices that are there, and by who runs the release; and what follows where it cannot be."""

from __future__ import annotations

import json
from typing import Any
from uuid import UUID

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from tests.support.identities import DEVICE, OTHER, V1, V2, Fleet
from tests.support.profiles import OLDER_SERVER_IN_FULL, amount
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

#: No rule halts it.
OFF: dict[str, Any] = {
    "halt_failure_ratio": None,
    "halt_consecutive_failures": None,
    "halt_max_failures": None,
}


def early(fleet: Fleet, number: int) -> UUID:
    return device_id(fleet, f"bulk{number}")


def says(fleet: Fleet, device: UUID, release: UUID, state: str = "healthy") -> None:
    """What it runs, as it reports."""
    fleet.sql(
        "insert into public.device_status (device_id, state, current_release) values (%s, %s, %s) "
        "on conflict (device_id) do update set state = excluded.state, current_release = excluded.current_release",
        device, state, release,
    )  # fmt: skip


def alerts(fleet: Fleet) -> list[str]:
    return [
        row[0]
        for row in fleet.sql(
            "select summary from public.alerts where kind = 'stage_unprovable' and resolved_at is null"
        )
    ]


def hint(fleet: Fleet, at: str = "now()") -> str:
    answer = fleet.one(f"select public.explain_device(%s, {at})", OTHER, who="viewer")
    return "".join(gate["hint"] for gate in answer["gates"] if gate["gate"] == "stage")


@pytest.mark.parametrize(
    "leaves",
    [
        "state = 'retired'",
        "state = 'suspended'",
        "segment = 'stable'",
        f"pinned_release = '{V1}'",
        "labels = '{}'",
    ],
)
def test_who_leaves_the_stage_is_not_waited_for(fleet: Fleet, leaves: str) -> None:
    make_devices(fleet, 3, "early", labels='{"site": "rome"}')
    rollout = roll_out(
        fleet, {"segment": "early", "min_attempted": 3}, {}, selector={"labels": {"site": "rome"}}
    )
    ask(fleet, early(fleet, 1))
    finish(fleet, rollout, early(fleet, 1))
    tick(fleet)
    assert opened(fleet, rollout) == [1]
    fleet.sql(f"update public.devices set {leaves} where name in ('bulk2', 'bulk3')", who="operator")
    tick(fleet)
    assert opened(fleet, rollout) == [1, 2]
    check_counters(fleet)


def test_proof_stays_when_who_gave_it_leaves(fleet: Fleet) -> None:
    make_devices(fleet, 2, "early")
    rollout = roll_out(fleet, {"segment": "early", "soak_s": 3600}, {})
    ask(fleet, early(fleet, 1))
    finish(fleet, rollout, early(fleet, 1))
    fleet.sql("update public.devices set state = 'retired' where name = 'bulk1'", who="operator")
    tick(fleet)
    tick(fleet, "now() + interval '61 minutes'")
    assert opened(fleet, rollout) == [1, 2]


def test_who_runs_it_already_is_proof(fleet: Fleet) -> None:
    says(fleet, DEVICE, V2)
    rollout = roll_out(fleet, {"segment": "canary"}, {})
    assert opened(fleet, rollout) == [1, 2]
    assert ask(fleet, OTHER)["action"] == "update"


def test_who_runs_it_and_is_not_well_is_no_proof(fleet: Fleet) -> None:
    says(fleet, DEVICE, V2, "degraded")
    rollout = roll_out(fleet, {"segment": "canary"}, {})
    tick(fleet)
    assert opened(fleet, rollout) == [1]
    says(fleet, DEVICE, V2)
    tick(fleet)
    assert opened(fleet, rollout) == [1, 2]


def test_a_second_rollout_of_the_release_is_proved_by_the_first(fleet: Fleet) -> None:
    first = roll_out(fleet, {"segment": "canary"}, {"segment": "early", "needs_approval": True})
    ask(fleet)
    finish(fleet, first)
    fleet.sql("select public.cancel_rollout(%s)", first, who="operator")
    second = roll_out(fleet, {"segment": "canary"}, {})
    tick(fleet)
    assert opened(fleet, second) == [1, 2]


@pytest.mark.parametrize(("patience", "days"), [(None, 1), (7 * 86400, 7)])
def test_an_offline_device_holds_up_nobody_longer_than_its_rollout_waits(
    fleet: Fleet, patience: int | None, days: int
) -> None:
    says(fleet, DEVICE, V1)
    fleet.sql("alter table public.device_status disable trigger stamp_reported_at")
    fleet.sql("update public.device_status set reported_at = now() - interval '30 days' where true")
    options: dict[str, Any] = {} if patience is None else {"offline_patience_s": patience}
    rollout = roll_out(fleet, {"segment": "canary"}, {}, **options)
    for at, stages in ((f"'{days} days' - interval '1 minute'", [1]), (f"'{days} days'", [1, 2])):
        tick(fleet, f"now() + interval {at}")
        assert opened(fleet, rollout) == stages
    assert alerts(fleet) == []


def test_a_device_that_fell_silent_later_is_waited_for_from_then_on(fleet: Fleet) -> None:
    says(fleet, DEVICE, V1)
    rollout = roll_out(fleet, {"segment": "canary"}, {})
    fleet.sql("alter table public.device_status disable trigger stamp_reported_at")
    fleet.sql("update public.device_status set reported_at = now() + interval '20 hours' where true")
    tick(fleet, "now() + interval '43 hours'")
    assert opened(fleet, rollout) == [1]
    tick(fleet, "now() + interval '45 hours'")
    assert opened(fleet, rollout) == [1, 2]


def unprovable(fleet: Fleet) -> UUID:
    """Two of the early ones tried it: one succeeded, the other rolled back."""
    make_devices(fleet, 2, "early")
    rollout = roll_out(fleet, {"segment": "early"}, {}, **OFF)
    for number, outcome in ((1, "rolled_back"), (2, "succeeded")):
        ask(fleet, early(fleet, number))
        finish(fleet, rollout, early(fleet, number), outcome)
    tick(fleet)
    return rollout


def test_a_stage_that_cannot_be_proved_says_so(fleet: Fleet) -> None:
    rollout = unprovable(fleet)
    what_to_do = (
        "Decide: let the devices that failed try again (fleetctl retry), retire or move them, "
        "set opened_at of stage 2 to continue without proof, or cancel it: fleetctl rollout cancel v2."
    )
    assert alerts(fleet) == [
        "Stage 1 of the rollout of v2 cannot be proved: 1 of 2 devices succeeded, 90 % are required, "
        f"and no device is left that could still succeed. {what_to_do}"
    ]
    assert hint(fleet) == what_to_do
    tick(fleet, "now() + interval '7 days'")
    assert len(alerts(fleet)) == 1
    assert opened(fleet, rollout) == [1]


@pytest.mark.parametrize(
    ("decision", "stages"),
    [
        ("update public.devices set state = 'retired' where name = 'bulk1'", [1, 2]),
        ("update public.rollout_stages set opened_at = now() where position = 2", [1, 2]),
        ("update public.rollout_stages set min_success_ratio = 0.5 where position = 1", [1, 2]),
        ("update public.rollouts set state = 'cancelled' where true", [1]),
        ("delete from public.known_bad_releases where true", [1]),
    ],
)
def test_what_a_person_decides_ends_the_alert(fleet: Fleet, decision: str, stages: list[int]) -> None:
    rollout = unprovable(fleet)
    fleet.sql(decision, who="operator")
    if "known_bad" in decision:
        # It may try again, and does.
        assert ask(fleet, early(fleet, 1))["action"] == "update"
    tick(fleet)
    assert (alerts(fleet), opened(fleet, rollout)) == ([], stages)


@pytest.mark.parametrize(("attempts", "told"), [(2, 0), (1, 1)])
def test_who_may_try_again_can_still_prove_it(fleet: Fleet, attempts: int, told: int) -> None:
    rollout = roll_out(fleet, {"segment": "canary"}, {}, max_attempts=attempts, **OFF)
    ask(fleet)
    finish(fleet, rollout, outcome="failed")
    tick(fleet)
    assert len(alerts(fleet)) == told


def test_a_last_stage_that_cannot_be_proved_says_so_too(fleet: Fleet) -> None:
    rollout = roll_out(fleet, {"segment": "canary"}, **OFF)
    ask(fleet)
    finish(fleet, rollout, outcome="rolled_back")
    tick(fleet)
    assert "lower min_success_ratio of stage 1" in alerts(fleet)[0]
    fleet.sql("update public.rollout_stages set min_success_ratio = 0 where true", who="operator")
    tick(fleet)
    assert (state(fleet, rollout), alerts(fleet)) == ("completed", [])


# The same in Python

FACTS = st.fixed_dictionaries(
    {
        "there": st.sampled_from([True, True, True, False]),
        "word": st.sampled_from(
            [None, None, None, "succeeded", "succeeded", "failed", "rolled_back", "regressed"]
        ),
        "in_flight": st.sampled_from([False, False, True]),
        "spent": st.booleans(),
        "healthy_on_it": st.sampled_from([False, False, True]),
        "known_bad": st.sampled_from([False, False, False, True]),
        "away": st.sampled_from([False, False, True]),
    }
)


def proved(facts: list[dict[str, Any]], min_attempted: int, ratio: float) -> tuple[bool, bool]:
    """Whether the stage is proved, and whether it cannot be any more: as docs/usage/policy.md has it."""
    good = sum(f["word"] == "succeeded" for f in facts)
    failed = untried = again = 0
    for f in facts:
        if not f["there"] or f["word"] == "succeeded":
            continue
        if f["word"] is not None:
            failed += 1
            again += f["in_flight"] or (
                f["word"] in ("failed", "rolled_back") and not f["spent"] and not f["known_bad"]
            )
        elif f["healthy_on_it"]:
            good += 1
        elif f["in_flight"] or (not f["known_bad"] and not f["away"]):
            untried += 1
    attempted = good + failed
    enough = attempted >= min(min_attempted, attempted + untried)
    return (
        enough and good >= ratio * attempted,
        good + untried + again < ratio * (attempted + untried),
    )


@settings(
    max_examples=amount(20, full=200),
    deadline=None,
    derandomize=True,
    database=None,
    suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow],
)
@given(
    facts=st.lists(FACTS, min_size=0, max_size=5),
    min_attempted=st.integers(1, 4),
    ratio=st.sampled_from([0, 0.5, 0.75, 1]),
)
def test_proof_in_sql_and_its_model_in_python_agree(
    fleet: Fleet, facts: list[dict[str, Any]], min_attempted: int, ratio: float
) -> None:
    run = fleet.admin.execute
    with fleet.admin.transaction(force_rollback=True):
        run("delete from public.device_status where true")
        make_devices(fleet, len(facts), "early")
        made = run(
            "select (public.create_rollout(%s, stages => %s, options => '{\"max_attempts\": 2}')).id",
            (V2, json.dumps([{"segment": "early", "min_attempted": min_attempted, "min_success_ratio": ratio}, {"segment": "canary"}])),
        ).fetchone()  # fmt: skip
        assert made is not None
        rollout = made[0]
        run(
            "update public.rollout_stages set opened_at = now() where rollout_id = %s and position = 1",
            (rollout,),
        )
        run("alter table public.device_status disable trigger user")
        for number, f in enumerate(facts, 1):
            device = run("select id from public.devices where name = %s", (f"bulk{number}",)).fetchone()
            assert device is not None
            if f["word"] is not None or f["in_flight"]:
                run(
                    "insert into public.rollout_claims (rollout_id, device_id, stage, state, attempts, claimed_at, lease_until, to_release) "
                    "values (%s, %s, 1, %s, %s, now(), now(), %s)",
                    (rollout, device[0], f["word"] or "claimed", 2 if f["spent"] else 1, V2),
                )
                if f["in_flight"]:
                    run(
                        "update public.rollout_claims set state = 'claimed' where device_id = %s",
                        (device[0],),
                    )
            run(
                "insert into public.device_status (device_id, current_release, reported_at) values (%s, %s, now() - %s::interval)",
                (device[0], V2 if f["healthy_on_it"] else V1, "2 days" if f["away"] else "0"),
            )
            if f["known_bad"]:
                run(
                    "insert into public.known_bad_releases (device_id, release_id) values (%s, %s)",
                    (device[0], V2),
                )
            if not f["there"]:
                run("update public.devices set segment = 'stable' where id = %s", (device[0],))
        # A day and more after it opened.
        run(
            "update public.rollout_stages set opened_at = now() - interval '25 hours' where rollout_id = %s and position = 1",
            (rollout,),
        )
        counted = run("select (private.count_stage(%s, 1, now())).unprovable", (rollout,)).fetchone()
        lacks = run(
            "select private.proof_lacking(s) is null from public.rollout_stages s where s.rollout_id = %s and s.position = 1", (rollout,)
        ).fetchone()  # fmt: skip
    assert counted is not None
    assert lacks is not None
    assert (lacks[0], counted[0]) == proved(facts, min_attempted, ratio)


@pytest.mark.parametrize("kept", ["hold", "window", "newer"])
def test_who_is_kept_from_it_holds_up_nobody_longer_than_who_is_offline(fleet: Fleet, kept: str) -> None:
    says(fleet, DEVICE, V1)
    if kept == "newer":
        newer = fleet.one(
            "insert into public.releases (commit_sha, version) values (repeat('8', 40), 'v8') returning id"
        )
        says(fleet, DEVICE, newer)
    elif kept == "hold":
        fleet.sql("update public.devices set hold = true where id = %s", DEVICE)
    else:
        fleet.sql("insert into public.maintenance_windows (name) values ('never')")
        fleet.sql("update public.segments set maintenance_window = 'never' where name = 'canary'")
    rollout = roll_out(fleet, {"segment": "canary"}, {})
    fleet.sql("alter table public.device_status disable trigger stamp_reported_at")
    fleet.sql("update public.device_status set reported_at = now() + interval '1 day' where true")
    tick(fleet)
    answer = fleet.one("select public.explain_device(%s)", OTHER, who="viewer")
    told = next(gate for gate in answer["gates"] if gate["gate"] == "stage")
    assert "0 of 1 device attempted it; 1 is kept from it" in told["detail"]
    assert "A device that is kept from it is waited for until" in told["hint"]
    for at, stages in (("'1 day' - interval '1 minute'", [1]), ("'1 day'", [1, 2])):
        tick(fleet, f"now() + interval {at}")
        assert opened(fleet, rollout) == stages
    assert alerts(fleet) == []


def test_a_halt_of_the_segment_that_is_to_prove_it_keeps_the_next_stage_shut_and_says_so(
    fleet: Fleet,
) -> None:
    rollout = roll_out(fleet, {"segment": "canary"}, {})
    fleet.sql("insert into public.halts (scope, target, reason) values ('segment', 'canary', 'smoke')")
    tick(fleet, "now() + interval '3 days'")
    assert opened(fleet, rollout) == [1]
    assert "fleetctl halt lift" in hint(fleet)


def test_a_device_that_is_well_again_on_the_release_is_proof(fleet: Fleet) -> None:
    rollout = roll_out(fleet, {"segment": "canary", "soak_s": 60}, {}, **OFF)
    ask(fleet)
    finish(fleet, rollout)
    says(fleet, DEVICE, V2, "degraded")
    tick(fleet, "now() + interval '2 minutes'")
    assert opened(fleet, rollout) == [1]
    says(fleet, DEVICE, V2)
    tick(fleet)
    tick(fleet, "now() + interval '2 minutes'")
    assert opened(fleet, rollout) == [1, 2]
    check_counters(fleet)
