"""Whoever has a device's key writes as that device, for as long as nobody notices: how much is that?"""

from __future__ import annotations

import json

import psycopg
import pytest

from tests.sql.conftest import cluster, fleet, servers  # noqa: F401  the database's fixtures
from tests.support.identities import DEVICE, Fleet

THIEF = "device"
ATTEMPT = (
    "insert into public.update_history "
    "(id, device_id, to_commit, started_at, finished_at, outcome, evidence) "
    f"select gen_random_uuid(), '{DEVICE}', repeat('a', 40), now(), now(), 'failed', %s::jsonb "
    "from generate_series(1, %s)"
)


def _refusal(fleet: Fleet, rows: int, size: int) -> str:  # noqa: F811
    try:
        fleet.sql(ATTEMPT, json.dumps({"x": "a" * size}), rows, who=THIEF)
    except psycopg.Error as error:
        return f"{error.diag.sqlstate} {error.diag.message_detail}"
    return ""


@pytest.mark.parametrize(("rows", "size"), [(50, 10), (20, 55_000)])
def test_a_stolen_key_fills_no_database(fleet: Fleet, rows: int, size: int) -> None:  # noqa: F811
    """Many rows, and large ones: both end at a limit, which only time refills; an alert tells."""
    said = [_refusal(fleet, rows, size) for _ in range(16)]
    assert said[0] == "" and said[-1] == "PT429 rate_limited", said
    assert fleet.one("select count(*) from public.update_history") <= 600
    assert fleet.one("select sum(length(evidence::text)) <= 4194304 from public.update_history")
    # The other device has its own ration.
    fleet.sql("update public.device_status set phase = 'x' where true", who="other device")
    fleet.sql("select private.watch_rations(now())")
    alert = (
        "select device_id from public.alerts where kind = 'device_writes_too_much' and resolved_at is null"
    )
    assert fleet.sql(alert) == [(DEVICE,)]
    fleet.sql("select private.watch_rations(now() + interval '2 hours')")
    assert fleet.sql(alert) == []
    fleet.sql("update private.allowances set spent_until = now() where true")
    assert _refusal(fleet, 1, 10) == "", "an hour later it may write again"


@pytest.mark.parametrize("allowed", [60, 600, 65_536, 4_194_304, 1_000_000_007])
def test_a_ration_is_as_large_as_it_says(fleet: Fleet, allowed: int) -> None:  # noqa: F811
    spend = "select private.spend('x', 'y', %s, '1 hour', '2026-06-01Z', %s)"
    assert fleet.one(spend, allowed, allowed + 1) == 3600
    assert fleet.one(spend, allowed, allowed) == 0
    assert fleet.one(spend, allowed, allowed // 60) == 60


def test_the_alert_opens_at_half_of_the_ration_and_says_so(fleet: Fleet) -> None:  # noqa: F811
    fleet.sql(
        "insert into private.allowances (kind, subject, spent_until) "
        "values ('device rows', %s, '2026-06-01 00:30:00Z')",
        str(DEVICE),
    )
    open_alert = (
        "select summary from public.alerts where kind = 'device_writes_too_much' and resolved_at is null"
    )
    opened = []
    for at in ("00:00:00", "23:59:59", "00:19:59", "00:20:00"):
        day = "2026-05-31" if at.startswith("23") else "2026-06-01"
        fleet.sql("select private.watch_rations(%s)", f"{day} {at}Z")
        opened.append(fleet.sql(open_alert))
    none, half, little_less, down = opened
    assert (none, down) == ([], [])
    assert half == little_less
    assert "more than half of what one device may write" in half[0][0]


def test_every_table_that_a_device_writes_has_the_ration(fleet: Fleet) -> None:  # noqa: F811
    """From the catalog: a later table that lacks it fails here."""
    missing = fleet.sql(
        "select c.oid::regclass::text, v.verb "
        "from pg_class c cross join (values ('INSERT', 4), ('UPDATE', 16)) v(verb, bit) "
        "where c.relkind in ('r', 'p') and not c.relispartition "
        "and c.relnamespace::regnamespace::text in ('public', 'private') "
        "and has_any_column_privilege('fleet_device', c.oid, v.verb) "
        "and not exists (select from pg_trigger t where t.tgrelid = c.oid and t.tgenabled = 'O' "
        "and t.tgfoid = 'private.ration_writes'::regproc and t.tgtype & v.bit <> 0)"
    )
    assert missing == []
