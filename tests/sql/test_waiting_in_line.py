"""Two at a time, the one held open until the other waits: these fail every time when a lock is missing."""

from __future__ import annotations

from functools import partial

import pytest

from tests.support.identities import V1, V2, Fleet
from tests.support.profiles import OLDER_SERVER_IN_FULL
from tests.support.races import as_operator, ask, ask_or_hear, crowd, until_it_waits
from tests.support.rollout_builders import check_counters, roll_out

pytestmark = OLDER_SERVER_IN_FULL


@pytest.mark.parametrize("where", ["rollout", "stage", "fleet"])
def test_who_asks_while_the_last_slot_is_given_waits_and_gets_none(fleet: Fleet, where: str) -> None:
    first, second = crowd(fleet, 2)
    if where == "fleet":
        # A rollout each, so that only the fleet's own cap can hold them.
        fleet.sql("update public.fleet_settings set max_in_flight = 1 where id", who="admin")
        for device, name in ((first, "a"), (second, "b")):
            fleet.sql(
                "update public.devices set labels = jsonb_build_object('lab', %s::text) where id = %s", name, device
            )  # fmt: skip
            roll_out(fleet, selector={"labels": {"lab": name}})
    else:
        roll_out(
            fleet,
            {"max_in_flight": 1} if where == "stage" else {},
            max_in_flight=1 if where == "rollout" else None,
        )
    a, b = fleet.connect("authenticator"), fleet.connect("authenticator")
    with a.transaction():
        assert ask(a, first) == "update"
        answer = until_it_waits(fleet, b, partial(ask, b, second))
        assert not answer.done(), "it got its answer before the slot was given"
    assert answer.result() == "run"
    check_counters(fleet)


# Whatever takes a slot away from who asks next. {r}: the rollout.
RESTRICTIONS = {
    "halt of the fleet": "select public.halt_fleet('stop')",
    "halt by hand": "insert into public.halts (scope, target, reason) values ('segment', 'stable', 'stop')",
    "halt of the release": f"insert into public.halts (scope, target, reason) values ('release', '{V2}', 'stop')",
    "known-bad pattern": f"""select public.mark_known_bad('{V2}', '{{{{"segment": "stable"}}}}', 'stop')""",
    "known-bad pattern by hand": "insert into public.known_bad_patterns (release_id, selector, reason) "
    f"""values ('{V2}', '{{{{"role": "beacon", "labels": {{{{}}}}}}}}', 'stop')""",
    "pause": "select public.pause_rollout('{r}')",
    "cancel": "update public.rollouts set state = 'cancelled' where id = '{r}'",
    "withdrawal": f"update public.releases set state = 'withdrawn' where id = '{V2}'",
    "smaller stage": "update public.rollout_stages set percent = 0 where rollout_id = '{r}'",
    "smaller cap": "update public.rollouts set max_in_flight = 1 where id = '{r}'",
    "smaller cap of the stage": "update public.rollout_stages set max_in_flight = 1 where rollout_id = '{r}'",
    "newer rollout": f"select public.start_rollout((public.create_rollout('{V1}', stages => '[{{{{}}}}]')).id)",
    "hold": "update public.devices set hold = true where starts_with(name, 'bulk')",
    "other segment": "update public.devices set segment = 'early' where starts_with(name, 'bulk')",
    "suspension": "update public.devices set state = 'suspended' where starts_with(name, 'bulk')",
}


@pytest.mark.parametrize("restriction", RESTRICTIONS)
def test_who_asks_while_policy_gets_stricter_waits_and_obeys(fleet: Fleet, restriction: str) -> None:
    holder, device = crowd(fleet, 2)
    # So that it has nothing else to go to.
    fleet.sql("insert into public.device_status (device_id, current_release) values (%s, %s)", device, V1)
    rollout = roll_out(fleet, {"segment": "stable"}, max_in_flight=2)
    device_connection, operator = fleet.connect("authenticator"), fleet.connect("authenticator")
    assert ask(device_connection, holder) == "update"
    with operator.transaction():
        as_operator(operator, RESTRICTIONS[restriction].format(r=rollout))
        answer = until_it_waits(fleet, device_connection, partial(ask_or_hear, device_connection, device))
        assert not answer.done(), "it got its answer while the edit was under way"
    assert answer.result() in ("run", "PT403")
    slots = fleet.sql("select device_id from public.rollout_claims where rollout_id = %s", rollout)
    assert slots == [(holder,)]
    check_counters(fleet)


@pytest.mark.parametrize("restriction", RESTRICTIONS)
def test_policy_that_gets_stricter_waits_for_who_is_being_given_a_slot(
    fleet: Fleet, restriction: str
) -> None:
    """So that nobody reads "halted" while a slot is still on its way."""
    holder, device = crowd(fleet, 2)
    # So that it has nothing else to go to.
    fleet.sql("insert into public.device_status (device_id, current_release) values (%s, %s)", device, V1)
    rollout = roll_out(fleet, {"segment": "stable"}, max_in_flight=2)
    device_connection, operator = fleet.connect("authenticator"), fleet.connect("authenticator")
    with device_connection.transaction():
        assert ask(device_connection, holder) == "update"
        edited = until_it_waits(
            fleet, operator, partial(as_operator, operator, RESTRICTIONS[restriction].format(r=rollout))
        )
        assert not edited.done(), "the edit went past a slot that was being given"
    edited.result()
    assert ask_or_hear(device_connection, device) in ("run", "PT403")
    slots = fleet.sql("select device_id from public.rollout_claims where rollout_id = %s", rollout)
    assert slots == [(holder,)]
