"""Going back is an update, too: by a halt, a withdrawal or a command, it keeps the limits of slots."""

from __future__ import annotations

import json
from typing import Any
from uuid import UUID

import pytest

from tests.support.identities import V1, V2, Fleet, detail, gates
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

FEW = 4


def on_v2(
    fleet: Fleet, v1: str = "rollout", v2: str = "rollout", **limits: Any
) -> tuple[list[UUID], UUID | None]:
    """Some devices that got v1 and then v2, each by a rollout or from an immediate branch."""
    fleet.sql("update public.devices set state = 'suspended' where state = 'active'")
    fleet.sql("update public.branches set delivery = 'rollout_only' where true")
    make_devices(fleet, FEW)
    rollout = None
    for release, how in ((V1, v1), (V2, v2)):
        rollout = None
        if how == "rollout":
            own = limits if release == V2 else {}
            rollout = roll_out(
                fleet, release=release, halt_failure_ratio=None, halt_consecutive_failures=None, **own
            )
            fleet.sql(
                "insert into public.rollout_claims (rollout_id, device_id, stage, state, claimed_at, lease_until, ended_at, from_release, to_release) "
                "select %s, d.id, 1, 'succeeded', clock_timestamp(), now(), now(), %s, %s from public.devices d where d.state = 'active'",
                rollout, V1 if release == V2 else None, release,
            )  # fmt: skip
        fleet.sql(
            "insert into public.device_status (device_id, current_release) select d.id, %s from public.devices d where d.state = 'active' "
            "on conflict (device_id) do update set current_release = excluded.current_release",
            release,
        )
    if "immediate" in (v1, v2):
        fleet.sql("update public.branches set delivery = 'immediate' where true")
    return [device_id(fleet, f"bulk{n}") for n in range(1, FEW + 1)], rollout


def take_back(
    fleet: Fleet, way: str, rollout: UUID | None, devices: list[UUID], at_once: bool = False
) -> None:
    if way == "halt":
        fleet.sql(
            "insert into public.halts (scope, target, reason, roll_back, all_at_once) values ('release', %s, 'smoke', true, %s)",
            str(V2), at_once, who="operator",
        )  # fmt: skip
    elif way == "halt of the rollout":
        fleet.sql(
            "insert into public.halts (scope, target, reason, roll_back, all_at_once) values ('rollout', %s, 'smoke', true, %s)",
            str(rollout), at_once, who="operator",
        )  # fmt: skip
    elif way == "withdrawal":
        fleet.sql(
            "update public.releases set state = 'withdrawn', all_at_once = %s where id = %s",
            at_once,
            V2,
            who="operator",
        )
    else:
        for device in devices:
            fleet.sql(
                "insert into public.device_commands (device_id, kind, args) values (%s, 'rollback', %s)",
                device, json.dumps({"all_at_once": True} if at_once else {}), who="operator",
            )  # fmt: skip


def goes_back(fleet: Fleet, device: UUID) -> bool:
    answer = ask(fleet, device)
    commanded = any(told["kind"] == "rollback" for told in answer["commands"])
    assert not (commanded and answer["action"] == "rollback")
    if answer["action"] != "run":
        assert answer["release"]["id"] == str(V1)
    return commanded or answer["action"] != "run"


WAYS = ["halt", "halt of the rollout", "withdrawal", "command"]


@pytest.mark.parametrize("way", WAYS)
def test_going_back_keeps_the_limits_of_the_rollout_that_brought_the_release(fleet: Fleet, way: str) -> None:
    devices, rollout = on_v2(fleet, max_in_flight=2)
    take_back(fleet, way, rollout, devices)
    assert [goes_back(fleet, device) for device in devices] == [True, True, False, False]
    answer = ask(fleet, devices[2])
    assert gates(answer)["roll_back_slot"] == "wait"
    assert (
        detail(answer, "roll_back_slot")
        == "It waits for a slot to go back from v2. All 2 slots of the rollout are taken."
    )
    assert "roll_back_slot" in fleet.explain(devices[2])["blocked_by"]
    check_counters(fleet)
    fleet.messages()
    finish(fleet, None, devices[0], release=V1)
    assert fleet.woken() == {f"device:{devices[2]}": "slot_free"}
    assert [goes_back(fleet, device) for device in devices[2:]] == [True, False]
    check_counters(fleet)


@pytest.mark.parametrize("way", WAYS)
def test_all_at_once_has_to_be_said(fleet: Fleet, way: str) -> None:
    devices, rollout = on_v2(fleet, max_in_flight=1, max_per_minute=5)
    fleet.sql("update public.fleet_settings set max_in_flight = 1 where id")
    take_back(fleet, way, rollout, devices, at_once=True)
    assert all(goes_back(fleet, device) for device in devices)
    check_counters(fleet)


@pytest.mark.parametrize(
    ("v1", "v2"), [("immediate", "rollout"), ("rollout", "immediate"), ("immediate", "immediate")]
)
def test_a_withdrawal_onto_what_an_immediate_branch_gives_keeps_the_limits(
    fleet: Fleet, v1: str, v2: str
) -> None:
    """Of the rollout that brought the release; where none did, those of the one it goes back to, or only the fleet's."""
    devices, rollout = on_v2(fleet, v1, v2, max_in_flight=1)
    if rollout is None:
        fleet.sql("update public.fleet_settings set max_in_flight = 1 where id")
    take_back(fleet, "withdrawal", rollout, devices)
    assert [goes_back(fleet, device) for device in devices] == [True, *[False] * 3]
    # Without a rollout there is no line, so it asks again soon.
    assert (v1, v2) != ("immediate", "immediate") or ask(fleet, devices[1])["next_poll_s"] <= 61
    finish(fleet, None, devices[0], release=V1)
    assert [goes_back(fleet, device) for device in devices[1:3]] == [True, False]
    check_counters(fleet)


def test_who_was_given_the_release_without_a_slot_goes_back_under_its_limits_too(fleet: Fleet) -> None:
    """Pinned to it to try it: then the rollout began."""
    devices, rollout = on_v2(fleet, max_in_flight=1)
    fleet.sql("delete from public.rollout_claims where rollout_id = %s", rollout)
    take_back(fleet, "withdrawal", rollout, devices)
    assert sum(goes_back(fleet, device) for device in devices) == 1


def test_an_open_rollout_that_takes_over_has_its_own_limits(fleet: Fleet) -> None:
    devices, rollout = on_v2(fleet, max_in_flight=1)
    take_back(fleet, "withdrawal", rollout, devices)
    roll_out(fleet, release=V1, max_in_flight=3, allow_downgrade=True)
    assert sum(goes_back(fleet, device) for device in devices) == 3


def test_a_rate_and_the_limit_of_the_fleet_hold_for_going_back(fleet: Fleet) -> None:
    devices, rollout = on_v2(fleet, max_per_minute=6)
    take_back(fleet, "halt", rollout, devices)
    # Four started v2 in this minute.
    assert sum(goes_back(fleet, device) for device in devices) == 2
    assert ask(fleet, devices[3])["next_poll_s"] <= 62
    fleet.sql("update public.rollout_claims set claimed_at = claimed_at - interval '2 minutes' where true")
    fleet.sql("update public.fleet_settings set max_in_flight = 3 where id")
    assert sum(goes_back(fleet, device) for device in devices[2:]) == 1


@pytest.mark.parametrize(
    ("way", "how"),
    [
        ("halt", "row"),
        ("halt", "silence"),
        ("withdrawal", "row"),
        ("command", "row"),
        ("command", "answer"),
        ("command", "silence"),
    ],
)
def test_what_fails_to_go_back_is_told_and_makes_room(fleet: Fleet, way: str, how: str) -> None:
    devices, rollout = on_v2(fleet, max_in_flight=1)
    take_back(fleet, way, rollout, devices)
    assert goes_back(fleet, devices[0])
    if how == "row":
        finish(fleet, None, devices[0], "failed", release=V1)
    elif how == "answer":
        fleet.sql(
            "update public.device_commands set state = 'failed', result = '{\"message\": \"smoke\"}' where device_id = %s",
            devices[0],
        )
    else:
        fleet.sql("update public.device_status set reported_at = now() - interval '1 day' where true")
        tick(fleet, "now() + interval '2 hours'")
    told = fleet.one(
        "select summary from public.alerts where kind = 'roll_back_failed' and resolved_at is null"
    )
    assert told.startswith("bulk1 did not get back from v2")
    assert goes_back(fleet, devices[1])
    check_counters(fleet)
    progress = fleet.one("select public.rollout_progress(%s)", rollout, who="viewer")["going_back"]
    assert progress == {"in_flight": 1, "succeeded": 0, "failed": 1}
    finish(fleet, None, devices[1], release=V1)
    finish(fleet, None, devices[0], release=V1)
    fleet.sql("update public.device_commands set state = 'succeeded' where state = 'queued'")
    tick(fleet)
    assert (
        fleet.sql("select 1 from public.alerts where kind = 'roll_back_failed' and resolved_at is null") == []
    )


@pytest.mark.parametrize("how", ["held", "lifted", "retired", "suspended"])
def test_who_is_not_to_go_back_any_more_makes_room(fleet: Fleet, how: str) -> None:
    devices, rollout = on_v2(fleet, max_in_flight=1)
    take_back(fleet, "halt", rollout, devices)
    assert goes_back(fleet, devices[0])
    if how == "held":
        fleet.sql("update public.devices set hold = true where id = %s", devices[0])
    elif how == "lifted":
        fleet.sql("update public.halts set lift_reason = 'x' where true")
    else:
        fleet.sql(f"update public.devices set state = '{how}' where id = %s", devices[0])
    if how in ("held", "lifted"):
        assert not goes_back(fleet, devices[0])
    else:
        tick(fleet)
    check_counters(fleet)
    assert fleet.one("select state::text from public.roll_back_slots") == "released"
    assert fleet.sql("select 1 from public.alerts where kind = 'roll_back_failed'") == []
    assert how == "lifted" or goes_back(fleet, devices[1])


def test_slots_to_go_back_end_in_parts(fleet: Fleet) -> None:
    devices, rollout = on_v2(fleet)
    take_back(fleet, "halt", rollout, devices)
    assert all(goes_back(fleet, device) for device in devices)
    fleet.sql("update public.devices set state = 'suspended' where id = %s", devices[0])
    expire = "select private.expire_ways_back(now() + interval '1 day', for_at_most => '0')"
    assert sorted(fleet.one(expire) for _ in range(FEW + 1)) == [0, 0, 1, 1, 1]
    check_counters(fleet)


def test_what_would_go_back_is_counted_with_its_limits(fleet: Fleet) -> None:
    devices, rollout = on_v2(fleet, max_in_flight=2, max_per_minute=5)
    fleet.sql("update public.devices set state = 'suspended' where id = %s", devices[0])
    fleet.sql("update public.fleet_settings set max_in_flight = 7 where id")
    preview = "select public.preview_going_back(%s)"
    told = fleet.one(preview, V2, who="viewer")
    assert told["devices"] == 3
    assert [(limit["rollout_id"], limit["devices"]) for limit in told["limits"]] == [(str(rollout), 3)]
    assert told["summary"] == (
        "3 devices go back from v2, under these limits: rollout v2 (3 devices): 2 at once, 5 a minute; the whole fleet: 7 at once."
    )
    assert fleet.one(preview, V1, who="viewer")["devices"] == 0


def test_who_would_not_go_back_is_not_counted_and_stages_have_limits(fleet: Fleet) -> None:
    """A withdrawal leaves pinned devices alone, a halt does not; and the question agrees with what happens then."""
    devices, rollout = on_v2(fleet, max_in_flight=3)
    fleet.sql("update public.rollout_stages set max_in_flight = 1 where rollout_id = %s", rollout)
    fleet.sql("update public.devices set pinned_release = %s where id = %s", V2, devices[0])
    fleet.sql("update public.devices set hold = true where id = %s", devices[1])
    fleet.sql("update public.rollout_claims set from_release = null where device_id = %s", devices[2])
    told = fleet.one("select public.preview_going_back(%s)", V2, who="viewer")
    assert (told["devices"], told["kept"]) == (2, {"pinned": 1, "held": 1, "nowhere": 0})
    assert told["summary"] == (
        "2 devices go back from v2, under these limits: rollout v2 (2 devices): 3 at once, its stage 1 (2 devices): 1 at once; "
        "the whole fleet: no limit. Kept on it: 1 device held or halted, 1 device pinned."
    )
    for of in (None, rollout):
        told = fleet.one(
            "select public.preview_going_back(%s, by_halt => true, rollout_id => %s)", V2, of, who="viewer"
        )
        assert (told["devices"], told["kept"]) == (2, {"pinned": 0, "held": 1, "nowhere": 1})
    (other,) = fleet.sql("select id from public.rollouts where id <> %s limit 1", rollout)[0]
    told = fleet.one(
        "select public.preview_going_back(%s, by_halt => true, rollout_id => %s)", V2, other, who="viewer"
    )
    assert told["summary"] == "No device goes back from v2."
    at_once = "select public.preview_going_back(%s, all_at_once => true)"
    fleet.sql("update public.devices set hold = true where id = %s", devices[3])
    assert fleet.one(at_once, V2, who="viewer")["summary"] == (
        "1 device goes back from v2, all at once. Kept on it: 2 devices held or halted, 1 device pinned."
    )
    fleet.sql("update public.devices set hold = false where true")
    take_back(fleet, "halt", rollout, devices, at_once=True)
    assert [ask(fleet, device)["action"] for device in devices] == ["rollback", "rollback", "run", "rollback"]


def test_what_no_rollout_brought_would_go_back_under_the_limit_of_the_fleet(fleet: Fleet) -> None:
    on_v2(fleet, v2="immediate")
    told = fleet.one("select public.preview_going_back(%s)", V2, who="viewer")
    assert told["summary"] == (
        "4 devices go back from v2, under these limits: no rollout (4 devices): that of the fleet only; the whole fleet: no limit."
    )


def test_who_tried_to_go_back_too_often_is_left_alone(fleet: Fleet) -> None:
    devices, rollout = on_v2(fleet, max_in_flight=1, max_attempts=2)
    take_back(fleet, "halt", rollout, devices)
    for _ in range(2):
        assert goes_back(fleet, devices[0])
        finish(fleet, None, devices[0], "failed", release=V1)
    answer = ask(fleet, devices[0])
    assert (answer["action"], gates(answer)["roll_back_slot"]) == ("run", "refuse")
    assert goes_back(fleet, devices[1])


def test_a_release_that_is_available_again_is_not_taken_back_at_once_the_next_time(fleet: Fleet) -> None:
    take_back(fleet, "withdrawal", None, [], at_once=True)
    fleet.sql("update public.releases set state = 'available' where id = %s", V2, who="operator")
    assert fleet.one("select all_at_once from public.releases where id = %s", V2) is False
    refusal = fleet.refused(
        "insert into public.halts (scope, reason, all_at_once) values ('fleet', 'x', true)"
    )
    assert refusal.kind == "roll_back_scope"
