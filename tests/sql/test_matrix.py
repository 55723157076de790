"""The whole matrix of access, generated from the catalog: member × table or view × verb × own or other row.

A new table or view without a decision here fails. Every cell is tried for real and undone; what is refused must be
refused by its SQLSTATE (42501) or see no row at all, and a person whose rank is too low is told so (PT403). Then again
with everything granted to everybody, as Lite does it, and without the triggers that look at the rank: row-level
security alone must then give the same answers.
"""

from __future__ import annotations

import json
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any
from uuid import UUID

import psycopg
import pytest

from tests.sql.test_access import _fill
from tests.sql.test_catalog import GRANTS, PARTITION
from tests.support.identities import DEVICE, OTHER, V1, WHO, Fleet, become
from tests.support.profiles import OLDER_SERVER_IN_FULL

VERBS = ("select", "insert", "update", "delete")
RANKS = ["viewer", "operator", "admin"]


@dataclass(frozen=True)
class Decision:
    """The least rank that may do each verb (None: nobody), and what a device may do with its own row."""

    select: str | None = None
    insert: str | None = None
    update: str | None = None
    delete: str | None = None
    device: str = ""


NOBODY = Decision()
READ = Decision("viewer")
OPERATED = Decision("viewer", "operator", "operator", "operator")
DECISIONS: dict[str, Decision] = {
    "private.adoption_days": READ,
    "private.allowances": NOBODY,
    "private.baseline": NOBODY,
    "private.enrollments": NOBODY,
    "private.last_outcomes": READ,
    "private.pattern_looks": READ,
    "private.provisioning_tokens": NOBODY,
    "private.release_patterns": READ,
    "private.report_state": READ,
    "private.reporter_ids": NOBODY,
    "private.rollout_counters": NOBODY,
    "private.rollout_queue": NOBODY,
    "private.signer_counts": READ,
    "private.tick_state": NOBODY,
    "private.timezones": NOBODY,
    "private.update_days": READ,
    "private.update_days_now": READ,
    "private.used_assertions": NOBODY,
    "public.alerts": Decision("viewer", update="operator"),
    "public.audit_log": READ,
    "public.branches": OPERATED,
    "public.device_commands": Decision("viewer", "operator", "operator", device="select update"),
    "public.device_roles": OPERATED,
    "public.device_status": Decision("viewer", device="select insert update"),
    "public.devices": OPERATED,
    "public.devices_by_state": READ,
    "public.drifted_clocks": READ,
    "public.failure_patterns": READ,
    "public.fleet_last_day": READ,
    "public.fleet_overview": READ,
    "public.fleet_settings": Decision("viewer", update="admin"),
    "public.halts": Decision("viewer", "operator", "operator"),
    "public.known_bad_patterns": Decision("viewer", "operator", "operator"),
    "public.known_bad_releases": Decision("viewer", delete="operator"),
    "public.maintenance_openings": OPERATED,
    "public.maintenance_windows": OPERATED,
    "public.offline_devices": READ,
    "public.operators": Decision("viewer", "admin", "admin", "admin"),
    "public.releases": Decision("viewer", "operator", "operator"),
    "public.roll_back_slots": READ,
    "public.rollout_claims": READ,
    "public.rollout_stages": OPERATED,
    "public.rollout_template_stages": OPERATED,
    "public.rollout_templates": OPERATED,
    "public.rollouts": Decision("viewer", "operator", "operator"),
    "public.segments": OPERATED,
    "public.release_signers": READ,
    "public.slo": READ,
    "public.slo_targets": Decision("viewer", update="admin"),
    "public.update_durations": READ,
    "public.update_history": Decision("viewer", device="select insert"),
    "public.update_outcomes_per_day": READ,
    "public.version_adoption": READ,
}
# An answer is the only change a device may make to a command.
SETS = {("public.device_commands", "fleet_device"): "state = 'succeeded'"}
MEMBERS = [who for who in WHO if who not in ("other device", "service")]
# A cell that got past grants and policies may still meet a rule of the table itself.
RULES = {"23505", "23503", "PT409", "PT400"}


@dataclass(frozen=True)
class Table:
    """One table or view as the catalog has it, with the rows that stand for "own" and "other"."""

    name: str
    is_view: bool
    columns: list[str]
    key: str | None  # the column that names the device
    rows: dict[str, dict[str, Any]]  # own, other, or any -> a row


def _all(fleet: Fleet) -> list[tuple[str, bool]]:
    rows = fleet.sql(
        "select n.nspname || '.' || c.relname, c.relkind in ('v', 'm') from pg_class c "
        "join pg_namespace n on n.oid = c.relnamespace "
        "where n.nspname in ('public', 'private') and c.relkind in ('r', 'p', 'v', 'm', 'f') order by 1"
    )
    return [(name, is_view) for name, is_view in rows if not PARTITION.match(name)]


def _fill_the_rest(fleet: Fleet) -> None:
    """A row in whatever test_access leaves empty."""
    _fill(fleet)
    fleet.sql(
        f"""
        set session_replication_role = replica;
        update public.device_status set reported_at = now() - interval '1 day', device_time = now(), current_release = '{V1}';
        set session_replication_role = origin;
        insert into private.allowances values ('k', 's', now());
        insert into private.reporter_ids select id, 'boot', gen_random_uuid(), now(), now() from public.devices;
        insert into private.used_assertions values ('k', 'j', now());
        insert into private.provisioning_tokens (token_hash, role) values (sha256('x'), 'beacon');
        insert into private.enrollments values ('{DEVICE}', null, '192.0.2.1'), ('{OTHER}', null, '192.0.2.1');
        insert into private.rollout_counters (rollout_id, position) select id, 7 from public.rollouts;
        insert into private.rollout_queue select r.id, d.id, now() from public.rollouts r, public.devices d
          where d.id in ('{DEVICE}', '{OTHER}');
        insert into private.update_days values ('2026-01-01', '{V1}', 'succeeded', 1, 1, 1);
        insert into private.signer_counts values ('{V1}', 'alice', 1);
        insert into private.pattern_looks values ('{V1}', now(), 1, 1);
        insert into private.release_patterns values ('{V1}', 'os', 'x', 1, 1, 0, 1, 2, 'x');
        select private.tick(now());
        -- After the tick, which would look for patterns anew.
        set session_replication_role = replica;
        update public.update_history set release_id = '{V1}', signer = 'x';
        set session_replication_role = origin;
        """
    )


def _describe(fleet: Fleet, name: str, is_view: bool) -> Table:
    columns = [
        row[0]
        for row in fleet.sql(
            "select attname::text from pg_attribute where attrelid = %s::regclass and attnum > 0 and not attisdropped "
            "and attidentity <> 'a' and attgenerated = '' order by attnum",
            name,
        )
    ]
    key = "id" if name == "public.devices" else "device_id" if "device_id" in columns else None
    rows = {}
    if is_view:
        key = None
    if key is not None and name != "public.alerts":
        for whose, device in (("own", DEVICE), ("other", OTHER)):
            rows[whose] = fleet.one(f"select to_jsonb(t) from {name} t where {key} = %s limit 1", device)
    else:
        key = None
        rows["any"] = fleet.one(f"select to_jsonb(t) from {name} t limit 1")
    return Table(name, is_view, columns, key, rows)


@pytest.fixture
def tables(fleet: Fleet) -> Iterator[list[Table]]:
    """Every table and view, each with at least one row of each kind."""
    _fill_the_rest(fleet)
    yield [_describe(fleet, name, is_view) for name, is_view in _all(fleet)]


def test_every_table_and_view_has_a_decision(bare: Fleet) -> None:
    names = {name for name, _ in _all(bare)}
    assert names - set(DECISIONS) == set(), "decide who may do what with these, in DECISIONS"
    assert set(DECISIONS) - names == set(), "these are gone"


def _may(who: str, table: Table, verb: str, whose: str) -> bool:
    decision = DECISIONS[table.name]
    if who in RANKS:
        least = getattr(decision, verb)
        return least is not None and RANKS.index(who) >= RANKS.index(least)
    if who == "device":
        return verb in decision.device.split() and whose == "own"
    if who == "service":
        return verb in GRANTS.get(table.name, {}).get("service_role", "").split()
    return False


def _people_write(table: Table, verb: str) -> bool:
    return verb != "select" and getattr(DECISIONS[table.name], verb) is not None


def _where(table: Table, whose: str) -> tuple[str, list[object]]:
    # One row always; an empty fleet is what somebody without rights sees.
    if table.name == "public.fleet_overview":
        return "devices > 0", []
    if table.name == "public.fleet_last_day":
        return "alerts_opened > 0", []
    if table.key is None:
        return "true", []
    return f"{table.key} = %s", [UUID(table.rows[whose][table.key])]


def _try(fleet: Fleet, table: Table, verb: str, whose: str, change: str) -> str:
    """What happens: `yes`, `no rows`, or the SQLSTATE. Undone in any case."""
    where, params = _where(table, whose)
    names = ", ".join(f'"{column}"' for column in table.columns)
    if verb == "select":
        statement = f"select 1 from {table.name} where {where} limit 1"
    elif verb == "insert":
        statement = f"insert into {table.name} ({names}) select {names} from jsonb_populate_record(null::{table.name}, %s)"
        params = [json.dumps(table.rows[whose])]
    elif verb == "update":
        statement = f"update {table.name} set {change} where {where}"
    else:
        statement = f"delete from {table.name} where {where}"
    api = fleet.api
    try:
        with api.transaction(force_rollback=True):
            return "yes" if api.execute(statement.encode(), params).rowcount > 0 else "no rows"
    except psycopg.Error as error:
        code = error.diag.sqlstate or "?"
        return "yes" if code in RULES else code


def _matrix(
    fleet: Fleet, tables: list[Table], members: list[str], *, rank_is_checked: bool = True
) -> list[str]:
    """Every cell that is not as decided, as a sentence."""
    wrong = []
    for who in members:
        role = WHO[who][0]
        updatable = {
            table.name: fleet.one(
                "select coalesce((select attname::text from pg_attribute where attrelid = %s::regclass and attname = any(%s) "
                "and has_column_privilege(%s, attrelid, attnum, 'update') order by attnum limit 1), %s)",
                table.name, table.columns, role, table.columns[0],
            )
            for table in tables
        }  # fmt: skip
        privileges = {
            (table.name, verb): fleet.one(
                "select has_table_privilege(%s, %s, %s) or (%s in ('select', 'insert', 'update') and "
                "has_any_column_privilege(%s, %s, case when %s = 'delete' then 'select' else %s end))",
                role, table.name, verb, verb, role, table.name, verb, verb,
            )
            for table in tables
            for verb in VERBS
        }  # fmt: skip
        with fleet.api.transaction(force_rollback=True):
            become(fleet.api, who)
            for table in tables:
                column = updatable[table.name]
                change = SETS.get((table.name, role), f'"{column}" = "{column}"')
                for verb in VERBS:
                    for whose in table.rows:
                        seen = _try(fleet, table, verb, whose, change)
                        allowed = privileges[table.name, verb]
                        if who == "service" and table.name not in GRANTS:
                            # Tables of enrollment: their own part decides, and tests, what the service key may.
                            right = {"yes" if allowed else "42501"}
                        elif _may(who, table, verb, whose):
                            right = {"yes"}
                        elif not allowed:
                            # A view that cannot be written says so before it asks for rights.
                            right = {"42501"} | ({"55000"} if table.is_view and verb != "select" else set())
                        elif rank_is_checked and role == "authenticated" and _people_write(table, verb):
                            right = {"PT403"}
                        elif verb == "insert":
                            right = {"42501"} | ({"55000"} if table.is_view else set())
                        elif table.is_view:
                            right = {"no rows", "42501"} if verb == "select" else {"55000"}
                        else:
                            right = {"no rows"}
                        if seen not in right:
                            wrong.append(
                                f"{who}: {verb} {table.name} ({whose}): {seen}, not {' or '.join(sorted(right))}"
                            )
    return wrong


@OLDER_SERVER_IN_FULL
def test_the_matrix_holds_as_hosted_grants_it(fleet: Fleet, tables: list[Table]) -> None:
    assert len(tables) == len(DECISIONS)
    assert _matrix(fleet, tables, [*MEMBERS, "service"]) == []


@OLDER_SERVER_IN_FULL
def test_the_matrix_holds_with_everything_granted_to_everybody(fleet: Fleet, tables: list[Table]) -> None:
    fleet.sql(
        "grant usage on schema public, private to anon, authenticated, fleet_device; "
        "grant all on all tables in schema public, private to anon, authenticated, fleet_device; "
        "grant all on all sequences in schema public, private to anon, authenticated, fleet_device"
    )
    _drop_rank_checks(fleet)
    assert _matrix(fleet, tables, MEMBERS, rank_is_checked=False) == []


def _drop_rank_checks(fleet: Fleet) -> None:
    """Nor what refuses a row by what is in it before row-level security looks at it."""
    checked = fleet.sql(
        "select tgname::text, tgrelid::regclass::text from pg_trigger where tgfoid = any "
        "(array['private.require_rank_to_write', 'private.keep_machine_columns']::regproc[]) and tgparentid = 0"
    )
    assert {name for name, _ in checked} > {"a_check_rank_first"}
    for name, table in checked:
        fleet.sql(f"drop trigger {name} on {table}")


def test_the_rank_is_checked_before_any_other_trigger_of_a_statement(bare: Fleet) -> None:
    """A trigger that comes first may lock, and what it locks a viewer must not."""
    first = bare.sql(
        "select distinct on (tgrelid) tgrelid::regclass::text, tgfoid::regproc::text from pg_trigger "
        "where tgtype & 1 = 0 and tgtype & 2 <> 0 and tgtype & 28 <> 0 and tgrelid = any(%s::regclass[]) "
        "order by tgrelid, tgname",
        [name for name, decision in DECISIONS.items()
         if any(getattr(decision, verb) for verb in VERBS if verb != "select")],
    )  # fmt: skip
    assert {function for _, function in first} == {"private.require_rank_to_write"}


@pytest.mark.parametrize(
    ("door", "noticed"),
    [
        (
            "create policy x on public.devices for select to authenticated using (true)",
            "stranger: select public.devices (own): yes, not no rows",
        ),
        (
            "alter table public.slo_targets disable row level security",
            "stranger: select public.slo_targets (any): yes, not no rows",
        ),
        (
            "drop trigger a_check_rank_first on public.slo_targets",
            "operator: update public.slo_targets (any): no rows, not PT403",
        ),
        (
            "create policy x on public.update_history for select to fleet_device using (true)",
            "device: select public.update_history (other): yes, not no rows",
        ),
        (
            "create policy x on public.device_status for insert to fleet_device with check (true)",
            "device: insert public.device_status (other): yes, not 42501",
        ),
        (
            "drop policy \"operators read halts\" on public.halts",
            "viewer: select public.halts (any): no rows, not yes",
        ),
    ],
)  # fmt: skip
def test_the_matrix_notices_an_open_or_a_shut_door(
    fleet: Fleet, tables: list[Table], door: str, noticed: str
) -> None:
    fleet.sql(door)
    who = noticed.split(":", maxsplit=1)[0]
    wrong = _matrix(fleet, tables, [who])
    assert noticed in wrong
