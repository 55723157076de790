"""Whoever has a device's key writes as that device, for as long as nobody notices: how much is that?"""

from __future__ import annotations

import json
from datetime import UTC, datetime, timedelta
from pathlib import Path
from uuid import uuid4

import psycopg
import pytest

from fleet_agent.attempts.outbox import DETAIL_LIMIT, Outbox
from fleet_agent.daemon import status_report
from fleet_agent.log import RING_MESSAGE_LIMIT, RING_SIZE
from fleet_agent.model import Attempt, ServiceState
from fleet_agent.model import Outcome as AttemptOutcome
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


def test_the_alert_opens_at_three_quarters_of_the_ration_and_says_so(fleet: Fleet) -> None:  # noqa: F811
    fleet.sql(
        "insert into private.allowances (kind, subject, spent_until) "
        "values ('device rows', %s, '2026-06-01 00:45:00Z')",
        str(DEVICE),
    )
    open_alert = (
        "select summary from public.alerts where kind = 'device_writes_too_much' and resolved_at is null"
    )
    opened = []
    for at in ("00:00:00", "23:59:59", "00:34:59", "00:35:00"):
        day = "2026-05-31" if at.startswith("23") else "2026-06-01"
        fleet.sql("select private.watch_rations(%s)", f"{day} {at}Z")
        opened.append(fleet.sql(open_alert))
    none, most, little_less, down = opened
    assert (none, down) == ([], [])
    assert most == little_less
    assert "more than three quarters of what one device may write" in most[0][0]


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


def _spent(fleet: Fleet) -> dict[str, float]:  # noqa: F811
    """How much of its ration of an hour the device has used, by kind."""
    return {
        kind: float(share)
        for kind, share in fleet.sql(
            "select kind, extract(epoch from spent_until - now()) / 3600 from private.allowances "
            "where kind like 'device %%' and subject = %s",
            str(DEVICE),
        )
    }


def test_an_honest_devices_worst_hour_is_well_below_the_ration(
    fleet: Fleet,  # noqa: F811
    tmp_path: Path,
) -> None:
    """Back after an outage with a full outbox, failing, rolling back, retrying, commanded.

    Rows as large as the agent's own bounds allow, as many as it writes; `-s` prints the shares.
    """
    now = datetime.now(UTC)
    report = {
        "device_id": str(DEVICE), "state": "updating", "phase": "probation", "boot_id": str(uuid4()),
        "reason": "r" * 300, "error_kind": "container_exited", "error": "e" * status_report.TEXT_LIMIT,
        "agent_version": "0.1.0", "attempt_id": str(uuid4()),
        "resources": dict.fromkeys(("cpu_percent", "memory_used_bytes", "disk_free_bytes"), 10**10),
        "settings": {"poll_interval_s": 900, "labels": {"site": "rome"}, "pinned": []},
        "containers": [
            ServiceState(service=f"service-{n}", image="r.example/a/image:1.2.3", state="up").model_dump()
            for n in range(10)
        ],
        "log_tail": [
            {"at": now.isoformat(timespec="seconds"), "level": "warning", "message": "m" * RING_MESSAGE_LIMIT}
        ] * RING_SIZE,
    }  # fmt: skip
    columns = ", ".join(report)
    reports = 3600 / status_report.PROGRESS_REFILL_S + status_report.PROGRESS_BURST
    resting = 60
    for _ in range(int(reports) + resting):
        fleet.sql(
            f"insert into public.device_status ({columns}) select {columns} "
            "from jsonb_populate_record(null::public.device_status, %s) "
            "on conflict (device_id) do update set "
            + ", ".join(f"{column} = excluded.{column}" for column in report),
            json.dumps(report),
            who="device",
        )  # fmt: skip
    outbox = Outbox(tmp_path)
    for minute in range(DETAIL_LIMIT):
        at = now - timedelta(minutes=DETAIL_LIMIT - minute)
        outbox.put(
            Attempt(
                id=uuid4(),
                release_id=None,
                rollout_id=None,
                from_commit="b" * 40,
                to_commit="a" * 40,
                outcome=AttemptOutcome.ROLLED_BACK,
                failed_phase="probation",
                error_kind="container_exited",
                error="e" * 300,
                evidence={"log": ["l" * 200] * 50},
                started_at=at,
                finished_at=at,
                agent_version="0.1.0",
                phase_durations_ms=dict.fromkeys(
                    ("fetching", "verifying", "validating", "pulling", "probation"), 1000
                ),
            )
        )
    for attempt in outbox.pending():
        row = attempt.model_dump(mode="json") | {"device_id": str(DEVICE)}
        fleet.sql(
            f"insert into public.update_history ({', '.join(row)}) select {', '.join(row)} "
            "from jsonb_populate_record(null::public.update_history, %s)",
            json.dumps(row),
            who="device",
        )
    spent = _spent(fleet)
    rows, size = spent["device rows"], spent["device bytes"]
    print(f"the worst hour of an honest device: {rows:.0%} of its rows, {size:.0%} of its bytes")
    assert 0.2 < rows < 0.65
    assert 0.2 < size < 0.65
    fleet.sql("select private.watch_rations(now())")
    assert fleet.sql("select summary from public.alerts where kind = 'device_writes_too_much'") == []
