"""pg_cron calls tick() where PostgreSQL has it: Debian's pg_cron 1.4 on PostgreSQL 15, migrated by hosted's `postgres`."""

from __future__ import annotations

import time
from collections.abc import Iterator

import psycopg
import pytest

from fleetctl import migrate
from tests.conftest import POSTGRES_15
from tests.support.cluster import ROOT, Cluster, bootstrap, running, type_of_connection
from tests.support.identities import Fleet
from tests.support.patience import PATIENCE_S
from tests.support.sql_statements import migrations

# What schedules the jobs when the migrations run.
(SCHEDULE,) = [
    statement.text
    for statement in migrations()
    if statement.kind == "block" and statement.file.endswith("_scheduler.sql")
]
TICK, FORGET = "metrica-fleet-tick", "metrica-fleet-forget-runs"

# What hosted's supautils runs, as the superuser, after `create extension pg_cron` by `postgres`.
AFTER_CREATE = """
create extension pg_cron;
grant usage on schema cron to postgres with grant option;
grant all privileges on all tables in schema cron to postgres with grant option;
revoke all on table cron.job from postgres;
grant select on table cron.job to postgres with grant option;
"""


@pytest.fixture(scope="module")
def server() -> Iterator[Cluster]:
    """Migrated by `postgres`, who is no superuser, in the one database that pg_cron serves."""
    # pg_cron logs in as the job's owner through the socket; it would try TCP, which tests switch off.
    settings = {
        "shared_preload_libraries": "pg_cron",
        "cron.database_name": "postgres",
        "cron.host": "{socket}",
    }
    with running(POSTGRES_15, settings) as cluster:
        with cluster.connect("postgres") as admin:
            bootstrap(admin)
            admin.execute(AFTER_CREATE.encode())
        with cluster.connect("postgres", "postgres") as owner:
            migrate.migrate(owner, ROOT / "migrations")
        yield cluster


@pytest.fixture
def admin(server: Cluster) -> Iterator[type_of_connection]:
    with server.connect("postgres") as connection:
        yield connection


def _jobs(admin: type_of_connection) -> dict[str, tuple[str, str, str, bool]]:
    rows = admin.execute("select jobname, schedule, command, username, active from cron.job").fetchall()
    return {row[0]: row[1:] for row in rows}


OURS = {
    # pg_cron 1.4 knows no seconds.
    TICK: ("* * * * *", "select private.tick(now())", "postgres", True),
    FORGET: ("17 * * * *", "select private.forget_tick_runs(now())", "postgres", True),
}


@pytest.mark.postgres15
def test_migrations_schedule_tick_and_applying_them_again_changes_nothing(
    server: Cluster, admin: type_of_connection
) -> None:
    assert _jobs(admin) == OURS
    numbers = admin.execute("select jobid from cron.job order by jobid").fetchall()
    with server.connect("postgres", "postgres") as owner:
        assert migrate.migrate(owner, ROOT / "migrations").applied == []
        owner.execute(SCHEDULE.encode())
        assert owner.execute("select private.schedule_tick()").fetchone() == ("* * * * *",)
    assert _jobs(admin) == OURS
    assert admin.execute("select jobid from cron.job order by jobid").fetchall() == numbers


@pytest.mark.postgres15
@pytest.mark.full
def test_pg_cron_runs_tick_and_clears_up_after_it(server: Cluster, admin: type_of_connection) -> None:
    """A command nobody answered expires, and a run of last week is forgotten, with nobody calling but pg_cron."""
    _add_run(admin, TICK, "now() - interval '4 days'")
    admin.execute(
        "select cron.alter_job(jobid, schedule => '* * * * *') from cron.job where jobname = %s", (FORGET,)
    )
    with server.connect("postgres") as ear:
        ear.execute("listen happened")
        admin.execute(
            """
            create function public.happened() returns trigger language plpgsql as
              $$ begin perform pg_notify('happened', tg_op || ' ' || tg_table_name); return null; end $$;
            create trigger happened after update of state on public.device_commands
              for each row when (new.state = 'expired') execute function public.happened();
            create trigger happened after delete on cron.job_run_details
              for each row execute function public.happened();
            insert into public.devices (name, role, state, public_key) values ('d', 'beacon', 'active', repeat('d', 43));
            insert into public.device_commands (device_id, kind, requested_at, expires_at)
              select id, 'update_now', now() - interval '2 hours', now() - interval '1 hour' from public.devices;
            """
        )
        wanted = {"UPDATE device_commands", "DELETE job_run_details"}
        end = time.monotonic() + PATIENCE_S
        while wanted and (left := end - time.monotonic()) > 0:
            wanted -= {note.payload for note in ear.notifies(timeout=left, stop_after=1)}
    assert not wanted, f"{wanted}: {_runs(admin)}"
    assert admin.execute(
        "select count(*) from public.device_commands where state = 'expired'"
    ).fetchone() == (1,)
    assert all(status in ("succeeded", "running", "starting") for _, status, _ in _runs(admin)), _runs(admin)


def _runs(admin: type_of_connection) -> list[tuple[str, str, str]]:
    return admin.execute("select command, status, return_message from cron.job_run_details").fetchall()


def _add_run(admin: type_of_connection, job: str, at: str) -> int:
    row = admin.execute(
        "insert into cron.job_run_details (jobid, runid, username, status, start_time, end_time) "
        f"select jobid, nextval('cron.runid_seq'), username, 'succeeded', {at}, {at} from cron.job where jobname = %s "
        "returning runid".encode(),
        (job,),
    ).fetchone()
    assert row is not None
    return int(row[0])


@pytest.mark.postgres15
def test_only_old_runs_of_our_own_jobs_are_forgotten(server: Cluster, admin: type_of_connection) -> None:
    admin.execute("set role postgres")
    admin.execute("select cron.schedule('somebody-elses', '0 0 1 1 *', 'select 1')")
    admin.execute("reset role")
    with admin.transaction(force_rollback=True):
        admin.execute("delete from cron.job_run_details")
        theirs = _add_run(admin, "somebody-elses", "now() - interval '9 days'")
        cut_off = _add_run(admin, TICK, "null::timestamptz")
        old = [_add_run(admin, job, "now() - interval '3 days 1 second'") for job in (TICK, FORGET)]
        recent = _add_run(admin, TICK, "now() - interval '3 days'")
        admin.execute("set local role postgres")
        assert admin.execute("select private.forget_tick_runs(now())").fetchone() == (len([cut_off, *old]),)
        left = admin.execute("select runid from cron.job_run_details order by runid").fetchall()
        assert [row[0] for row in left] == [theirs, recent]


def test_seconds_are_asked_for_where_pg_cron_knows_them(bare: Fleet) -> None:
    """pg_cron 1.5 and later, which Debian has not: its one function that we call, written down."""
    assert bare.one("select private.schedule_tick()") is None
    bare.sql("create schema cron")
    bare.sql("create table cron.asked (name text primary key, schedule text, command text)")
    bare.sql(
        "create function cron.schedule(name text, schedule text, command text) returns bigint language sql as $$ "
        "insert into cron.asked values (name, schedule, command) on conflict (name) do update set schedule = excluded.schedule; select 1 $$"
    )
    with pytest.raises(psycopg.errors.InsufficientPrivilege):
        bare.sql("select private.schedule_tick()")
    bare.sql("grant usage on schema cron to postgres; grant all on cron.asked to postgres")
    assert bare.one("select private.schedule_tick()") == "20 seconds"
    assert bare.sql("select * from cron.asked order by name desc") == [
        (TICK, "20 seconds", "select private.tick(now())"),
        (FORGET, "17 * * * *", "select private.forget_tick_runs(now())"),
    ]
