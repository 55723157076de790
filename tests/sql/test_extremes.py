"""No row that a person or a device can write stops anything: each column is set to its extremes, one at a time."""

from __future__ import annotations

import json
from collections.abc import Iterator
from itertools import groupby, product
from operator import itemgetter
from typing import Any
from uuid import UUID

import psycopg
import pytest

from tests.support.cluster import type_of_connection
from tests.support.identities import DEVICE, OTHER, V1, V2, Fleet, become
from tests.support.profiles import amount

#: Roles that requests act under. What none of them may write, only policy writes.
CALLERS = ("fleet_device", "authenticated", "service_role")

#: Per type, what a slip of the hand or a hostile device writes. Each is cast to the column's own type.
EXTREMES: dict[str, list[Any]] = {
    "timestamp with time zone": ["infinity", "-infinity", "0001-01-01 BC", "9999-12-31", "2099-12-31", "1970-01-01"],
    "date": ["infinity", "-infinity", "9999-12-31"],
    "integer": [-(2**31), -1, 0, 2**31 - 1],
    "bigint": [-(2**63), -1, 0, 2**63 - 1],
    "text": ["", " ", "x" * 200_000, "'; drop table x; --", "%s %I {}", "infinity", "CEST", "Foo/Bar+3"],
    "jsonb": [
        "{}", "[]", "null", '"text"', "1e400", json.dumps({"pinned": ["poll_interval_s"], "poll_interval_s": 1e300}),
        json.dumps({"a" * 100_000: "x"}), "[" * 3000 + "]" * 3000, '{"a":' * 3000 + "1" + "}" * 3000,
        json.dumps({"cpu_percent": "NaN", "release_id": "x", "rollout_id": "not a uuid", "halt_id": []}),
    ],
    "boolean": [True, False],
    "uuid": ["00000000-0000-0000-0000-000000000000"],
}  # fmt: skip

WORLD = f"""
insert into public.maintenance_windows (name) values ('nights');
insert into public.maintenance_openings (maintenance_window, days, starts_at, minutes) values ('nights', 'daily', '02:00', 60);
update public.devices set hold = true, hold_reason = 'wait', hold_until = now() + interval '1 day' where id = '{OTHER}';
insert into public.device_status (device_id, current_release, settings) values
  ('{DEVICE}', '{V1}', '{{"pinned": ["poll_interval_s"], "poll_interval_s": 60}}'), ('{OTHER}', '{V1}', '{{}}');
insert into public.update_history (id, device_id, release_id, to_commit, outcome, error_kind, error, started_at, finished_at)
  values (gen_random_uuid(), '{OTHER}', '{V2}', repeat('2', 40), 'failed', 'image_missing', 'no', now(), now());
insert into public.device_commands (device_id, kind) values ('{DEVICE}', 'restart');
insert into public.halts (scope, target, reason) values ('segment', 'early', 'a look');
"""


def _columns(db: type_of_connection) -> list[tuple[str, str, str, bool]]:
    """Table, column, type and whether it may be null, of all that a caller may insert or update."""
    return db.execute(
        """
        select c.relname, a.attname, format_type(a.atttypid, null), not a.attnotnull
        from pg_class c join pg_attribute a on a.attrelid = c.oid
        where c.relnamespace = 'public'::regnamespace and c.relkind in ('r', 'p') and a.attnum > 0 and not a.attisdropped
          and a.attgenerated = '' and a.attidentity = ''
          and exists (select from unnest(%s::text[]) r where has_column_privilege(r, c.oid, a.attnum, 'insert')
                      or has_column_privilege(r, c.oid, a.attnum, 'update'))
        order by 1, 2
        """,
        [list(CALLERS)],
    ).fetchall()


def _groups(columns: list[tuple[str, str, str, bool]]) -> Iterator[tuple[str, list[str], str, bool]]:
    """Each column alone, and all times of a table at once: what is computed from two of them needs both."""
    for table, column, kind, nullable in columns:
        yield table, [column], kind, nullable
    moments = [(table, column) for table, column, kind, _ in columns if kind == "timestamp with time zone"]
    for table, group in groupby(moments, key=itemgetter(0)):
        yield table, [column for _, column in group], "timestamp with time zone", False


def _enum_values(db: type_of_connection, kind: str) -> list[str]:
    query = "select unnest(enum_range(null::%s))::text" % kind  # noqa: UP031  a type's name is no parameter
    return [row[0] for row in db.execute(query.encode()).fetchall()]


def _look_everywhere(db: type_of_connection, views: list[str], rollout: UUID) -> None:
    """Ask as each device, tick, and read what people read. Any exception is the failure."""
    done = db.execute("select private.tick(now() + interval '11 minutes')").fetchone()
    assert done is not None
    assert "failed" not in done[0], done
    for device, who in ((DEVICE, "device"), (OTHER, "other device")):
        become(db, who)
        try:
            with db.transaction():
                answer = db.execute("select public.desired_state()").fetchone()
        except psycopg.Error as error:
            # Told so in words: it was locked out by what was written.
            assert error.sqlstate == "PT403", error
            answer = None
        db.execute("reset role")
        db.execute("select public.explain_device(%s)", [device])
        if answer is None:
            continue
        text = json.dumps(answer[0])
        assert len(text) < 64_000, f"an answer of {len(text)} bytes"
        assert 1 <= answer[0]["next_poll_s"] <= 604_800, answer[0]["next_poll_s"]
    db.execute(
        "select public.rollout_progress(%s), (select count(*) from public.preview_rollout(%s))",
        [rollout, rollout],
    )
    for view in views:
        db.execute(f"select * from public.{view}".encode())


def _what_breaks(db: type_of_connection, views: list[str], rollout: UUID) -> str | None:
    try:
        with db.transaction(force_rollback=True):
            _look_everywhere(db, views, rollout)
    except (psycopg.Error, AssertionError) as error:
        return str(error).splitlines()[0][:160]
    return None


@pytest.mark.parametrize("cluster", ["postgres18"], indirect=True)
def test_no_extreme_of_any_column_stops_an_answer_the_clock_or_a_report(fleet: Fleet) -> None:
    fleet.sql(WORLD)
    rollout = fleet.one(
        "select (public.create_rollout(%s, stages => %s)).id",
        V2,
        json.dumps([{"segment": "canary"}, {}]),
        who="operator",
    )
    fleet.sql("select public.start_rollout(%s)", rollout, who="operator")
    fleet.sql("select public.desired_state()", who="device")
    db = fleet.admin
    views = [row[0] for row in fleet.sql("select viewname from pg_views where schemaname = 'public'")]
    broken: list[str] = []
    tried = accepted = 0
    with db.transaction(force_rollback=True):
        db.execute("set local fleet.rewrite_history = 'on'")
        assert _what_breaks(db, views, rollout) is None
        for table, columns, kind, nullable in _groups(_columns(db)):
            is_enum = db.execute(
                "select typtype = 'e' from pg_type where oid = %s::regtype", [kind]
            ).fetchone()
            values = _enum_values(db, kind) if is_enum and is_enum[0] else EXTREMES.get(kind, [])
            served = f"where id in ('{DEVICE}', '{OTHER}')" if table == "devices" else ""
            rows = db.execute(
                f"select tableoid, ctid from public.{table} {served} limit 2".encode()
            ).fetchall()
            for value, row in product([*values, *([None] if nullable else [])], rows):
                tried += 1
                if tried % amount(5, full=1):
                    continue
                shown = f"{table}.{', '.join(columns)} = {str(value)[:40]!r}"
                changes = ", ".join(f'"{column}" = cast(%s as {kind})' for column in columns)
                edit = f"update public.{table} set {changes} where (tableoid, ctid) = (%s, %s)"
                try:
                    with db.transaction(force_rollback=True):
                        db.execute(edit.encode(), [*[value] * len(columns), *row])
                        accepted += 1
                        why = _what_breaks(db, views, rollout)
                except psycopg.Error:  # the edit is refused
                    db.execute("reset role")
                    continue
                if why is not None:
                    broken.append(f"{shown}: {why}")
    assert accepted > amount(50, full=300)
    assert not broken, "\n".join(broken)
