"""What the control plane keeps in tables that people write: times, who did it, what policy saw."""

from __future__ import annotations

import json
from collections.abc import Iterator

import pytest

from tests.support.identities import ADMIN, DEVICE, OPERATOR, V1, V2, Fleet
from tests.support.profiles import OLDER_SERVER_IN_FULL
from tests.support.rollout_builders import roll_out

pytestmark = OLDER_SERVER_IN_FULL

#: Times and people that are people's to write, or that triggers stamp whatever is written.
PEOPLES = {
    "alerts.acknowledged_at", "device_commands.expires_at", "devices.hold_until", "devices.ignore_window_until",
    "halts.lifted_at", "halts.lifted_by", "known_bad_patterns.lifted_at", "known_bad_patterns.lifted_by",
    "rollout_stages.approved_at", "fleet_settings.updated_at", "slo_targets.updated_at",
}  # fmt: skip
KEPT = """
select t.tgrelid::regclass::text, convert_from(substring(t.tgargs from 1 for position('\\000'::bytea in t.tgargs) - 1), 'utf8')
from pg_trigger t where t.tgfoid = 'private.keep_machine_columns'::regproc order by t.tgname desc
"""


def _kept(fleet: Fleet) -> Iterator[tuple[str, str]]:
    for table, document in fleet.sql(KEPT):
        for column in json.loads(document):
            yield table.removeprefix("public."), column


def test_each_time_and_each_person_is_kept_or_a_persons_to_write(bare: Fleet) -> None:
    found = bare.sql(
        "select c.relname || '.' || a.attname from pg_class c join pg_attribute a on a.attrelid = c.oid "
        "where c.relnamespace = 'public'::regnamespace and c.relkind = 'r' and a.attnum > 0 and not a.attisdropped "
        "and (a.atttypid = 'timestamptz'::regtype or a.attname like '%%\\_by' and a.atttypid = 'uuid'::regtype) "
        "and (has_column_privilege('authenticated', c.oid, a.attnum, 'insert') "
        "or has_column_privilege('authenticated', c.oid, a.attnum, 'update'))"
    )
    kept = {f"{table}.{column}" for table, column in _kept(bare)}
    assert {column for (column,) in found} - kept - PEOPLES == set()


INSERTS = {
    "operators": "user_id",
    "releases": "commit_sha",
    "devices": "name, role",
    "device_commands": "device_id, kind",
    "rollouts": "release_id",
    "rollout_stages": "rollout_id, position",
}


@pytest.mark.parametrize("who", ["admin", "service"])
def test_what_the_control_plane_keeps_is_not_a_persons_to_write(fleet: Fleet, who: str) -> None:
    rollout = roll_out(fleet, {"segment": "canary"}, {"needs_approval": True}, start=False)
    values = {
        "operators": "gen_random_uuid()", "releases": "repeat('9', 40)", "devices": "'new', 'beacon'",
        "device_commands": f"'{DEVICE}', 'restart'", "rollouts": f"'{V2}'", "rollout_stages": f"'{rollout}', 9",
    }  # fmt: skip
    fleet.sql("insert into public.device_commands (device_id, kind) values (%s, 'restart')", DEVICE)
    tried = 0
    for table, column in _kept(fleet):
        if table not in INSERTS:
            continue
        forged = {"created_by": f"'{ADMIN}'", "result": "'{}'", "key_number": "2"}.get(column, "")
        if not forged:
            kind = fleet.one(
                "select format_type(atttypid, null) from pg_attribute where attrelid = %s::regclass and attname = %s",
                f"public.{table}", column,
            )  # fmt: skip
            forged = {"uuid": f"'{ADMIN}'", "integer": "7"}.get(kind, "'2001-01-01Z'")
        insert = f"insert into public.{table} ({INSERTS[table]}, {column}) values ({values[table]}, {forged})"
        change = f"update public.{table} set {column} = {forged} where {column} is distinct from {forged}"
        for statement in (insert, *([change] if table not in ("device_commands",) else [])):
            if statement == change and (table, column) in (
                ("rollout_stages", "opened_at"),
                ("devices", "key_number"),
            ):
                continue
            refusal = fleet.refused(statement, who=who)
            assert (refusal.code, refusal.kind) == ("PT400", "column_is_kept"), statement
            assert refusal.message == f"{column} of {table} is kept by the control plane: nobody writes it."
            tried += 1
    assert tried > 30
    fleet.sql("insert into public.devices (name, role) values ('new', 'beacon')", who=who)
    fleet.sql("update public.devices set labels = '{}', created_at = created_at where name = 'new'", who=who)


@pytest.mark.parametrize(
    ("table", "columns", "values"),
    [
        ("halts", "scope, target, reason", "'segment', 'early', 'seen'"),
        (
            "known_bad_patterns",
            "release_id, selector, reason, allow_empty",
            f"'{V1}', '{{\"os\": \"x\"}}', 'seen', true",
        ),
    ],
)
def test_a_persons_brake_is_an_operators_and_opens_now(
    fleet: Fleet, table: str, columns: str, values: str
) -> None:
    """Whatever the row says: an emergency stop is not refused for what it says too much."""
    fleet.sql(
        f"insert into public.{table} ({columns}, cause, evidence, opened_at, opened_by) values "
        f"({values}, 'halt_failure_ratio', '{{\"failed\": 9}}', '-infinity', '{ADMIN}')",
        who="operator",
    )
    row = f"select cause, evidence, opened_at >= now() - interval '1 minute', opened_by from public.{table}"
    assert fleet.sql(row) == [("operator", {}, True, OPERATOR)]


def test_a_stage_is_opened_and_approved_now_and_once(fleet: Fleet) -> None:
    rollout = roll_out(fleet, {"segment": "canary"}, {"needs_approval": True})
    past = "update public.rollout_stages set {} = '1999-01-01Z' where rollout_id = %s and position = 2"
    for column in ("approved_at", "opened_at"):
        fleet.sql(past.format(column), rollout, who="operator")
        now = f"select {column} >= now() - interval '1 minute' from public.rollout_stages where position = 2"
        assert fleet.one(now), column
    assert fleet.refused(past.format("opened_at"), rollout, who="operator").kind == "stage_is_open"
    fleet.sql(past.format("approved_at"), rollout, who="operator")
    assert fleet.one(
        "select approved_at >= now() - interval '1 minute' from public.rollout_stages where position = 2"
    )


@pytest.mark.parametrize("state", ["completed", "superseded"])
def test_only_policy_completes_a_rollout(fleet: Fleet, state: str) -> None:
    rollout = roll_out(fleet)
    refusal = fleet.refused(
        "update public.rollouts set state = %s where id = %s", state, rollout, who="operator"
    )
    assert (refusal.kind, refusal.message) == ("rollout_state", f"A rollout is {state} by policy alone.")
