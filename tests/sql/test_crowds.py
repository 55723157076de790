"""A crowd of real connections tries to break the caps and to slip past a halt, all of them at once."""

from __future__ import annotations

import contextlib
import threading
from functools import partial
from uuid import UUID

import psycopg
import pytest

from tests.support.cluster import type_of_connection
from tests.support.identities import V2, Fleet, become
from tests.support.profiles import OLDER_SERVER_IN_FULL, amount
from tests.support.races import all_at_once, ask, crowd, finish
from tests.support.rollout_builders import check_counters, roll_out

pytestmark = OLDER_SERVER_IN_FULL
DEVICES = amount(30, full=150)


@pytest.mark.parametrize("where", ["rollout", "stage", "fleet"])
def test_a_crowd_never_gets_more_slots_than_there_are(fleet: Fleet, where: str) -> None:
    devices = crowd(fleet, DEVICES)
    cap = 7
    if where == "fleet":
        fleet.sql("update public.fleet_settings set max_in_flight = %s where id", cap, who="admin")
    roll_out(
        fleet, {"max_in_flight": cap} if where == "stage" else {}, max_in_flight=cap if where == "rollout" else None
    )  # fmt: skip
    connections = [fleet.connect("authenticator") for _ in devices]
    actions = all_at_once([partial(ask, c, d) for c, d in zip(connections, devices, strict=True)])
    assert actions.count("update") == cap
    assert fleet.one("select count(*) from public.rollout_claims") == cap
    check_counters(fleet)


def test_one_device_asking_many_times_at_once_holds_one_slot(fleet: Fleet) -> None:
    device = crowd(fleet, 1)[0]
    roll_out(fleet, max_in_flight=5)
    connections = [fleet.connect("authenticator") for _ in range(amount(20, full=40))]
    actions = all_at_once([partial(ask, c, device) for c in connections])
    assert set(actions) == {"update"}
    assert fleet.sql("select attempts from public.rollout_claims") == [(1,)]
    check_counters(fleet)


@pytest.mark.parametrize(
    ("brake", "table"),
    [
        ("select public.halt_fleet('stop')", "halts"),
        (
            f"""select public.mark_known_bad('{V2}', '{{"segment": "stable"}}', 'stop')""",
            "known_bad_patterns",
        ),
    ],
)
def test_no_claim_commits_after_a_brake_committed(fleet: Fleet, brake: str, table: str) -> None:
    devices = crowd(fleet, DEVICES)
    roll_out(fleet)
    connections = [fleet.connect("authenticator") for _ in devices]
    operator = fleet.connect("authenticator")
    claimed = threading.Semaphore(0)

    def claim(connection: type_of_connection, device: UUID) -> str:
        action = ask(connection, device)
        claimed.release()
        return action

    def halt() -> None:
        # In the thick of it: a fifth have their answer.
        for _ in range(DEVICES // 5):
            claimed.acquire()
        with operator.transaction():
            become(operator, "operator")
            operator.execute(brake.encode())

    actions = all_at_once([halt, *[partial(claim, c, d) for c, d in zip(connections, devices, strict=True)]])
    granted = actions.count("update")
    assert granted >= DEVICES // 5
    assert granted == fleet.one("select count(*) from public.rollout_claims")
    late = fleet.one(
        f"select count(*) from public.rollout_claims c, public.{table} h "
        "where pg_xact_commit_timestamp(c.xmin) > pg_xact_commit_timestamp(h.xmin)"
    )
    assert late == 0
    check_counters(fleet)


def test_a_crowd_of_failures_halts_once_and_nobody_starts_afterwards(fleet: Fleet) -> None:
    devices = crowd(fleet, DEVICES)
    rollout = roll_out(fleet, halt_max_failures=5, halt_consecutive_failures=None, halt_failure_ratio=None)
    first, second = devices[: DEVICES // 2], devices[DEVICES // 2 :]
    connections = [fleet.connect("authenticator") for _ in devices]
    for connection, device in zip(connections, first, strict=False):
        assert ask(connection, device) == "update"
    all_at_once(
        [partial(finish, c, d, rollout, "rolled_back") for c, d in zip(connections, first, strict=False)]
        + [partial(ask, c, d) for c, d in zip(connections[len(first) :], second, strict=True)]
    )
    assert fleet.one("select count(*) from public.halts") == 1
    late = fleet.one(
        "select count(*) from public.rollout_claims c, public.halts h where c.state = 'claimed' "
        "and pg_xact_commit_timestamp(c.xmin) > pg_xact_commit_timestamp(h.xmin)"
    )
    assert late == 0
    check_counters(fleet)


def test_killed_backends_leave_no_half_claim(fleet: Fleet) -> None:
    devices = crowd(fleet, DEVICES)
    cap = 9
    roll_out(fleet, max_in_flight=cap)
    connections = [fleet.connect("authenticator") for _ in devices]
    victims = [c.info.backend_pid for c in connections[::3]]
    killer = fleet.connect()

    def kill() -> None:
        for pid in victims:
            killer.execute("select pg_terminate_backend(%s)", (pid,))

    def claim(connection: type_of_connection, device: UUID) -> str:
        with contextlib.suppress(psycopg.OperationalError):
            return ask(connection, device)
        return "killed"

    actions = all_at_once([kill, *[partial(claim, c, d) for c, d in zip(connections, devices, strict=True)]])
    held = fleet.one("select count(*) from public.rollout_claims where state = 'claimed'")
    # A killed device may hold a slot whose answer it never read: it asks again and keeps it.
    assert actions.count("update") <= held <= cap
    check_counters(fleet)
