"""Hundreds of real connections try to break the caps and to slip past a halt. No sleeps: threads meet at a barrier."""

from __future__ import annotations

import contextlib
import json
import threading
from collections.abc import Callable, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from functools import partial
from typing import Any, TypeVar
from uuid import UUID

import psycopg
import pytest

from tests.sql.cast import V1, V2, Fleet, become
from tests.sql.cluster import type_of_connection
from tests.sql.rollout_kit import check_counters, make_devices, roll_out

DEVICES = 150
ASK = b"select public.desired_state() ->> 'action'"
T = TypeVar("T")


def _devices(fleet: Fleet) -> list[UUID]:
    make_devices(fleet, DEVICES)
    return [
        row[0]
        for row in fleet.sql("select id from public.devices where starts_with(name, 'bulk') order by name")
    ]


def _as(connection: type_of_connection, device: UUID) -> None:
    connection.execute(
        "select set_config('request.jwt.claims', %s, true), set_config('role', 'fleet_device', true)",
        (json.dumps({"role": "fleet_device", "sub": str(device)}),),
    )


def _ask(connection: type_of_connection, device: UUID) -> str:
    with connection.transaction():
        _as(connection, device)
        row = connection.execute(ASK).fetchone()
    assert row is not None
    return str(row[0])


def _ask_or_hear(connection: type_of_connection, device: UUID) -> str:
    """The action, or the SQLSTATE of the refusal."""
    try:
        return _ask(connection, device)
    except psycopg.ProgrammingError as error:
        return error.diag.sqlstate or "?"


def _finish(connection: type_of_connection, device: UUID, rollout: UUID, outcome: str) -> None:
    with connection.transaction():
        _as(connection, device)
        connection.execute(
            "insert into public.update_history (id, device_id, release_id, rollout_id, to_commit, outcome, started_at, finished_at) "
            "values (gen_random_uuid(), %s, %s, %s, repeat('2', 40), %s, now(), now())",
            (device, V2, rollout, outcome),
        )


def _all_at_once(jobs: Sequence[Callable[[], Any]]) -> list[Any]:
    """Run every job in its own thread, released together; raises the first error."""
    gate = threading.Barrier(len(jobs))
    results: list[Any] = [None] * len(jobs)
    errors: list[BaseException] = []

    def run(number: int, job: Callable[[], Any]) -> None:
        gate.wait()
        try:
            results[number] = job()
        except BaseException as error:  # reported below, in the test's own thread
            errors.append(error)

    threads = [threading.Thread(target=run, args=item) for item in enumerate(jobs)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    if errors:
        raise errors[0]
    return results


def _never_more_than(fleet: Fleet, cap: int, done: threading.Event) -> Callable[[], int]:
    """Watches from its own connection until done; returns how often it looked."""
    watcher = fleet.connect()

    def watch() -> int:
        looks = 0
        while not done.is_set():
            row = watcher.execute(
                "select count(*) from public.rollout_claims where state = 'claimed'"
            ).fetchone()
            assert row is not None
            assert row[0] <= cap, f"{row[0]} devices in flight, {cap} allowed"
            looks += 1
        return looks

    return watch


def _until_it_waits(fleet: Fleet, connection: type_of_connection, job: Callable[[], T]) -> Future[T]:
    """Start a job on this connection; returns once it stands in line for a lock, or is over."""
    pool = ThreadPoolExecutor(1)
    job_done = pool.submit(job)
    pool.shutdown(wait=False)
    waits = "select exists (select from pg_locks where pid = %s and not granted)"
    while not job_done.done() and not fleet.one(waits, connection.info.backend_pid):
        pass
    return job_done


def _edit(connection: type_of_connection, statement: str) -> None:
    with connection.transaction():
        become(connection, "operator")
        connection.execute(statement.encode())


# Two at a time, the one held open until the other waits: these fail every time when a lock is missing.


@pytest.mark.parametrize("where", ["rollout", "stage", "fleet"])
def test_who_asks_while_the_last_place_is_given_waits_and_gets_none(fleet: Fleet, where: str) -> None:
    first, second = _devices(fleet)[:2]
    if where == "fleet":
        # A rollout each, so that only the fleet's own cap can hold them.
        fleet.sql("update public.fleet_settings set max_in_flight = 1 where id", who="admin")
        for device, name in ((first, "a"), (second, "b")):
            fleet.sql(
                "update public.devices set labels = jsonb_build_object('lab', %s::text) where id = %s", name, device
            )  # fmt: skip
            roll_out(fleet, label_selector={"lab": name})
    else:
        roll_out(
            fleet,
            {"max_in_flight": 1} if where == "stage" else {},
            max_in_flight=1 if where == "rollout" else None,
        )
    a, b = fleet.connect("authenticator"), fleet.connect("authenticator")
    with a.transaction():
        assert _ask(a, first) == "update"
        answer = _until_it_waits(fleet, b, partial(_ask, b, second))
        assert not answer.done(), "it got its answer before the place was given"
    assert answer.result() == "run"
    check_counters(fleet)


# Whatever takes a place away from who asks next. {r}: the rollout.
RESTRICTIONS = {
    "halt of the fleet": "select public.halt_fleet('stop')",
    "halt by hand": "insert into public.halts (scope, target, reason) values ('segment', 'stable', 'stop')",
    "halt of the release": f"insert into public.halts (scope, target, reason) values ('release', '{V2}', 'stop')",
    "pause": "select public.pause_rollout('{r}')",
    "cancel": "update public.rollouts set state = 'cancelled' where id = '{r}'",
    "withdrawal": f"update public.releases set state = 'withdrawn' where id = '{V2}'",
    "smaller stage": "update public.rollout_stages set percent = 0 where rollout_id = '{r}'",
    "smaller cap": "update public.rollouts set max_in_flight = 1 where id = '{r}'",
    "smaller cap of the stage": "update public.rollout_stages set max_in_flight = 1 where rollout_id = '{r}'",
    "newer rollout": f"select public.start_rollout((public.create_rollout('{V1}')).id)",
    "hold": "update public.devices set hold = true where starts_with(name, 'bulk')",
    "other segment": "update public.devices set segment = 'early' where starts_with(name, 'bulk')",
    "suspension": "update public.devices set state = 'suspended' where starts_with(name, 'bulk')",
}


@pytest.mark.parametrize("restriction", RESTRICTIONS)
def test_who_asks_while_policy_gets_stricter_waits_and_obeys(fleet: Fleet, restriction: str) -> None:
    holder, device = _devices(fleet)[:2]
    # So that it has nothing else to go to.
    fleet.sql("insert into public.device_status (device_id, current_release) values (%s, %s)", device, V1)
    rollout = roll_out(fleet, {"segment": "stable"}, max_in_flight=2)
    device_connection, operator = fleet.connect("authenticator"), fleet.connect("authenticator")
    assert _ask(device_connection, holder) == "update"
    with operator.transaction():
        _edit(operator, RESTRICTIONS[restriction].format(r=rollout))
        answer = _until_it_waits(fleet, device_connection, partial(_ask_or_hear, device_connection, device))
        assert not answer.done(), "it got its answer while the edit was under way"
    assert answer.result() in ("run", "PT403")
    places = fleet.sql("select device_id from public.rollout_claims where rollout_id = %s", rollout)
    assert places == [(holder,)]
    check_counters(fleet)


@pytest.mark.parametrize("restriction", RESTRICTIONS)
def test_policy_that_gets_stricter_waits_for_who_is_being_given_a_place(
    fleet: Fleet, restriction: str
) -> None:
    """So that nobody reads "halted" while a place is still on its way."""
    holder, device = _devices(fleet)[:2]
    # So that it has nothing else to go to.
    fleet.sql("insert into public.device_status (device_id, current_release) values (%s, %s)", device, V1)
    rollout = roll_out(fleet, {"segment": "stable"}, max_in_flight=2)
    device_connection, operator = fleet.connect("authenticator"), fleet.connect("authenticator")
    with device_connection.transaction():
        assert _ask(device_connection, holder) == "update"
        edited = _until_it_waits(
            fleet, operator, partial(_edit, operator, RESTRICTIONS[restriction].format(r=rollout))
        )
        assert not edited.done(), "the edit went past a place that was being given"
    edited.result()
    assert _ask_or_hear(device_connection, device) in ("run", "PT403")
    places = fleet.sql("select device_id from public.rollout_claims where rollout_id = %s", rollout)
    assert places == [(holder,)]


# Crowds.


@pytest.mark.parametrize("where", ["rollout", "stage", "fleet"])
def test_a_crowd_never_gets_more_places_than_there_are(fleet: Fleet, where: str) -> None:
    devices = _devices(fleet)
    cap = 7
    if where == "fleet":
        fleet.sql("update public.fleet_settings set max_in_flight = %s where id", cap, who="admin")
    roll_out(
        fleet, {"max_in_flight": cap} if where == "stage" else {}, max_in_flight=cap if where == "rollout" else None
    )  # fmt: skip
    connections = [fleet.connect("authenticator") for _ in devices]
    actions = _all_at_once([partial(_ask, c, d) for c, d in zip(connections, devices, strict=True)])
    assert actions.count("update") == cap
    assert fleet.one("select count(*) from public.rollout_claims") == cap
    check_counters(fleet)


def test_one_device_asking_many_times_at_once_holds_one_place(fleet: Fleet) -> None:
    device = _devices(fleet)[0]
    roll_out(fleet, max_in_flight=5)
    connections = [fleet.connect("authenticator") for _ in range(40)]
    actions = _all_at_once([partial(_ask, c, device) for c in connections])
    assert set(actions) == {"update"}
    assert fleet.sql("select attempts from public.rollout_claims") == [(1,)]
    check_counters(fleet)


def test_caps_hold_while_outcomes_and_limits_race(fleet: Fleet) -> None:
    """Devices claim, finish and claim again while the limit goes down and up and the rollout pauses and resumes."""
    devices = _devices(fleet)[:60]
    highest = 6
    rollout = roll_out(
        fleet,
        {"min_attempted": 1000},
        max_in_flight=highest,
        halt_consecutive_failures=None,
        halt_failure_ratio=None,
    )
    workers = [fleet.connect("authenticator") for _ in range(20)]
    operator = fleet.connect("authenticator")
    done = threading.Event()
    watch = _never_more_than(fleet, highest, done)
    queue = list(devices)
    lock = threading.Lock()
    running = [len(workers)]

    def work(connection: type_of_connection) -> int:
        finished = 0
        try:
            while True:
                with lock:
                    if not queue:
                        return finished
                    device = queue.pop(0)
                if _ask(connection, device) == "update":
                    _finish(connection, device, rollout, "succeeded" if finished % 4 else "rolled_back")
                    finished += 1
                else:
                    with lock:
                        queue.append(device)
        finally:
            with lock:
                running[0] -= 1
                if running[0] == 0:
                    done.set()

    def meddle() -> int:
        edits = 0
        while not done.is_set():
            for edit in (
                "update public.rollouts set max_in_flight = 3 where id = %s",
                "update public.rollouts set state = 'paused' where id = %s",
                "update public.rollouts set max_in_flight = 6, state = 'running' where id = %s",
            ):
                with operator.transaction():
                    become(operator, "operator")
                    operator.execute(edit.encode(), (rollout,))
                edits += 1
        with operator.transaction():
            become(operator, "operator")
            operator.execute(
                "update public.rollouts set state = 'running' where id = %s and state = 'paused'", (rollout,)
            )
        return edits

    results = _all_at_once([watch, meddle, *[partial(work, c) for c in workers]])
    assert sum(results[2:]) == len(devices)
    assert results[0] > 3
    check_counters(fleet)


def test_no_claim_commits_after_a_halt_committed(fleet: Fleet) -> None:
    devices = _devices(fleet)
    roll_out(fleet)
    connections = [fleet.connect("authenticator") for _ in devices]
    operator = fleet.connect("authenticator")
    claimed = threading.Semaphore(0)

    def claim(connection: type_of_connection, device: UUID) -> str:
        action = _ask(connection, device)
        claimed.release()
        return action

    def halt() -> None:
        # In the thick of it: a fifth have their answer.
        for _ in range(DEVICES // 5):
            claimed.acquire()
        with operator.transaction():
            become(operator, "operator")
            operator.execute("select public.halt_fleet('stop')")

    actions = _all_at_once([halt, *[partial(claim, c, d) for c, d in zip(connections, devices, strict=True)]])
    granted = actions.count("update")
    assert granted >= DEVICES // 5
    assert granted == fleet.one("select count(*) from public.rollout_claims")
    late = fleet.one(
        "select count(*) from public.rollout_claims c, public.halts h "
        "where pg_xact_commit_timestamp(c.xmin) > pg_xact_commit_timestamp(h.xmin)"
    )
    assert late == 0
    check_counters(fleet)


def test_a_crowd_of_failures_halts_once_and_nobody_starts_afterwards(fleet: Fleet) -> None:
    devices = _devices(fleet)
    rollout = roll_out(fleet, halt_max_failures=5, halt_consecutive_failures=None, halt_failure_ratio=None)
    first, second = devices[: DEVICES // 2], devices[DEVICES // 2 :]
    connections = [fleet.connect("authenticator") for _ in devices]
    for connection, device in zip(connections, first, strict=False):
        assert _ask(connection, device) == "update"
    _all_at_once(
        [partial(_finish, c, d, rollout, "rolled_back") for c, d in zip(connections, first, strict=False)]
        + [partial(_ask, c, d) for c, d in zip(connections[len(first) :], second, strict=True)]
    )
    assert fleet.one("select count(*) from public.halts") == 1
    late = fleet.one(
        "select count(*) from public.rollout_claims c, public.halts h where c.state = 'claimed' "
        "and pg_xact_commit_timestamp(c.xmin) > pg_xact_commit_timestamp(h.xmin)"
    )
    assert late == 0
    check_counters(fleet)


def test_killed_backends_leave_no_half_claim(fleet: Fleet) -> None:
    devices = _devices(fleet)
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
            return _ask(connection, device)
        return "killed"

    actions = _all_at_once([kill, *[partial(claim, c, d) for c, d in zip(connections, devices, strict=True)]])
    held = fleet.one("select count(*) from public.rollout_claims where state = 'claimed'")
    # A killed device may hold a place whose answer it never read: it asks again and keeps it.
    assert actions.count("update") <= held <= cap
    check_counters(fleet)
