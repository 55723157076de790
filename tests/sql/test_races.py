"""Hundreds of real connections try to break the caps and to slip past a halt. No sleeps: threads meet at a barrier."""

from __future__ import annotations

import contextlib
import json
import threading
from collections.abc import Callable, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from datetime import UTC, datetime
from functools import partial
from typing import Any, TypeVar
from uuid import UUID, uuid4

import psycopg
import pytest

from tests.support.cluster import type_of_connection
from tests.support.identities import V1, V2, Fleet, become
from tests.support.rollout_builders import check_counters, make_devices, roll_out

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


def _finish(
    connection: type_of_connection,
    device: UUID,
    rollout: UUID,
    outcome: str,
    attempt: tuple[UUID, datetime] | None = None,
) -> None:
    """Send an attempt: its id and start, the same again when it is sent again."""
    made, started = attempt or (uuid4(), datetime.now(UTC))
    with connection.transaction():
        _as(connection, device)
        connection.execute(
            "insert into public.update_history (id, device_id, release_id, rollout_id, to_commit, outcome, started_at, finished_at) "
            "values (%s, %s, %s, %s, repeat('2', 40), %s, %s, now()) on conflict do nothing",
            (made, device, V2, rollout, outcome, started),
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
def test_who_asks_while_the_last_slot_is_given_waits_and_gets_none(fleet: Fleet, where: str) -> None:
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
        assert not answer.done(), "it got its answer before the slot was given"
    assert answer.result() == "run"
    check_counters(fleet)


# Whatever takes a slot away from who asks next. {r}: the rollout.
RESTRICTIONS = {
    "halt of the fleet": "select public.halt_fleet('stop')",
    "halt by hand": "insert into public.halts (scope, target, reason) values ('segment', 'stable', 'stop')",
    "halt of the release": f"insert into public.halts (scope, target, reason) values ('release', '{V2}', 'stop')",
    "known-bad pattern": f"""select public.mark_known_bad('{V2}', '{{{{"segment": "stable"}}}}', 'stop')""",
    "known-bad pattern by hand": "insert into public.known_bad_patterns (release_id, match, reason) "
    f"""values ('{V2}', '{{{{"role": "beacon", "labels": {{{{}}}}}}}}', 'stop')""",
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
    slots = fleet.sql("select device_id from public.rollout_claims where rollout_id = %s", rollout)
    assert slots == [(holder,)]
    check_counters(fleet)


@pytest.mark.parametrize("restriction", RESTRICTIONS)
def test_policy_that_gets_stricter_waits_for_who_is_being_given_a_slot(
    fleet: Fleet, restriction: str
) -> None:
    """So that nobody reads "halted" while a slot is still on its way."""
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
        assert not edited.done(), "the edit went past a slot that was being given"
    edited.result()
    assert _ask_or_hear(device_connection, device) in ("run", "PT403")
    slots = fleet.sql("select device_id from public.rollout_claims where rollout_id = %s", rollout)
    assert slots == [(holder,)]


# Crowds.


@pytest.mark.parametrize("where", ["rollout", "stage", "fleet"])
def test_a_crowd_never_gets_more_slots_than_there_are(fleet: Fleet, where: str) -> None:
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


def test_one_device_asking_many_times_at_once_holds_one_slot(fleet: Fleet) -> None:
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
            operator.execute(brake.encode())

    actions = _all_at_once([halt, *[partial(claim, c, d) for c, d in zip(connections, devices, strict=True)]])
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
    # A killed device may hold a slot whose answer it never read: it asks again and keeps it.
    assert actions.count("update") <= held <= cap
    check_counters(fleet)


# What happened, in the order in which it committed: each note is written by the transaction that did it.
_NOTES = """
create table public.race_notes (id bigint generated always as identity, what text not null, number int);
create function public.note_claim() returns trigger language plpgsql security definer as $$
begin
  if new.state = 'claimed' and (tg_op = 'INSERT' or old.state <> 'claimed') then
    insert into public.race_notes (what) values ('claimed');
  elsif tg_op = 'UPDATE' and old.state = 'claimed' and new.state <> 'claimed' then
    insert into public.race_notes (what) values ('ended');
  end if;
  return null;
end $$;
create trigger z_note after insert or update on public.rollout_claims for each row execute function public.note_claim();
create function public.note_halt() returns trigger language plpgsql security definer as $$
begin
  insert into public.race_notes (what, number) values ('halts', case when new.lifted_at is null then 1 else 0 end);
  return null;
end $$;
create trigger z_note after insert or update on public.halts for each row execute function public.note_halt();
create function public.note_rollout() returns trigger language plpgsql security definer as $$
begin
  insert into public.race_notes (what, number) values ('paused', (new.state = 'paused')::int), ('cap', new.max_in_flight);
  return null;
end $$;
create trigger z_note after update on public.rollouts for each row execute function public.note_rollout();
create function public.note_stage() returns trigger language plpgsql security definer as $$
begin
  insert into public.race_notes (what, number) values ('percent', new.percent), ('stage cap', new.max_in_flight);
  return null;
end $$;
create trigger z_note after update on public.rollout_stages for each row execute function public.note_stage();
"""
# Each pair restricts, then gives way again. {r}: the rollout.
_MEDDLING = {
    "halts": (
        "select public.halt_fleet('look')",
        "update public.halts set lift_reason = 'looked' where lifted_at is null",
    ),
    "pauses": ("select public.pause_rollout('{r}')", "select public.resume_rollout('{r}')"),
    "caps": (
        "update public.rollouts set max_in_flight = 2 where id = '{r}'",
        "update public.rollouts set max_in_flight = 9 where id = '{r}'",
    ),
    "stage caps": (
        "update public.rollout_stages set max_in_flight = 1 where rollout_id = '{r}'",
        "update public.rollout_stages set max_in_flight = 7 where rollout_id = '{r}'",
    ),
    "stage changes": (
        "update public.rollout_stages set percent = 0 where rollout_id = '{r}'",
        "update public.rollout_stages set percent = 100 where rollout_id = '{r}'",
    ),
}


def _replay(notes: Sequence[tuple[str, int | None]]) -> tuple[int, int]:
    """Go through the notes as they committed; returns how many slots were given, and the most in flight at once."""
    now: dict[str, int] = {"halts": 0, "paused": 0, "cap": 9, "percent": 100, "stage cap": 7}
    in_flight = given = most = 0
    for what, number in notes:
        if what == "claimed":
            in_flight, given = in_flight + 1, given + 1
            most = max(most, in_flight)
            assert in_flight <= min(now["cap"], now["stage cap"]), f"{in_flight} in flight under {now}"
            assert not now["halts"], "a slot was given under a halt"
            assert not now["paused"], "a slot was given by a paused rollout"
            assert now["percent"] == 100, "a slot was given by a stage that holds nobody"
        elif what == "ended":
            in_flight -= 1
        else:
            assert number is not None
            now[what] = number
    assert in_flight == 0
    return given, most


class _Race:
    """What the threads of a race tell each other: how many devices are done, and that asking may be worth it."""

    def __init__(self, devices: int) -> None:
        self.left = devices
        self.over = False
        self._finished = threading.Condition()
        # All rush in at first; each change lets a few more ask than could get a slot.
        self._may_ask = threading.Semaphore(devices)
        self._devices = devices

    def changed(self) -> None:
        self._may_ask.release(9)

    def finished(self, count: int = 1, *, over: bool = False) -> None:
        with self._finished:
            self.left -= count
            self.over = self.over or over or self.left == 0
            self._finished.notify_all()
        self._may_ask.release(self._devices if self.over else 9)

    def wait_to_ask(self) -> None:
        assert self._may_ask.acquire(timeout=120), f"nothing moves any more, with {self.left} devices left"

    def wait_for_finishes(self, count: int) -> None:
        with self._finished:
            wanted = self.left - count
            assert self._finished.wait_for(lambda: self.over or self.left <= wanted, timeout=120)

    def until_over(self, job: Callable[[], T]) -> T:
        """An error ends the race for all, so that nobody waits for who is gone."""
        try:
            return job()
        except BaseException:
            self.finished(0, over=True)
            raise


class _Survivor:
    """Does jobs on a connection, and again on a new one when it was killed."""

    def __init__(self, connect: Callable[[], type_of_connection]) -> None:
        self._connect = connect
        self._connection = connect()

    def do(self, job: Callable[[type_of_connection], T]) -> T:
        while True:
            try:
                return job(self._connection)
            except psycopg.OperationalError:
                if not self._connection.closed:
                    raise
                self._connection = self._connect()


def test_hundreds_race_halts_pauses_stage_changes_outcomes_and_killed_backends(fleet: Fleet) -> None:
    """Then every slot that was given is held against what had committed before it."""
    make_devices(fleet, 100, prefix="bulkier")
    devices = _devices(fleet)
    # So that they have nothing else to go to.
    fleet.sql(
        "insert into public.device_status (device_id, current_release) select unnest(%s::uuid[]), %s",
        devices,
        V1,
    )
    rollout = roll_out(
        fleet,
        {"percent": 100, "max_in_flight": 7, "min_attempted": 1_000_000},
        max_in_flight=9,
        halt_consecutive_failures=None,
        halt_failure_ratio=None,
    )
    fleet.admin.execute(_NOTES.encode())
    killer = fleet.connect()
    race = _Race(len(devices))

    def connect() -> type_of_connection:
        connection = fleet.connect("authenticator")
        connection.execute("set application_name = 'racing device'")
        return connection

    def update(number: int, device: UUID) -> None:
        survivor = _Survivor(connect)
        attempt = uuid4(), datetime.now(UTC)
        outcome = "rolled_back" if number % 5 == 0 else "succeeded"
        while not race.over:
            race.wait_to_ask()
            if survivor.do(lambda c: _ask(c, device)) == "update":
                survivor.do(lambda c: _finish(c, device, rollout, outcome, attempt))
                race.finished()
                return

    def meddle(connection: type_of_connection, edits: tuple[str, str]) -> int:
        rounds = 0
        while not race.over:
            for edit in edits:
                _edit(connection, edit.format(r=rollout))
                race.changed()
            rounds += 1
            race.wait_for_finishes(10)
        return rounds

    def kill() -> int:
        killed = 0
        while not race.over:
            killed += len(
                killer.execute(
                    "select pg_terminate_backend(pid) from pg_stat_activity where application_name = 'racing device' "
                    "and datname = current_database() and state = 'active' order by random() limit 1"
                ).fetchall()
            )
            race.wait_for_finishes(5)
        return killed

    jobs: list[Callable[[], Any]] = [
        kill,
        *[partial(meddle, fleet.connect("authenticator"), edits) for edits in _MEDDLING.values()],
        *[partial(update, number, device) for number, device in enumerate(devices)],
    ]
    results = _all_at_once([partial(race.until_over, job) for job in jobs])
    notes = fleet.sql(
        "select what, number from public.race_notes order by pg_xact_commit_timestamp(xmin), id"
    )
    given, most = _replay([(what, number) for what, number in notes])
    assert len(devices) == 250
    assert given == fleet.one("select sum(attempts) from public.rollout_claims") == len(devices)
    assert most > 1
    assert all(results[: 1 + len(_MEDDLING)]), "somebody never got a turn"
    check_counters(fleet)
