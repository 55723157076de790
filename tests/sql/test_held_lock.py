"""A person who keeps an edit of policy open takes nobody hostage: devices do not wait for the lock, the clock goes on."""

from __future__ import annotations

import json
from collections.abc import Iterator
from uuid import UUID

import pytest

from tests.support.identities import DEVICE, V2, Fleet, become

# Long enough for a slow machine, short enough to fail a wait without an end.
PATIENCE = "20s"


@pytest.fixture(autouse=True)
def patience(fleet: Fleet) -> None:
    for connection in (fleet.api, fleet.admin):
        connection.execute("set fleet.lock_patience = '100ms'")


@pytest.fixture
def rollout(fleet: Fleet) -> UUID:
    made: UUID = fleet.one(
        "select (public.create_rollout(%s, stages => %s)).id", V2, json.dumps([{}]), who="operator"
    )
    fleet.sql("select public.start_rollout(%s)", made, who="operator")
    return made


@pytest.fixture
def lunch(fleet: Fleet, rollout: UUID) -> Iterator[None]:
    """begin; insert into halts …"""
    person = fleet.connect()
    for connection in (fleet.api, fleet.admin):
        connection.execute(f"set statement_timeout = '{PATIENCE}'".encode())
    with person.transaction(force_rollback=True):
        person.execute(
            "insert into public.halts (scope, target, reason) values ('segment', 'early', 'a look')"
        )
        yield
    person.close()


def test_a_device_is_told_to_ask_again_and_gets_its_slot_afterwards(
    fleet: Fleet, rollout: UUID, lunch: None
) -> None:
    answer = fleet.one("select public.desired_state()", who="device")
    assert (answer["action"], answer["rollout_id"]) == ("run", str(rollout))
    last = answer["gates"][-1]
    assert (last["gate"], last["verdict"]) == ("slot", "wait")
    assert 60 <= answer["next_poll_s"] < 120
    assert f"in {answer['next_poll_s']} s" in last["hint"]
    assert fleet.one("select count(*) from public.rollout_claims") == 0


def test_a_claim_goes_on_once_the_lock_is_free(fleet: Fleet, rollout: UUID) -> None:
    person = fleet.connect()
    with person.transaction(force_rollback=True):
        person.execute("select private.lock_policy()")
        assert fleet.one("select public.desired_state()", who="device")["action"] == "run"
    assert fleet.one("select public.desired_state()", who="device")["action"] == "update"


def test_a_report_that_would_end_a_claim_is_sent_again(fleet: Fleet, rollout: UUID) -> None:
    fleet.sql("select public.desired_state()", who="device")
    person = fleet.connect()
    fleet.api.execute(f"set statement_timeout = '{PATIENCE}'".encode())
    insert = (
        "insert into public.update_history (id, device_id, release_id, rollout_id, to_commit, outcome, started_at, finished_at) "
        "values ('00000000-0000-4000-8000-0000000000f1', %s, %s, %s, repeat('2', 40), 'succeeded', now(), now())"
    )
    with person.transaction(force_rollback=True):
        person.execute("select private.lock_policy()")
        refusal = fleet.refused(insert, DEVICE, V2, rollout, who="device")
    assert (refusal.code, refusal.kind) == ("PT503", "policy_busy")
    fleet.sql(insert, DEVICE, V2, rollout, who="device")
    assert fleet.one("select state::text from public.rollout_claims") == "succeeded"


def test_a_report_that_ends_nothing_is_taken(fleet: Fleet, lunch: None) -> None:
    fleet.sql(
        "insert into public.device_status (device_id, state) values (%s, 'degraded')", DEVICE, who="device"
    )
    assert fleet.one("select count(*) from public.device_status") == 1


def test_the_clock_does_what_needs_no_lock_and_the_rest_later(fleet: Fleet, rollout: UUID) -> None:
    fleet.sql("select public.desired_state()", who="device")
    fleet.sql("insert into public.device_commands (device_id, kind) values (%s, 'restart')", DEVICE)
    person = fleet.connect()
    with person.transaction(force_rollback=True):
        person.execute("select private.lock_policy()")
        done = fleet.one("select private.tick(now() + interval '2 days')")
    assert (done["commands_expired"], "leases_expired" in done, "failed" in done) == (1, False, False)
    assert fleet.one("select count(*) from public.alerts where kind = 'tick_failing'") == 0
    assert fleet.one("select private.tick(now() + interval '2 days')")["leases_expired"] == 1


def test_a_person_waits_as_before(fleet: Fleet, lunch: None) -> None:
    with fleet.api.transaction():
        become(fleet.api, "operator")
        fleet.api.execute("set local lock_timeout = '200ms'")
        with pytest.raises(Exception, match="lock timeout"):
            fleet.api.execute("select public.halt_fleet('smoke')")
