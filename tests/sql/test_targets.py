"""A device's target: what was said last for it, and nothing where nobody said anything."""

from __future__ import annotations

import json
from typing import Any
from uuid import UUID

import pytest

from tests.support.identities import DEVICE, OTHER, V1, V2, Fleet, detail, gates
from tests.support.profiles import OLDER_SERVER_IN_FULL
from tests.support.rollout_builders import (
    V3,
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

CANARY_FIRST: tuple[dict[str, Any], ...] = ({"segment": "canary", "soak_s": 3600}, {})


def close(fleet: Fleet) -> None:
    """Branches as a fleet begins with them. The cast's are immediate."""
    fleet.sql("update public.branches set delivery = 'rollout_only' where true")
    fleet.messages()


@pytest.fixture(autouse=True)
def closed(fleet: Fleet) -> None:
    close(fleet)


def told(fleet: Fleet, device: UUID = DEVICE) -> tuple[str, UUID | None]:
    answer = ask(fleet, device)
    release = answer["release"]
    return answer["action"], release and UUID(release["id"])


def immediate(fleet: Fleet) -> None:
    fleet.sql("update public.branches set delivery = 'immediate' where name = 'main'", who="operator")


def add_v3(fleet: Fleet, who: str | None = "operator") -> None:
    fleet.sql(
        "insert into public.releases (id, commit_sha, version) values (%s, repeat('9', 40), 'v3')",
        V3,
        who=who,
    )


def complete(fleet: Fleet, release: UUID = V2, *stages: dict[str, object]) -> UUID:
    """A rollout that DEVICE went through, and that is over."""
    rollout = roll_out(fleet, *stages, release=release)
    ask(fleet)
    finish(fleet, rollout, release=release)
    assert state(fleet, rollout) == "completed"
    return rollout


# Closed by default


def test_a_release_reaches_nobody_until_somebody_says_so(fleet: Fleet) -> None:
    close(fleet)
    assert fleet.one("select delivery::text from public.branches where name = 'main'") == "rollout_only"
    add_v3(fleet)
    assert fleet.woken() == {}
    answer = ask(fleet)
    assert (answer["action"], answer["release"], gates(answer)["release"]) == ("run", None, "wait")
    assert (
        detail(answer, "release")
        == "No release was given to this device yet: branch main gives by rollout only."
    )
    roll_out(fleet, *CANARY_FIRST, release=V3)
    assert told(fleet) == ("update", V3)
    assert told(fleet, OTHER) == ("run", None)


def test_a_new_branch_gives_by_rollout_only(fleet: Fleet) -> None:
    fleet.sql("insert into public.branches (name) values ('lab')", who="operator")
    assert fleet.one("select delivery::text from public.branches where name = 'lab'") == "rollout_only"


@pytest.mark.parametrize("delivery", ["rollout_only", "immediate"])
def test_a_draft_that_goes_away_gives_the_release_to_nobody(fleet: Fleet, delivery: str) -> None:
    close(fleet)
    if delivery == "immediate":
        immediate(fleet)
    add_v3(fleet)
    draft = roll_out(fleet, *CANARY_FIRST, release=V3, start=False)
    before = told(fleet)
    assert before[1] != V3
    refusal = fleet.refused("delete from public.rollouts where id = %s", draft)
    assert refusal.kind == "rollout_stays"
    fleet.sql("update public.rollouts set release_id = %s where id = %s", V2, draft, who="operator")
    assert told(fleet)[1] != V3


@pytest.mark.parametrize("way", ["made available", "template taken away"])
def test_what_has_a_template_is_never_given_outside_a_rollout(fleet: Fleet, way: str) -> None:
    """However the release came to be available: as a withdrawn row that is made available, or before the branch changed."""
    immediate(fleet)
    fleet.sql("update public.branches set rollout_template = 'staged' where name = 'main'", who="operator")
    fleet.sql(
        "insert into public.releases (id, commit_sha, version, state) values (%s, repeat('9', 40), 'v3', %s)",
        V3, "withdrawn" if way == "made available" else "available", who="operator",
    )  # fmt: skip
    if way == "made available":
        fleet.sql("update public.releases set state = 'available' where id = %s", V3, who="operator")
    else:
        fleet.sql("select public.cancel_rollout((select id from public.rollouts))", who="operator")
        fleet.sql("update public.branches set rollout_template = null where name = 'main'", who="operator")
    assert told(fleet, OTHER) != ("update", V3)


# An immediate branch


def test_an_immediate_branch_gives_a_release_when_it_is_added(fleet: Fleet) -> None:
    immediate(fleet)
    fleet.messages()
    add_v3(fleet)
    assert set(fleet.woken().values()) == {"release_added"}
    assert told(fleet) == ("update", V3)
    assert detail(ask(fleet), "release") == "v3 is the newest of branch main."


def test_making_a_branch_immediate_wakes_its_devices(fleet: Fleet) -> None:
    immediate(fleet)
    assert fleet.woken() == {f"device:{DEVICE}": "branch_immediate", f"device:{OTHER}": "branch_immediate"}
    assert told(fleet) == ("update", V2)


def test_a_rollout_that_goes_back_outranks_the_release_it_takes_back(fleet: Fleet) -> None:
    immediate(fleet)
    fleet.report(V2)
    back = roll_out(fleet, release=V1, allow_downgrade=True)
    assert told(fleet) == ("update", V1)
    finish(fleet, back, release=V1)
    assert state(fleet, back) == "completed"
    assert told(fleet) == ("run", V1)
    assert told(fleet, OTHER) == ("update", V1)
    # What is added afterwards is said later.
    add_v3(fleet)
    assert told(fleet) == ("update", V3)


# What was said last


def test_new_moved_and_reactivated_devices_get_what_a_completed_rollout_gave(fleet: Fleet) -> None:
    rollout = complete(fleet)
    make_devices(fleet, 1, prefix="new")
    moved = "update public.devices set branch = %s where id = %s"
    fleet.sql(moved, "staging", OTHER, who="operator")
    assert told(fleet, OTHER) == ("run", None)
    fleet.sql(moved, "main", OTHER, who="operator")
    suspended = "update public.devices set state = 'active', segment = 'early' where name = 'suspended'"
    fleet.sql(suspended, who="operator")
    for device in (device_id(fleet, "new1"), OTHER, device_id(fleet, "suspended")):
        answer = ask(fleet, device)
        assert (answer["action"], answer["rollout_id"]) == ("update", str(rollout))
    check_counters(fleet)


@pytest.mark.parametrize("stage", [{"segment": "canary"}, {"percent": 0}])
def test_a_completed_rollout_counts_for_all_that_its_branch_role_and_selector_take(
    fleet: Fleet, stage: dict[str, Any]
) -> None:
    """Also for a device that none of its stages includes, under the limits of the last one."""
    make_devices(fleet, 1, prefix="kiosk")
    kiosk = device_id(fleet, "kiosk1")
    fleet.sql("insert into public.device_roles (name) values ('kiosk')")
    fleet.sql("update public.devices set role = 'kiosk' where id = %s", kiosk)
    rollout = roll_out(
        fleet, {"segment": "canary"}, {**stage, "max_in_flight": 1}, role="beacon", start=False
    )
    told_before = fleet.one("select private.outlook(%s, %s)", V2, rollout)
    assert told_before["in_no_stage"] == 1
    assert "When all stages are completed, it is for 1 more device" in told_before["summary"]
    fleet.sql("select public.start_rollout(%s)", rollout, who="operator")
    assert told(fleet, OTHER) == ("run", None)
    ask(fleet)
    fleet.messages()
    finish(fleet, rollout)
    tick(fleet)
    assert state(fleet, rollout) == "completed"
    assert fleet.woken() == {f"device:{OTHER}": "rollout_completed"}
    answer = ask(fleet, OTHER)
    assert (answer["action"], answer["rollout_id"]) == ("update", str(rollout))
    assert (
        detail(answer, "stage")
        == "The rollout is completed, so it is for every device that its branch, role and selector take (stage 2)."
    )
    assert told(fleet, kiosk) == ("run", None)
    make_devices(fleet, 1, prefix="new")
    assert gates(ask(fleet, device_id(fleet, "new1")))["slot"] == "wait"
    check_counters(fleet)


def test_what_a_stage_that_was_never_opened_holds_is_not_given_by_completing(fleet: Fleet) -> None:
    rollout = roll_out(
        fleet, {"segment": "canary", "soak_s": 3600}, {"segment": "stable", "needs_approval": True}
    )
    fleet.sql("update public.rollouts set state = 'completed' where id = %s", rollout)
    assert told(fleet, OTHER) == ("run", None)
    fleet.sql("update public.devices set segment = 'early' where id = %s", OTHER)
    assert told(fleet, OTHER) == ("update", V2)


def test_a_superseded_rollout_goes_on_where_an_open_stage_held_the_device(fleet: Fleet) -> None:
    first = roll_out(fleet, {"segment": "canary"}, {"segment": "stable"}, release=V1)
    roll_out(fleet, {"segment": "early", "soak_s": 3600}, {}, release=V2)
    assert state(fleet, first) == "superseded"
    assert ask(fleet)["rollout_id"] == str(first)
    assert told(fleet) == ("update", V1)
    assert told(fleet, OTHER) == ("run", None)


def test_a_cancelled_rollout_is_kept_by_who_runs_it_and_given_to_nobody_else(fleet: Fleet) -> None:
    close(fleet)
    complete(fleet, V1)
    second = roll_out(fleet, release=V2)
    ask(fleet)
    finish(fleet, second)
    make_devices(fleet, 1, prefix="late")
    late = device_id(fleet, "late1")
    assert told(fleet, late) == ("update", V2)
    fleet.sql("select public.cancel_rollout(%s)", second, who="operator")
    assert told(fleet) == ("run", V2)
    assert set(gates(ask(fleet)).values()) == {"pass"}
    assert told(fleet, OTHER) == ("update", V1)
    # It holds a slot, so it finishes.
    assert told(fleet, late) == ("update", V2)


def test_a_new_device_never_gets_what_was_given_before_a_superseded_rollout(fleet: Fleet) -> None:
    """v1 was given at once; v2's rollout was superseded by v3's, which was cancelled."""
    immediate(fleet)
    add_v3(fleet)
    fleet.report(V1)
    fleet.report(V1, who="other device")
    make_devices(fleet, 1, prefix="new")
    new = device_id(fleet, "new1")
    second = roll_out(fleet, *CANARY_FIRST)
    ask(fleet)
    finish(fleet, second)
    third = roll_out(fleet, *CANARY_FIRST, release=V3)
    fleet.sql("select public.cancel_rollout(%s)", third, who="operator")
    assert told(fleet, new) == ("run", None)
    assert told(fleet) == ("run", V2)
    roll_out(fleet, {"segment": "stable"}, {})
    assert told(fleet, OTHER) == ("update", V2)
    assert told(fleet, new) == ("update", V2)


@pytest.mark.parametrize(
    ("how", "gate"),
    [
        ("update public.releases set state = 'withdrawn' where id = '{v2}'", None),
        ("insert into public.halts (scope, target, reason) values ('release', '{v2}', 'smoke')", "release_halt"),
        ("insert into public.halts (scope, target, reason) values ('rollout', '{r}', 'smoke')", "release_halt"),
        ("insert into public.known_bad_patterns (release_id, selector, reason) values ('{v2}', '{{\"role\": \"beacon\"}}', 'smoke')", "known_bad"),
    ],
)  # fmt: skip
def test_what_may_not_be_given_any_more_leaves_what_was_said_before(
    fleet: Fleet, how: str, gate: str | None
) -> None:
    complete(fleet, V1)
    fleet.sql("update public.devices set state = 'active' where name = 'suspended'", who="operator")
    rollout = complete(fleet, V2)
    fleet.sql(how.format(v2=V2, r=rollout), who="operator")
    answer = ask(fleet, OTHER)
    assert (answer["action"], answer["release"]["id"]) == ("update", str(V1))
    noted = {told["gate"] for told in answer["gates"] if told["verdict"] != "pass"}
    assert noted == ({gate} if gate else set())


def test_what_comes_from_a_rollout_keeps_its_slots_rate_and_halt_rule(fleet: Fleet) -> None:
    make_devices(fleet, 4, prefix="late")
    late = [device_id(fleet, f"late{n}") for n in range(1, 5)]
    rollout = roll_out(
        fleet, {"min_attempted": 1}, max_in_flight=1, halt_max_failures=1, halt_consecutive_failures=None
    )
    ask(fleet)
    finish(fleet, rollout)
    roll_out(fleet, {"segment": "early", "soak_s": 3600}, {}, release=V1, allow_downgrade=True)
    assert state(fleet, rollout) in ("completed", "superseded")
    assert [told(fleet, device)[0] for device in late] == ["update", "run", "run", "run"]
    finish(fleet, rollout, late[0], outcome="rolled_back")
    assert fleet.one("select count(*) from public.halts where lifted_at is null") == 1
    assert told(fleet, late[1]) == ("run", None)
    check_counters(fleet)


def test_the_next_in_line_of_a_superseded_rollout_is_woken(fleet: Fleet) -> None:
    rollout = roll_out(fleet, max_in_flight=1)
    ask(fleet)
    roll_out(fleet, {"segment": "early", "soak_s": 3600}, {}, release=V1, allow_downgrade=True)
    assert state(fleet, rollout) == "superseded"
    assert told(fleet, OTHER) == ("run", None)
    fleet.messages()
    finish(fleet, rollout)
    assert fleet.woken().get(f"device:{OTHER}") == "slot_free"
    assert told(fleet, OTHER) == ("update", V2)


# B9: who has begun finishes


@pytest.mark.parametrize("end", ["superseded", "superseded by one that holds it", "cancelled"])
def test_who_holds_a_slot_of_a_rollout_that_is_over_finishes(fleet: Fleet, end: str) -> None:
    add_v3(fleet)
    fleet.report(V1)
    rollout = roll_out(fleet)
    assert told(fleet) == ("update", V2)
    if end == "cancelled":
        fleet.sql("select public.cancel_rollout(%s)", rollout, who="operator")
    else:
        roll_out(fleet, {} if "holds" in end else {"segment": "early", "soak_s": 3600}, {}, release=V3)
    answer = ask(fleet)
    assert (answer["action"], answer["release"]["id"]) == ("update", str(V2))
    assert gates(answer)["slot"] == "pass"
    finish(fleet, rollout)
    assert told(fleet)[1] == (V3 if "holds" in end else V2)


def test_who_holds_a_slot_of_a_halted_release_gets_the_one_that_mends_it(fleet: Fleet) -> None:
    add_v3(fleet)
    roll_out(fleet)
    ask(fleet)
    fleet.sql(
        "insert into public.halts (scope, target, reason) values ('release', %s, 'x')",
        str(V2),
        who="operator",
    )
    roll_out(fleet, release=V3)
    assert told(fleet) == ("update", V3)


def test_of_two_rollouts_started_by_one_statement_one_runs(fleet: Fleet) -> None:
    roll_out(fleet, release=V1, start=False)
    roll_out(fleet, release=V2, start=False)
    fleet.sql("update public.rollouts set state = 'running' where state = 'draft'", who="operator")
    states = fleet.sql("select state::text from public.rollouts order by 1")
    assert [row[0] for row in states] == ["running", "superseded"]
    running = fleet.one("select release_id from public.rollouts where state = 'running'")
    assert told(fleet) == ("update", running)


@pytest.mark.parametrize("stages", [[{}], [{"segment": "early", "soak_s": 3600}, {}]])
def test_a_stepping_stone_that_is_superseded_goes_on_for_who_needs_it(
    fleet: Fleet, stages: list[dict[str, object]]
) -> None:
    fleet.report(V1)
    make_devices(fleet, 1, segment="early", prefix="early")
    fleet.sql(
        "insert into public.releases (id, commit_sha, version, requires_release) values (%s, repeat('9', 40), 'v3', %s)",
        V3, V2, who="operator",
    )  # fmt: skip
    step = roll_out(fleet, *stages, max_in_flight=1)
    last = roll_out(fleet, release=V3)
    assert state(fleet, step) == "superseded"
    answer = ask(fleet)
    assert (answer["action"], answer["rollout_id"]) == ("update", str(step))
    check_counters(fleet)
    finish(fleet, step)
    assert ask(fleet)["rollout_id"] == str(last)
    tick(fleet)


# A release and who gets it, in one transaction


def add(fleet: Fleet, **arguments: object) -> dict[str, Any]:
    given = {"commit_sha": "9" * 40, "version": "v3", **arguments}
    names = ", ".join(f"{name} => %s" for name in given)
    values = [json.dumps(v) if isinstance(v, (list, dict)) else v for v in given.values()]
    added = fleet.one(f"select public.add_release({names})", *values, who="operator")
    assert isinstance(added, dict)
    return added


def test_adding_a_release_says_who_gets_it_and_when(fleet: Fleet) -> None:
    fleet.sql("update public.devices set segment = 'early' where id = %s", OTHER)
    nobody = add(fleet, dry_run=True)
    assert (nobody["delivery"], nobody["devices"]) == ("nobody", 0)
    assert nobody["summary"] == "v3 goes to nobody yet: branch main gives by rollout only."
    staged = add(
        fleet, dry_run=True, stages=[{"segment": "canary", "soak_s": 3600}, {"needs_approval": True}]
    )
    assert (staged["delivery"], staged["devices"]) == ("rollout", 2)
    assert [(stage["stage"], stage["devices"]) for stage in staged["stages"]] == [(1, 1), (2, 1)]
    assert staged["stages"][0]["earliest"] < staged["stages"][1]["earliest"]
    immediate(fleet)
    assert add(fleet, dry_run=True)["summary"] == "v3 goes to 2 devices at once: branch main is immediate."
    # It was said only.
    assert fleet.one("select count(*) from public.releases where version = 'v3'") == 0
    assert fleet.one("select count(*) from public.rollouts") == 0


def test_adding_a_release_starts_its_rollout_in_the_same_transaction(fleet: Fleet) -> None:
    immediate(fleet)
    fleet.sql("update public.branches set rollout_template = 'at-once' where name = 'main'", who="operator")
    fleet.messages()
    added = add(fleet, stages=[{"segment": "canary", "soak_s": 3600}, {}], options={"max_in_flight": 1})
    assert fleet.woken() == {f"device:{DEVICE}": "stage_opened"}
    assert ask(fleet)["rollout_id"] == added["rollout_id"]
    assert told(fleet, OTHER)[1] == V2
    assert fleet.one("select count(*) from public.rollouts") == 1
    refusal = fleet.refused("select public.add_release(repeat('8', 40), stages => '[]')", who="operator")
    assert refusal.kind == "bad_stages"
    assert fleet.one("select count(*) from public.releases where commit_sha = repeat('8', 40)") == 0


# Going back is an update, too


def test_a_device_is_not_taken_back_to_a_release_that_it_rolled_back_from(fleet: Fleet) -> None:
    fleet.report(V1)
    rollout = roll_out(fleet)
    ask(fleet)
    finish(fleet, rollout)
    fleet.sql(
        "insert into public.halts (scope, target, reason, roll_back) values ('release', %s, 'it drains the battery', true)",
        str(V2), who="operator",
    )  # fmt: skip
    answer = ask(fleet)
    assert (answer["action"], answer["release"]["id"]) == ("rollback", str(V1))
    finish(fleet, None, outcome="rolled_back", release=V1)
    answer = ask(fleet)
    assert (answer["action"], answer["release"]["id"]) == ("run", str(V2))
    assert detail(answer, "roll_back").endswith("but no release to go back to is known.")
    assert "known bad for it" in next(gate["hint"] for gate in answer["gates"] if gate["gate"] == "roll_back")


def test_going_back_after_a_withdrawal_keeps_the_limits_of_the_rollout_it_goes_back_to(fleet: Fleet) -> None:
    make_devices(fleet, 5)
    everybody = [row[0] for row in fleet.sql("select id from public.devices where state = 'active'")]
    for release in (V1, V2):
        rollout = roll_out(fleet, release=release, max_in_flight=1)
        for device in everybody:
            assert told(fleet, device) == ("update", release)
            finish(fleet, rollout, device, release=release)
    fleet.sql("update public.releases set state = 'withdrawn' where id = %s", V2, who="operator")
    back = [told(fleet, device) for device in everybody]
    assert sorted(back, key=str) == [*[("run", V2)] * 6, ("update", V1)]
    check_counters(fleet)
