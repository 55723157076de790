"""Devices race limits, halts, outcomes and each other, for as long as it takes all of them to be done."""

from __future__ import annotations

import threading
from collections.abc import Callable, Sequence
from datetime import UTC, datetime
from functools import partial
from typing import Any
from uuid import UUID, uuid4

import psycopg

from tests.support.cluster import PATIENCE_S, type_of_connection
from tests.support.identities import V1, Fleet, become
from tests.support.profiles import OLDER_SERVER_IN_FULL, amount
from tests.support.races import T, all_at_once, as_operator, ask, crowd, finish
from tests.support.rollout_builders import check_counters, roll_out

pytestmark = OLDER_SERVER_IN_FULL
RACERS = amount(40, full=250)


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


def test_caps_hold_while_outcomes_and_limits_race(fleet: Fleet) -> None:
    """Devices claim, finish and claim again while the limit goes down and up and the rollout pauses and resumes."""
    devices = crowd(fleet, amount(30, full=60))
    highest = 6
    rollout = roll_out(
        fleet,
        {"min_attempted": 1000},
        max_in_flight=highest,
        halt_consecutive_failures=None,
        halt_failure_ratio=None,
    )
    workers = [fleet.connect("authenticator") for _ in range(amount(10, full=20))]
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
                if ask(connection, device) == "update":
                    finish(connection, device, rollout, "succeeded" if finished % 4 else "rolled_back")
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

    results = all_at_once([watch, meddle, *[partial(work, c) for c in workers]])
    assert sum(results[2:]) == len(devices)
    assert results[0] > 3
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
        assert self._may_ask.acquire(timeout=PATIENCE_S), (
            f"nothing moves any more, with {self.left} devices left"
        )

    def wait_for_finishes(self, count: int) -> None:
        with self._finished:
            wanted = self.left - count
            assert self._finished.wait_for(lambda: self.over or self.left <= wanted, timeout=PATIENCE_S)

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


def test_a_crowd_races_halts_pauses_stage_changes_outcomes_and_killed_backends(fleet: Fleet) -> None:
    """Then every slot that was given is held against what had committed before it."""
    devices = crowd(fleet, RACERS)
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
            if survivor.do(lambda c: ask(c, device)) == "update":
                survivor.do(lambda c: finish(c, device, rollout, outcome, attempt))
                race.finished()
                return

    def meddle(connection: type_of_connection, edits: tuple[str, str]) -> int:
        rounds = 0
        while not race.over:
            for edit in edits:
                as_operator(connection, edit.format(r=rollout))
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
    results = all_at_once([partial(race.until_over, job) for job in jobs])
    notes = fleet.sql(
        "select what, number from public.race_notes order by pg_xact_commit_timestamp(xmin), id"
    )
    given, most = _replay([(what, number) for what, number in notes])
    assert given == fleet.one("select sum(attempts) from public.rollout_claims") == len(devices)
    assert most > 1
    assert all(results[: 1 + len(_MEDDLING)]), "somebody never got a turn"
    check_counters(fleet)
