"""One person keeps an edit of policy open: how long others wait for one of PostgREST's ten connections."""

from __future__ import annotations

import argparse
import json
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from queue import Queue

from tests.bench.policy import BINARIES
from tests.bench.table import Row, percentile, spread
from tests.support.cluster import Cluster, running, type_of_connection
from tests.support.identities import OPERATOR, V1, V2

DEVICES, ASKS_PER_S, CONNECTIONS = 3_000, 10, 10
_SEED = f"""
insert into public.operators (user_id, rank) values ('{OPERATOR}', 'operator');
insert into public.releases (id, commit_sha, version) values ('{V1}', repeat('1', 40), 'v1');
insert into public.releases (id, commit_sha, version) values ('{V2}', repeat('2', 40), 'v2');
insert into public.devices (id, name, role, state, public_key)
select md5('d' || n)::uuid, 'd' || n, 'beacon', 'active', left(md5('k' || n) || md5('l' || n), 43)
from generate_series(1, {DEVICES}) n;
select public.start_rollout((public.create_rollout('{V2}', stages => '[{{}}]')).id);
"""
_AS = "select set_config('request.jwt.claims', %s, true), set_config('role', %s, true)"


class Pool:
    """Ten connections, first come first served, a transaction for each request: what PostgREST does."""

    def __init__(self, cluster: Cluster, database: str) -> None:
        self.free: Queue[type_of_connection] = Queue()
        for _ in range(CONNECTIONS):
            self.free.put(cluster.connect(database, "authenticator"))

    def ask(self, role: str, subject: str, query: str) -> object:
        connection = self.free.get()
        try:
            with connection.transaction():
                connection.execute(_AS, (json.dumps({"role": role, "sub": subject}), role))
                row = connection.execute(query.encode()).fetchone()
                return None if row is None else row[0]
        finally:
            self.free.put(connection)


def run(options: argparse.Namespace) -> list[Row]:
    """Devices ask for slots at a steady rate while the lock is held; an operator reads four times a second.

    `--minutes` is how long the lock is held.
    """
    seconds = 60 * options.minutes
    with running(BINARIES, {"fleet.lock_patience": "250ms"}) as cluster:
        cluster.make_template()
        database = cluster.clone(cluster.template)
        with cluster.connect(database) as admin:
            admin.execute(_SEED.encode())
        pool = Pool(cluster, database)
        reads: list[float] = []
        answers: Counter[str] = Counter()
        with _lunch(cluster, database), ThreadPoolExecutor(400) as threads:
            ended = threading.Event()

            def device(number: int) -> None:
                subject = f"select md5('d{number}')::uuid::text"
                try:
                    with cluster.connect(database) as admin:
                        who = admin.execute(subject.encode()).fetchone()
                    assert who is not None
                    answer = pool.ask("fleet_device", who[0], "select public.desired_state()")
                    assert isinstance(answer, dict)
                    answers[answer["action"]] += 1
                except Exception as error:
                    answers[type(error).__name__] += 1

            def operator() -> None:
                while not ended.wait(0.25):
                    began = time.monotonic()
                    pool.ask("authenticated", str(OPERATOR), "select count(*) from public.halts")
                    reads.append(time.monotonic() - began)

            watching = threads.submit(operator)
            _steadily(seconds, lambda number: threads.submit(device, number))
            ended.set()
            watching.result()
    how = (
        f"{DEVICES} devices, {ASKS_PER_S} asks a second, {CONNECTIONS} connections, {seconds:.0f} s; "
        + ", ".join(f"{count} {what}" for what, count in answers.most_common())
    )
    slowest = f"{1000 * percentile(reads, 100):.0f} ms"
    return [
        Row("an operator's read while the policy lock is held", spread([1000 * r for r in reads], "ms"), how),
        Row("the slowest of them", slowest, f"{len(reads)} reads", "1 s"),
    ]


@contextmanager
def _lunch(cluster: Cluster, database: str) -> Iterator[None]:
    with cluster.connect(database) as person, person.transaction(force_rollback=True):
        person.execute(
            "insert into public.halts (scope, target, reason) values ('segment', 'early', 'lunch')"
        )
        yield


def _steadily(seconds: float, start: Callable[[int], object]) -> None:
    began = time.monotonic()
    for number in range(int(seconds * ASKS_PER_S)):
        time.sleep(max(0.0, began + number / ASKS_PER_S - time.monotonic()))
        start(1 + number % DEVICES)
