"""Where a sentence is expected, nobody writes another line, an escape sequence, or letters in another order."""

from __future__ import annotations

import psycopg
import pytest

from tests.support.identities import DEVICE, Fleet

#: Not shown to anyone as they are, written by policy alone, or refused by a stricter pattern or list of their own.
OTHERS = {
    "alerts.kind", "alerts.subject", "alerts.summary",
    "audit_log.action", "audit_log.actor", "audit_log.row_id", "audit_log.table_name",
    "known_bad_releases.error", "known_bad_releases.error_kind",
    "roll_back_slots.error",
    "devices.timezone",
}  # fmt: skip
HOSTILE = {
    "escape": "\x1b]0;owned\x07", "line": "a\nforged line", "return": "a\rb", "bell": "\x07", "delete": "\x7f",
    "C1": "\x9b31m", "separator": "a\u2028b", "override": "\u202egpj.sh", "isolate": "\u2066x",
}  # fmt: skip
PLAIN = ["", "Größe: 3 µm – «ok»", "שלום", "日本語", "a\u200db", "🙂", "100 % \\x1b"]


def _texts(fleet: Fleet) -> list[tuple[str, str]]:
    """Each text column of a table of ours, and its table's checks."""
    return fleet.sql(
        "select c.relname || '.' || a.attname, coalesce((select string_agg(pg_get_constraintdef(k.oid), ' ') "
        "  from pg_constraint k where k.conrelid = c.oid and a.attnum = any (k.conkey)), '') "
        "from pg_class c join pg_attribute a on a.attrelid = c.oid "
        "where c.relnamespace = 'public'::regnamespace and c.relkind in ('r', 'p') and a.attnum > 0 "
        "and not a.attisdropped and a.atttypid = 'text'::regtype order by 1"
    )


def test_each_text_column_is_plain(bare: Fleet) -> None:
    """From the catalog: a later column that lacks its check fails here."""
    lacking = [
        column
        for column, checks in _texts(bare)
        if column not in OTHERS
        and "is_one_line(" not in checks
        and "is_plain_text(" not in checks
        and " ~ '^" not in checks
        and "= ANY" not in checks
        and "FOREIGN KEY" not in checks
    ]
    assert lacking == []


def test_what_is_one_line_and_what_is_plain(bare: Fleet) -> None:
    for what, text in HOSTILE.items():
        several = what in ("line", "return", "separator")
        found = bare.sql("select private.is_one_line(%s), private.is_plain_text(%s)", text, text)
        assert found == [(False, several)], what
        assert bare.one("select private.is_one_line(private.one_line(%s))", text) is True
    for text in PLAIN:
        assert bare.sql("select private.is_one_line(%s), private.is_plain_text(%s)", text, text) == [
            (True, True)
        ]


@pytest.mark.parametrize("column", ["phase", "reason", "agent_version", "error_kind", "error"])
def test_a_device_writes_no_control_character_into_its_report(fleet: Fleet, column: str) -> None:
    report = (
        f"insert into public.device_status (device_id, {column}) values (%s, %s) "
        f"on conflict (device_id) do update set {column} = excluded.{column}"
    )
    refused = set()
    for what, text in HOSTILE.items():
        try:
            fleet.sql(report, DEVICE, text, who="device")
        except psycopg.errors.CheckViolation as error:
            assert "without control characters" in str(error.diag.constraint_name)
            refused.add(what)
    allowed = {"line", "return", "separator"} if column == "error" else set()
    assert refused == HOSTILE.keys() - allowed
    for text in PLAIN:
        fleet.sql(report, DEVICE, text, who="device")


def test_people_write_none_either(fleet: Fleet) -> None:
    for text in HOSTILE.values():
        for statement in (
            "select public.halt_fleet(%s)",
            f"update public.devices set hold = true, hold_reason = %s where id = '{DEVICE}'",
        ):
            with pytest.raises(psycopg.errors.CheckViolation):
                fleet.sql(statement, text, who="operator")
