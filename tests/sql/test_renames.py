"""A rename passes no brake and breaks nothing: whatever holds the name of a segment, role, branch or window follows."""

from __future__ import annotations

import json
from typing import Any
from uuid import UUID

import pytest

from tests.support.identities import DEVICE, OTHER, V1, Fleet

#: Tables that tell of the past: they keep the name it had.
PAST = {"public.audit_log", "public.update_history", "private.tick_state"}
RENAMES = {
    "segments": ("ring-a", "ring-b"),
    "device_roles": ("kiosk", "kiosk-2"),
    "branches": ("trial", "trial-2"),
    "maintenance_windows": ("at-dawn", "at-dusk"),
    "rollout_templates": ("by-hand", "by-foot"),
}
#: Alone, and one of several.
SELECTOR = {"segment": ["canary", "ring-a"], "role": "kiosk", "branch": ["staging", "trial"]}
KEY = {"segments": "segment", "device_roles": "role", "branches": "branch"}


@pytest.fixture
def named(fleet: Fleet) -> Fleet:
    """A fleet in which each of the names stands wherever it can stand."""
    fleet.sql(
        f"""
        insert into public.maintenance_windows (name) values ('at-dawn');
        insert into public.maintenance_openings (maintenance_window, days, starts_at, minutes) values ('at-dawn', 'daily', '05:00', 60);
        insert into public.segments (name, position, maintenance_window) values ('ring-a', 90, 'at-dawn');
        insert into public.device_roles (name) values ('kiosk');
        insert into public.rollout_templates (name, role, selector) values ('by-hand', 'kiosk', '{json.dumps(SELECTOR)}');
        insert into public.rollout_template_stages (template, position, segment) values ('by-hand', 1, 'ring-a');
        insert into public.branches (name) values ('trial');
        update public.fleet_settings set pending_role = 'kiosk' where true;
        insert into public.releases (id, commit_sha, branch, version) values
          ('00000000-0000-4000-8000-000000000071', repeat('7', 40), 'trial', 't1'), ('00000000-0000-4000-8000-000000000072', repeat('8', 40), 'trial', 't2');
        update public.devices set role = 'kiosk', segment = 'ring-a', branch = 'trial', maintenance_window = 'at-dawn' where id in ('{DEVICE}', '{OTHER}');
        select public.create_provisioning_token(role => 'kiosk', segment => 'ring-a', branch => 'trial');
        """
    )
    for release in ("00000000-0000-4000-8000-000000000071", "00000000-0000-4000-8000-000000000072"):
        rollout = fleet.one(
            "select (public.create_rollout(%s, role => 'kiosk', stages => %s, options => %s)).id",
            UUID(release), json.dumps([{"segment": "ring-a"}, {}]), json.dumps({"selector": SELECTOR}),
        )  # fmt: skip
        fleet.sql("select public.start_rollout(%s)", rollout)
    for scope, target in (("segment", "ring-a"), ("role", "kiosk"), ("branch", "trial")):
        fleet.sql("insert into public.halts (scope, target, reason) values (%s, %s, 'smoke')", scope, target)
        fleet.sql("insert into public.halts (scope, target, reason) values (%s, %s, 'older');", scope, target)
        fleet.sql("update public.halts set lift_reason = 'over' where reason = 'older'")
    for key, value in (("segment", "ring-a"), ("role", "kiosk"), ("branch", ["main", "trial"])):
        fleet.sql(
            "select public.mark_known_bad(%s, %s, 'its disk fills', allow_empty => true)",
            V1,
            json.dumps({key: value}),
        )
    fleet.sql("update public.branches set rollout_template = 'by-hand' where name = 'trial'")
    fleet.sql(
        "insert into private.adoption_days (day, role, release_id, devices) "
        "select '2026-01-01', 'kiosk', r.id, 1 from public.releases r limit 1"
    )
    return fleet


def _holding(fleet: Fleet, name: str) -> set[str]:
    """The tables in which a row holds the name, by the catalog: also those that are made later."""
    tables = fleet.sql(
        "select n.nspname || '.' || c.relname from pg_class c join pg_namespace n on n.oid = c.relnamespace "
        "where n.nspname in ('public', 'private') and c.relkind in ('r', 'p') and not c.relispartition"
    )
    return {
        table
        for (table,) in tables
        if fleet.one(f"select exists (select from {table} t where to_jsonb(t)::text like %s)", f'%"{name}"%')
    } - PAST


@pytest.mark.parametrize("table", RENAMES)
def test_every_row_that_holds_a_name_follows_its_rename(named: Fleet, table: str) -> None:
    old, new = RENAMES[table]
    before = _holding(named, old) - {"public.alerts"}
    assert len(before) > 1, "the fixture puts the name wherever it can stand"
    named.sql(f"update public.{table} set name = %s where name = %s", new, old, who="operator")
    assert _holding(named, old) - {"public.alerts"} == set()
    assert _holding(named, new) >= before


def test_the_fixture_names_what_can_be_named(named: Fleet) -> None:
    """A column that a foreign key ties to a renamed table stands in the fixture: the next one has to be added to it."""
    columns = named.sql(
        "select k.conrelid::regclass::text, a.attname, k.confrelid::regclass::text from pg_constraint k "
        "join pg_attribute a on a.attrelid = k.conrelid and a.attnum = k.conkey[1] "
        "where k.contype = 'f' and k.confrelid::regclass::text = any(%s) and k.conparentid = 0",
        [f"public.{table}" for table in RENAMES] + list(RENAMES),
    )
    assert len(columns) > 10
    for table, column, target in columns:
        old = RENAMES[target.removeprefix("public.")][0]
        assert named.one(f"select count(*) from {table} where {column} = %s", old) > 0, f"{table}.{column}"
        kind = named.one("select confupdtype::text from pg_constraint k join pg_attribute a on a.attrelid = k.conrelid "
                         "and a.attnum = k.conkey[1] where k.contype = 'f' and k.conrelid = %s::regclass and a.attname = %s",
                         table, column)  # fmt: skip
        assert kind == "c", f"{table}.{column} does not follow a rename"


@pytest.mark.parametrize("table", ["segments", "device_roles", "branches"])
def test_a_halt_holds_after_the_rename_of_what_it_halts(named: Fleet, table: str) -> None:
    old, new = RENAMES[table]
    scope = KEY[table]
    named.sql(
        "update public.halts set lift_reason = 'only one counts' where lifted_at is null and scope <> %s",
        scope,
    )

    def halted() -> Any:
        gates = named.one("select public.desired_state()", who="device")["gates"]
        return [gate["verdict"] for gate in gates if gate["gate"] == "halt"]

    assert halted() == ["wait"]
    named.sql(f"update public.{table} set name = %s where name = %s", new, old, who="operator")
    assert halted() == ["wait"]
    halt = named.one("select id from public.halts where lifted_at is null and scope = %s", scope)
    named.sql("select public.lift_halt(%s, 'seen to')", halt, who="operator")
    assert halted() == ["pass"]


def test_a_name_cannot_be_slipped_to_another_one_as_if_it_were_a_rename(named: Fleet) -> None:
    named.sql("insert into public.segments (name, position) values ('ring-z', 99)")
    halt = named.one("select id from public.halts where scope = 'segment' and lifted_at is null")
    change = "update public.halts set target = 'ring-z' where id = %s"
    assert named.refused(change, halt, who="operator").kind == "halt_is_fixed"
    change = """update public.known_bad_patterns set selector = '{"segment": "ring-z"}' where selector ? 'segment'"""
    assert named.refused(change, who="operator").kind == "known_bad_is_fixed"
