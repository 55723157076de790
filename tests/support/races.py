"""What the tests of races do: real connections, each in a thread of its own, and all meet at a barrier."""

from __future__ import annotations

import json
import threading
from collections.abc import Callable, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from datetime import UTC, datetime
from typing import Any, TypeVar
from uuid import UUID, uuid4

import psycopg

from tests.support.cluster import type_of_connection
from tests.support.identities import V2, Fleet, become
from tests.support.rollout_builders import make_devices

_ASK = b"select public.desired_state() ->> 'action'"
T = TypeVar("T")


def crowd(fleet: Fleet, count: int) -> list[UUID]:
    """As many devices, besides those of the cast."""
    make_devices(fleet, count)
    return [
        row[0]
        for row in fleet.sql("select id from public.devices where starts_with(name, 'bulk') order by name")
    ]


def act_as(connection: type_of_connection, device: UUID) -> None:
    connection.execute(
        "select set_config('request.jwt.claims', %s, true), set_config('role', 'fleet_device', true)",
        (json.dumps({"role": "fleet_device", "sub": str(device)}),),
    )


def ask(connection: type_of_connection, device: UUID) -> str:
    with connection.transaction():
        act_as(connection, device)
        row = connection.execute(_ASK).fetchone()
    assert row is not None
    return str(row[0])


def ask_or_hear(connection: type_of_connection, device: UUID) -> str:
    """The action, or the SQLSTATE of the refusal."""
    try:
        return ask(connection, device)
    except psycopg.ProgrammingError as error:
        return error.diag.sqlstate or "?"


def finish(
    connection: type_of_connection,
    device: UUID,
    rollout: UUID,
    outcome: str,
    attempt: tuple[UUID, datetime] | None = None,
) -> None:
    """Send an attempt: its id and start, the same again when it is sent again."""
    made, started = attempt or (uuid4(), datetime.now(UTC))
    with connection.transaction():
        act_as(connection, device)
        connection.execute(
            "insert into public.update_history "
            "(id, device_id, release_id, rollout_id, to_commit, outcome, started_at, finished_at) "
            "values (%s, %s, %s, %s, repeat('2', 40), %s, %s, now()) on conflict do nothing",
            (made, device, V2, rollout, outcome, started),
        )


def all_at_once(jobs: Sequence[Callable[[], Any]]) -> list[Any]:
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


def until_it_waits(fleet: Fleet, connection: type_of_connection, job: Callable[[], T]) -> Future[T]:
    """Start a job on this connection; returns once it stands in line for a lock, or is over."""
    pool = ThreadPoolExecutor(1)
    job_done = pool.submit(job)
    pool.shutdown(wait=False)
    waits = "select exists (select from pg_locks where pid = %s and not granted)"
    while not job_done.done() and not fleet.one(waits, connection.info.backend_pid):
        pass
    return job_done


def as_operator(connection: type_of_connection, statement: str) -> None:
    with connection.transaction():
        become(connection, "operator")
        connection.execute(statement.encode())
