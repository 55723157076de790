"""`fleetctl migrate` through a pooler: each transaction has a session that others use as well."""

from __future__ import annotations

import os
import subprocess
import sys
import threading
import uuid
from collections.abc import Iterator
from pathlib import Path

import psycopg
import pytest

from fleetctl.errors import FleetctlError
from fleetctl.migrate import migrate
from fleetctl.stack.local_stack import LocalStack
from tests.support.pgbouncer import pooler

pytestmark = pytest.mark.pgbouncer
FILES = 12


@pytest.fixture
def db_url(stack: LocalStack, admin: psycopg.Connection) -> Iterator[str]:
    """An empty database of the stack's cluster, as `postgres`, at its own address."""
    name = f"pooled_{uuid.uuid4().hex[:8]}"
    admin.execute(f"create database {name} owner postgres".encode())
    yield f"{stack.postgres_db_url.rsplit('/', 1)[0]}/{name}"
    admin.execute(f"drop database {name} with (force)".encode())


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """So many files that a client prepares what it asks each time; one changes its session."""
    for number in range(FILES):
        text = f"create table public.t{number} (id int);\n"
        if number == 5:
            text += "set search_path = ''; set statement_timeout = '7s'; set role anon;\n"
        (tmp_path / f"{20260101000000 + number}_make_t{number}.sql").write_text(text)
    return tmp_path


SETTINGS = """
  select current_user, current_setting('search_path'), current_setting('statement_timeout'),
    current_setting('lock_timeout'), (select count(*) from pg_prepared_statements)::text"""
LOCKS = """
  select count(*) from pg_locks l join pg_database d on d.oid = l.database
  where l.locktype = 'advisory' and d.datname = current_database()"""


def left_behind(through: str) -> set[tuple[str, ...]]:
    """What the sessions of the pooler have set, as other clients find it."""
    with psycopg.connect(through, autocommit=True, prepare_threshold=None) as other:
        return {tuple(other.execute(SETTINGS).fetchone() or ()) for _ in range(8)}


@pytest.mark.parametrize("mode", ["transaction", "session"])
def test_pooler_applies_every_file_and_keeps_nothing_in_its_sessions(
    db_url: str, folder: Path, mode: str
) -> None:
    with pooler(db_url, mode) as through:
        with psycopg.connect(through, autocommit=True, prepare_threshold=None) as other:
            sessions = {other.execute("select pg_backend_pid()").fetchone() for _ in range(8)}
        assert (len(sessions) > 1) == (mode == "transaction"), "the pooler does not pool as it should"
        with psycopg.connect(through, autocommit=True) as connection:
            assert len(migrate(connection, folder).applied) == FILES
            assert migrate(connection, folder).already == FILES
        found = left_behind(through)
    with psycopg.connect(db_url, autocommit=True) as direct:
        fresh = direct.execute(SETTINGS).fetchone()
        assert found == {fresh}
        assert direct.execute(LOCKS).fetchone() == (0,)


def test_file_that_fails_through_a_pooler_leaves_neither_a_lock_nor_a_setting(
    db_url: str, folder: Path
) -> None:
    (folder / f"{20260101000000 + FILES}_break.sql").write_text("set role anon; select 1 / 0;")
    with pooler(db_url, "transaction") as through:
        with (
            psycopg.connect(through, autocommit=True) as connection,
            pytest.raises(FleetctlError, match="division by zero"),
        ):
            migrate(connection, folder)
        found = left_behind(through)
    with psycopg.connect(db_url, autocommit=True) as direct:
        assert found == {direct.execute(SETTINGS).fetchone()}
        assert direct.execute(LOCKS).fetchone() == (0,)


def test_two_runners_take_turns_and_apply_each_file_once(db_url: str, folder: Path) -> None:
    applied: list[list[str]] = []
    failed: list[Exception] = []

    def run(through: str) -> None:
        try:
            with psycopg.connect(through, autocommit=True) as connection:
                applied.append(migrate(connection, folder).applied)
        except Exception as error:
            failed.append(error)

    with pooler(db_url, "transaction") as through:
        runners = [threading.Thread(target=run, args=(through,)) for _ in range(2)]
        for runner in runners:
            runner.start()
        for runner in runners:
            runner.join()
    assert failed == []
    assert sorted(file for one in applied for file in one) == sorted(
        path.name for path in folder.glob("*.sql")
    )


def test_pooler_of_statements_is_refused_before_anything_is_begun(db_url: str) -> None:
    """The command itself, as a person runs it."""
    with pooler(db_url, "statement") as through:
        done = subprocess.run(
            [sys.executable, "-m", "fleetctl", "migrate", "--db-url", through],
            capture_output=True, text=True, check=False, env=os.environ | {"COLUMNS": "300"},
        )  # fmt: skip
    assert done.returncode == 2, done.stderr
    assert "error (pooler_unusable): The pooler at 127.0.0.1:" in done.stderr
    assert "session or transaction mode" in done.stderr
    with psycopg.connect(db_url) as direct:
        assert direct.execute("select to_regnamespace('supabase_migrations')").fetchone() == (None,)


def test_role_that_cannot_become_postgres_is_refused_in_words(db_url: str, folder: Path) -> None:
    with psycopg.connect(db_url, autocommit=True) as owner:
        owner.execute("create role pooled_nobody login password 'pooled'")
        try:
            host, port = owner.info.host, owner.info.port
            url = f"postgresql://pooled_nobody:pooled@{host}:{port}/{owner.info.dbname}"
            with psycopg.connect(url, autocommit=True) as other, pytest.raises(FleetctlError) as caught:
                migrate(other, folder)
        finally:
            owner.execute("drop role pooled_nobody")
    assert caught.value.kind == "role_refused"
    assert caught.value.message.startswith("pooled_nobody cannot become postgres, the role that applies")
