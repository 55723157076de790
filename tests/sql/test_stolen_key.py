"""Whoever has a device's key is that device, and nothing more: everything else is tried and refused by its SQLSTATE.

What there is to try comes from the catalog, so a new function or foreign key is tried without being named here.
"""

from __future__ import annotations

import pytest

from tests.sql.test_access import DEVICE_TABLES, _fill
from tests.sql.test_catalog import CALLABLE, HELPERS
from tests.support.identities import DEVICE, OTHER, V1, Fleet

THIEF = "device"


def test_every_function_is_tried_and_only_its_own_question_is_answered(fleet: Fleet) -> None:
    functions = fleet.sql(
        "select n.nspname || '.' || p.proname, (select coalesce(string_agg('null::' || format_type(t, null), ', '), '') "
        "from unnest(p.proargtypes) t) from pg_proc p join pg_namespace n on n.oid = p.pronamespace "
        "where n.nspname in ('public', 'private') and p.prokind = 'f' and p.prorettype <> 'trigger'::regtype"
    )
    tried = 0
    for name, arguments in functions:
        if name not in CALLABLE["fleet_device"] | HELPERS["fleet_device"]:
            assert fleet.refused(f"select {name}({arguments})", who=THIEF).code == "42501", name
            tried += 1
    assert tried > 100


def test_embedding_reaches_no_further_than_the_tables_themselves(fleet: Fleet) -> None:
    """As the API embeds: a readable table joined along each of its foreign keys, in both directions."""
    _fill(fleet)
    keys = fleet.sql(
        "select conrelid::regclass::text, confrelid::regclass::text, a.attname, b.attname from pg_constraint c "
        "join pg_attribute a on a.attrelid = conrelid and a.attnum = conkey[1] "
        "join pg_attribute b on b.attrelid = confrelid and b.attnum = confkey[1] "
        "where contype = 'f' and conparentid = 0 and connamespace = 'public'::regnamespace"
    )
    readable = {f"public.{table}" for table in DEVICE_TABLES}
    tried = 0
    for child, parent, column, referred in keys:
        for outer, inner, condition in (
            (child, parent, f"i.{referred} = o.{column}"),
            (parent, child, f"i.{column} = o.{referred}"),
        ):
            embedded = (
                f"select to_jsonb(o), (select jsonb_agg(i) from {inner} i where {condition}) from {outer} o"
            )
            assert not {outer, inner} <= readable, "decide what this may show"
            assert fleet.refused(embedded, who=THIEF).code == "42501", embedded
            tried += 1
    assert tried > 40
    # What it may write gives back no more either.
    returning = "update public.device_status set phase = 'x' where true returning (select count(*) from public.devices)"
    assert fleet.refused(returning, who=THIEF).code == "42501"


@pytest.mark.parametrize(
    "attempt",
    [
        # Its own slot in the fleet, and those of others.
        f"update public.devices set segment = 'stable' where id = '{DEVICE}'",
        f"update public.devices set pinned_release = '{V1}' where true",
        f"update public.devices set public_key = repeat('x', 43) where id = '{OTHER}'",
        "update public.devices set state = 'active' where true",
        "insert into public.devices (name, role) values ('twin', 'beacon')",
        # Orders, releases, brakes.
        f"insert into public.device_commands (device_id, kind) values ('{OTHER}', 'restart')",
        f"insert into public.device_commands (device_id, kind) values ('{DEVICE}', 'restart')",
        "update public.device_commands set kind = 'rollback' where true",
        "delete from public.device_commands where true",
        "insert into public.releases (commit_sha) values (repeat('f', 40))",
        "update public.halts set lift_reason = 'x' where true",
        "insert into public.halts (reason) values ('x')",
        "delete from public.known_bad_releases where true",
        "insert into public.operators (user_id) values (gen_random_uuid())",
        # What it said before.
        "update public.update_history set outcome = 'succeeded' where true",
        "delete from public.update_history where true",
        "delete from public.device_status where true",
        f"update public.device_status set device_id = '{OTHER}' where true",
        # The server itself.
        "set local role postgres",
        "set local session_replication_role = replica",
        "create table public.mine ()",
        "create function public.mine() returns int language sql return 1",
        "create schema mine",
        "copy public.device_status to program 'true'",
        "select pg_read_file('/etc/passwd')",
        "select lo_import('/etc/passwd')",
        "select pg_terminate_backend(pid) from pg_stat_activity where usename = 'supabase_admin'",
        "alter table public.device_status disable row level security",
        "truncate public.device_status",
        "lock table public.halts in access exclusive mode",
        "select * from auth.users",
    ],
)
def test_a_stolen_key_is_worth_one_device(fleet: Fleet, attempt: str) -> None:
    _fill(fleet)
    assert fleet.refused(attempt, who=THIEF).code == "42501"
