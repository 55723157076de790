"""What the embedded stack adds to PostgreSQL has the powers of hosted Supabase, and no more."""

from __future__ import annotations

import json

import psycopg
import pytest

from tests.support.cluster import bootstrap
from tests.support.identities import DEVICE, Fleet
from tests.support.patience import PATIENCE_S


def test_bootstrap_may_run_at_every_start(bare: Fleet) -> None:
    before = bare.sql("select count(*) from pg_class")
    bootstrap(bare.admin)
    assert bare.sql("select count(*) from pg_class") == before


def test_postgres_is_no_superuser_but_bypasses_row_level_security(bare: Fleet) -> None:
    assert bare.sql(
        "select rolsuper, rolbypassrls, rolcreaterole, rolcreatedb, rolreplication from pg_roles where rolname = 'postgres'"
    ) == [(False, True, True, True, True)]


@pytest.mark.parametrize(
    "statement",
    [
        "alter table realtime.messages enable row level security",
        "alter table realtime.messages add column mine int",
        "drop table realtime.messages",
        "create table realtime.mine (id int)",
        "create index on realtime.messages (topic)",
    ],
)
def test_migrations_may_not_change_realtimes_own_table(bare: Fleet, statement: str) -> None:
    with bare.connect("postgres") as postgres, pytest.raises(psycopg.errors.InsufficientPrivilege):
        postgres.execute(statement.encode())


def test_migrations_may_make_and_drop_policies_on_messages(bare: Fleet) -> None:
    with bare.connect("postgres") as postgres:
        postgres.execute("create policy mine on realtime.messages for select to authenticated using (true)")
        postgres.execute("alter policy mine on realtime.messages using (false)")
        postgres.execute("drop policy mine on realtime.messages")


def test_a_custom_role_cannot_be_let_into_schema_auth(bare: Fleet) -> None:
    """As on hosted, where the grant is a no-op: code that relies on auth.uid() for devices must fail here too."""
    with bare.connect("postgres") as postgres:
        postgres.execute("grant usage on schema auth to fleet_device")
    assert bare.refused("select auth.uid()", who="device").code == "42501"
    assert bare.one("select auth.uid()", who="operator") is not None


def test_new_public_tables_are_granted_to_nobody(bare: Fleet) -> None:
    with bare.connect("postgres") as postgres:
        postgres.execute("create table public.mine (id int)")
    for role in ("anon", "authenticated", "service_role", "fleet_device"):
        assert not bare.one("select has_table_privilege(%s, 'public.mine', 'select')", role)


def test_partitions_cover_yesterday_to_three_days_ahead_and_old_ones_go(bare: Fleet) -> None:
    bare.sql("select _realtime.maintain_message_partitions('2027-03-10 12:00Z')")
    names = [
        row[0]
        for row in bare.sql(
            "select relname from pg_inherits join pg_class on oid = inhrelid "
            "where inhparent = 'realtime.messages'::regclass order by 1"
        )
    ]
    assert names == [f"messages_2027_03_{day:02}" for day in range(9, 14)]


def test_a_message_is_announced_once_it_is_committed_in_commit_order(bare: Fleet) -> None:
    listener = bare.connect()
    listener.execute("listen realtime_messages")
    first, second = bare.connect("postgres"), bare.connect("postgres")
    with first.transaction():
        first.execute("select realtime.send('{\"n\": 1}', 'e', 'topic one')")
        with second.transaction():
            second.execute("select realtime.send('{\"n\": 2}', 'e', 'topic two')")
        with second.transaction(force_rollback=True):
            second.execute("select realtime.send('{\"n\": 3}', 'e', 'never')")
    notices = [json.loads(n.payload) for n in listener.notifies(timeout=PATIENCE_S, stop_after=2)]
    assert [notice["topic"] for notice in notices] == ["topic two", "topic one"]
    for notice, n in zip(notices, (2, 1), strict=True):
        payload = bare.one(
            "select payload from realtime.messages where id = %s and inserted_at = %s",
            notice["id"], notice["inserted_at"],
        )  # fmt: skip
        assert payload["n"] == n


def test_send_never_raises(fleet: Fleet) -> None:
    """realtime.send() downgrades errors to warnings, so a wake can never break the edit that caused it."""
    fleet.sql("select realtime.send('[]'::jsonb, 'e', 't')")
    assert fleet.messages() == []


def test_a_device_can_send_nothing(fleet: Fleet) -> None:
    fleet.sql("select realtime.send('{}', 'wake', %s)", f"device:{DEVICE}", who="device")
    assert fleet.messages() == []
    refusal = fleet.refused(
        "insert into realtime.messages (topic, extension) values ('fleet', 'broadcast')", who="device"
    )
    assert refusal.code == "42501"
