"""What policy told to stay is no failure: its slot is given back, it stands in line again, and what it says still counts."""

from __future__ import annotations

from typing import Any
from uuid import UUID

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
    window,
)

pytestmark = OLDER_SERVER_IN_FULL

EDITS = {
    "held": f"update public.devices set hold = true where id = '{DEVICE}'",
    "held for a while": f"update public.devices set hold = true, hold_until = now() + interval '1 day' where id = '{DEVICE}'",
    "fleet halted": "insert into public.halts (reason) values ('fair')",
    "segment halted": "insert into public.halts (scope, target, reason) values ('segment', 'canary', 'fair')",
    "pinned": f"update public.devices set pinned_release = '{V1}' where id = '{DEVICE}'",
    "moved to another branch": f"update public.devices set branch = 'staging' where id = '{DEVICE}'",
    "moved out of the selector": f"update public.devices set labels = '{{}}' where id = '{DEVICE}'",
    "known bad": f"insert into public.known_bad_patterns (release_id, selector, reason) values ('{V2}', '{{\"segment\": \"canary\"}}', 'disk')",
    "window shut": f"update public.devices set maintenance_window = 'w' where id = '{DEVICE}'",
    "window of the segment": "update public.segments set maintenance_window = 'w' where name = 'canary'",
    "suspended": f"update public.devices set state = 'suspended' where id = '{DEVICE}'",
    "retired": f"update public.devices set state = 'retired' where id = '{DEVICE}'",
}
UNDONE = {
    "held": f"update public.devices set hold = false where id = '{DEVICE}'",
    "fleet halted": "update public.halts set lift_reason = 'over' where lifted_at is null",
    "pinned": f"update public.devices set pinned_release = null where id = '{DEVICE}'",
    "suspended": f"update public.devices set state = 'active' where id = '{DEVICE}'",
}
#: Who is not answered any more.
GONE = ("suspended", "retired")
#: What stops the other one, too.
FOR_ALL = ("fleet halted",)


def rollout_of_one_slot(fleet: Fleet) -> UUID:
    """DEVICE holds the only slot; OTHER is in line."""
    fleet.sql("insert into public.maintenance_windows (name) values ('w')")
    fleet.sql('update public.devices set labels = \'{"site": "rome"}\' where true')
    fleet.report(V1)
    fleet.report(V1, who="other device")
    rollout = roll_out(fleet, max_in_flight=1, lease_s=600, selector={"labels": {"site": "rome"}})
    assert ask(fleet)["action"] == "update"
    assert ask(fleet, OTHER)["action"] == "run"
    fleet.messages()
    return rollout


def begin(fleet: Fleet) -> None:
    """DEVICE reports that it is on its way."""
    fleet.sql(
        "update public.device_status set state = 'updating', target_release = %s where device_id = %s", V2, DEVICE, who="device"
    )  # fmt: skip


def slot(fleet: Fleet, device: UUID = DEVICE) -> str:
    return str(fleet.one("select state::text from public.rollout_claims where device_id = %s", device))


def progress(fleet: Fleet, rollout: UUID) -> dict[str, Any]:
    found: dict[str, Any] = fleet.one("select public.rollout_progress(%s)", rollout, who="viewer")
    return found


@pytest.mark.parametrize("edit", EDITS)
def test_who_has_not_begun_gives_its_slot_back_at_the_edit(fleet: Fleet, edit: str) -> None:
    rollout = rollout_of_one_slot(fleet)
    fleet.sql(EDITS[edit], who="operator")
    assert slot(fleet) == "released"
    if edit not in FOR_ALL:
        assert fleet.woken().get(f"device:{OTHER}") == "slot_free"
        assert ask(fleet, OTHER)["action"] == "update"
    assert progress(fleet, rollout)["failed"] == 0
    check_counters(fleet)


@pytest.mark.parametrize("edit", [edit for edit in EDITS if "window" not in edit])
def test_who_has_begun_gives_it_back_when_it_is_told_to_stay(fleet: Fleet, edit: str) -> None:
    rollout = rollout_of_one_slot(fleet)
    begin(fleet)
    fleet.sql(EDITS[edit], who="operator")
    if edit in GONE:
        assert slot(fleet) == "released"
    else:
        assert slot(fleet) == "claimed"
        ask(fleet)
        assert slot(fleet) == "released"
    if edit not in FOR_ALL:
        assert ask(fleet, OTHER)["action"] == "update"
    tick(fleet, "now() + interval '1 day'")
    assert slot(fleet) == "released"
    assert fleet.sql("select reason from public.halts where cause <> 'operator'") == []
    assert progress(fleet, rollout)["in_flight"] == 0
    check_counters(fleet)


@pytest.mark.parametrize("outcome", ["succeeded", "rolled_back", "failed", "health"])
@pytest.mark.parametrize("edit", ["held", "pinned", "fleet halted"])
def test_what_it_says_afterwards_counts(fleet: Fleet, edit: str, outcome: str) -> None:
    rollout = rollout_of_one_slot(fleet)
    begin(fleet)
    fleet.sql(EDITS[edit], who="operator")
    ask(fleet)
    assert slot(fleet) == "released"
    if outcome == "health":
        fleet.report(V2)
    else:
        finish(fleet, rollout, outcome=outcome)
    good = outcome in ("health", "succeeded")
    found = progress(fleet, rollout)
    assert (slot(fleet), found["succeeded"], found["failed"]) == (
        "succeeded" if good else outcome, int(good), int(not good)
    )  # fmt: skip
    check_counters(fleet)


@pytest.mark.parametrize("edit", UNDONE)
def test_it_stands_in_line_again(fleet: Fleet, edit: str) -> None:
    rollout = rollout_of_one_slot(fleet)
    fleet.sql(EDITS[edit], who="operator")
    fleet.sql(UNDONE[edit], who="operator")
    assert ask(fleet)["action"] == "update"
    assert fleet.sql(
        "select state::text, attempts from public.rollout_claims where device_id = %s", DEVICE
    ) == [("claimed", 1)]
    finish(fleet, rollout)
    assert progress(fleet, rollout)["succeeded"] == 1
    check_counters(fleet)


def test_who_gave_its_slot_back_is_woken_like_the_others(fleet: Fleet) -> None:
    rollout = rollout_of_one_slot(fleet)
    fleet.sql("update public.devices set hold = true where true", who="operator")
    found = progress(fleet, rollout)
    assert (found["stages"][0]["waiting"], found["in_flight"]) == (2, 0)
    fleet.sql("update public.devices set hold = false where true", who="operator")
    fleet.messages()
    fleet.sql("update public.rollouts set max_in_flight = 2 where id = %s", rollout, who="operator")
    assert fleet.woken() == {f"device:{DEVICE}": "limits_raised", f"device:{OTHER}": "limits_raised"}


def test_answers_that_were_lost_are_not_blamed_for_a_halt_over_the_weekend(fleet: Fleet) -> None:
    make_devices(fleet, 4)
    rollout = roll_out(fleet)
    devices = [device_id(fleet, f"bulk{n}") for n in range(1, 5)]
    for device in devices[:3]:
        ask(fleet, device)
    fleet.sql("select public.halt_fleet('fair in town')", who="operator")
    for hours in (1, 12, 30, 60):
        for device in devices[:3]:
            assert ask(fleet, device)["action"] == "run"
        tick(fleet, f"now() + interval '{hours} hours'")
    fleet.sql("update public.halts set lift_reason = 'over' where true", who="operator")
    assert progress(fleet, rollout)["failed"] == 0
    assert [ask(fleet, device)["action"] for device in devices] == ["update"] * 4


def test_a_halt_that_the_rule_opens_blames_nobody_else(fleet: Fleet) -> None:
    """Three went dark on their way; the rollout halts, and the others, who had not begun, are told to stay."""
    make_devices(fleet, 6)
    rollout = roll_out(fleet, lease_s=600)
    for number in range(1, 7):
        device = device_id(fleet, f"bulk{number}")
        ask(fleet, device)
        if number < 4:
            fleet.sql(
                "insert into public.device_status (device_id, state, target_release) values (%s, 'updating', %s)", device, V2
            )  # fmt: skip
    fleet.sql("alter table public.device_status disable trigger stamp_reported_at")
    tick(fleet, "now() + interval '2 hours'")
    found = progress(fleet, rollout)
    assert len(found["halts"]) == 1
    assert found["in_flight"] == 0
    assert found["failed"] >= 3
    check_counters(fleet)


def test_who_is_on_its_way_and_silent_has_failed(fleet: Fleet) -> None:
    """Also when it was put on hold after it fell silent: nobody told it."""
    rollout = rollout_of_one_slot(fleet)
    begin(fleet)
    fleet.sql(EDITS["held"], who="operator")
    tick(fleet, "now() + interval '2 hours'")
    assert (slot(fleet), progress(fleet, rollout)["failed"]) == ("expired", 1)


@pytest.mark.parametrize("how", ["tick", "report"])
def test_a_report_of_health_is_proof_when_the_row_is_lost(fleet: Fleet, how: str) -> None:
    rollout = roll_out(fleet, {"segment": "canary"}, {}, lease_s=600)
    ask(fleet)
    if how == "tick":
        # It was said where nobody took note of it.
        fleet.sql("alter table public.device_status disable trigger user")
        fleet.report(V2)
        tick(fleet, "now() + interval '11 hours'")
    else:
        fleet.report(V1)
        fleet.report(V2)
    assert slot(fleet) == "succeeded"
    assert ask(fleet, OTHER)["action"] == "update"
    assert progress(fleet, rollout)["failed"] == 0
    check_counters(fleet)


def test_health_proves_nothing_on_another_release_or_without_it(fleet: Fleet) -> None:
    roll_out(fleet)
    ask(fleet)
    fleet.report(V1)
    fleet.report(V2, state="degraded")
    assert slot(fleet) == "claimed"
    fleet.report(V2)
    assert slot(fleet) == "succeeded"
    fleet.report(V2, state="degraded")
    fleet.report(V2)
    assert slot(fleet) == "succeeded", "health on the release is proof"


# Windows


def _at(fleet: Fleet, minutes: int, duration: int) -> None:
    """A window that opened so many minutes ago."""
    starts: str = fleet.one(f"select ((now() - interval '{minutes} minutes') at time zone 'UTC')::time::text")
    window(fleet, "daily", starts, duration, "UTC")


@pytest.mark.parametrize("begun", [False, True])
def test_an_update_goes_on_outside_its_window_only_if_it_has_begun(fleet: Fleet, begun: bool) -> None:
    fleet.report(V1)
    _at(fleet, 10, 60)
    rollout = roll_out(fleet, lease_s=604800)
    assert ask(fleet)["action"] == "update"
    if begun:
        begin(fleet)
    later = "now() + interval '5 hours'"
    answer = fleet.one(f"select public.explain_device(%s, {later})", DEVICE, who="viewer")
    assert (answer["action"], gates(answer)["window"]) == (("update", "pass") if begun else ("run", "wait"))
    fleet.sql(
        "update public.maintenance_openings set starts_at = starts_at - interval '3 hours' where true",
        who="operator",
    )
    assert slot(fleet) == ("claimed" if begun else "released")
    assert ask(fleet)["action"] == ("update" if begun else "run")
    assert progress(fleet, rollout)["failed"] == 0


def test_an_answer_that_was_lost_in_a_window_is_not_blamed(fleet: Fleet) -> None:
    """It asks again when the window is shut, or only reports: either way the slot is free and nobody failed."""
    fleet.report(V1)
    _at(fleet, 10, 60)
    rollout = roll_out(fleet, lease_s=600)
    assert ask(fleet)["action"] == "update"
    tick(fleet, "now() + interval '5 hours'")
    assert (slot(fleet), progress(fleet, rollout)["failed"]) == ("released", 0)
    assert ask(fleet)["action"] == "update"


@pytest.mark.parametrize(
    "rename",
    [
        "update public.segments set name = 'birds' where name = 'canary'",
        "update public.branches set name = 'trunk' where name = 'main'",
        "update public.device_roles set name = 'lamp' where name = 'beacon'",
    ],
)
def test_a_rename_takes_nobodys_slot(fleet: Fleet, rename: str) -> None:
    roll_out(fleet, {"segment": "canary"}, role="beacon")
    ask(fleet)
    fleet.sql(rename, who="operator")
    assert slot(fleet) == "claimed"
    assert ask(fleet)["action"] == "update"
    check_counters(fleet)
