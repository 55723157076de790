"""What happened stays, also for the owner of the database; what policy itself removes needs no switch."""

from __future__ import annotations

import pytest

from tests.support.identities import ADMIN, DEVICE, Fleet

ATTEMPT = (
    "insert into public.update_history (id, device_id, to_commit, outcome, started_at, finished_at) "
    "values (gen_random_uuid(), %s, repeat('1', 40), 'rolled_back', now(), now())"
)
#: A statement of the owner, and the kind of its refusal.
REWRITES = {
    "an outcome is changed": (
        "update public.update_history set outcome = 'succeeded' where true",
        "append_only",
    ),
    "an attempt is deleted": ("delete from public.update_history where true", "append_only"),
    "the audit log is changed": ("update public.audit_log set actor = 'nobody' where true", "append_only"),
    "an audit row is deleted": ("delete from public.audit_log where true", "append_only"),
    "the settings are deleted": ("delete from public.fleet_settings where true", "settings_stay"),
    "the last admin is deleted": ("delete from public.operators where rank = 'admin'", "last_admin"),
    "the last admin is lowered": (
        "update public.operators set rank = 'operator' where rank = 'admin'",
        "last_admin",
    ),
}


@pytest.fixture
def history(fleet: Fleet) -> Fleet:
    fleet.sql(ATTEMPT, DEVICE, who="device")
    fleet.sql("update public.devices set hold = true where id = %s", DEVICE)
    return fleet


def test_the_owner_rewrites_nothing_unless_the_transaction_says_so_and_that_is_audited(
    history: Fleet,
) -> None:
    for what, (statement, kind) in REWRITES.items():
        refusal = history.refused(statement)
        assert refusal.kind == kind, what
        assert refusal.hint, what
    rows = history.one("select count(*) from public.audit_log")
    for what, (statement, _) in REWRITES.items():
        with history.admin.transaction(force_rollback=True):
            history.admin.execute("set local fleet.rewrite_history = 'on'")
            done = history.admin.execute(statement.encode())
            assert done.rowcount > 0, what
            left = "select count(*) from public.audit_log where row_id = '*' and actor = 'supabase_admin'"
            marks = history.admin.execute(left).fetchone()
            assert marks == (1,), what
    assert history.one("select count(*) from public.audit_log") == rows, (
        "the switch ends with its transaction"
    )


@pytest.mark.parametrize("table", ["update_history", "audit_log", "fleet_settings", "operators"])
def test_nobody_truncates_it(history: Fleet, table: str) -> None:
    assert history.refused(f"truncate public.{table} cascade").kind == "append_only"


def test_nobody_truncates_a_month(history: Fleet) -> None:
    months = history.sql("select c.oid::regclass::text from pg_inherits i join pg_class c on c.oid = i.inhrelid "
                         "where i.inhparent = 'public.update_history'::regclass")  # fmt: skip
    for (month,) in months:
        assert history.refused(f"truncate {month}").kind == "append_only"


def test_the_switch_is_the_owners_alone(history: Fleet) -> None:
    for who in ("service", "admin"):
        with history.api.transaction():
            history.api.execute("set local fleet.rewrite_history = 'on'")
        refusal = history.refused(
            "with on_ as (select set_config('fleet.rewrite_history', 'on', true)) "
            "delete from public.operators where user_id = %s and (select count(*) from on_) = 1",
            ADMIN, who=who,
        )  # fmt: skip
        assert refusal.kind == "last_admin"


def test_twenty_five_months_of_ticks_need_no_switch(history: Fleet) -> None:
    """Months are made and dropped, wild clocks' rows move and age, the audit log is cut: all by the scheduler."""
    history.sql(
        "insert into public.update_history (id, device_id, to_commit, outcome, started_at, finished_at) "
        "values (gen_random_uuid(), %s, repeat('1', 40), 'failed', now() + interval '13 months', now() + interval '13 months')",
        DEVICE, who="device",
    )  # fmt: skip
    for month in range(1, 26):
        done = history.one("select private.tick(now() + make_interval(months => %s))", month)
        assert "failed" not in done, (month, done)
        if month == 12:
            partition = "select tableoid::regclass::text <> 'private.update_history_default' from public.update_history"
            assert history.sql(partition + " where started_at > now() + interval '1 month'") == [(True,)]
    assert (
        history.one("select count(*) from public.update_history where started_at < now() + interval '1 day'")
        == 0
    )
    assert history.one("select count(*) from public.audit_log where at < now() + interval '1 day'") == 0


def test_a_duty_that_fails_is_an_alert_and_the_others_are_done(history: Fleet) -> None:
    history.sql("insert into public.device_commands (device_id, kind) values (%s, 'restart')", DEVICE)
    history.sql(
        "alter function private.roll_up_history(timestamptz, int) rename to roll_up_history_elsewhere"
    )
    done = history.one("select private.tick(now() + interval '2 days')")
    assert list(done["failed"]) == ["reports"]
    assert (done["commands_expired"], done["offline_opened"], "leases_expired" in done) == (1, 0, True)
    opened = history.sql(
        "select subject, severity::text, summary from public.alerts where kind = 'tick_failing'"
    )
    assert [(subject, severity) for subject, severity, _ in opened] == [("reports", "critical")]
    assert "roll_up_history" in opened[0][2]
    assert history.one("select private.tick(now() + interval '3 days')")["failed"].keys() == {"reports"}
    history.sql(
        "alter function private.roll_up_history_elsewhere(timestamptz, int) rename to roll_up_history"
    )
    assert "failed" not in history.one("select private.tick(now() + interval '4 days')")
    assert history.sql("select resolved_at is not null from public.alerts where kind = 'tick_failing'") == [
        (True,)
    ]


@pytest.mark.parametrize("column", ["started_at", "finished_at"])
@pytest.mark.parametrize("value", ["infinity", "-infinity", "9999-12-31", "1969-12-31"])
def test_history_of_no_plausible_time_is_refused(fleet: Fleet, column: str, value: str) -> None:
    other = "finished_at" if column == "started_at" else "started_at"
    refusal = fleet.refused(
        f"insert into public.update_history (id, device_id, to_commit, outcome, {column}, {other}) "
        "values (gen_random_uuid(), %s, repeat('1', 40), 'failed', %s, now())",
        DEVICE, value, who="device",
    )  # fmt: skip
    assert (refusal.code, "times must be between 1970 and 2200" in refusal.message) == ("23514", True)


@pytest.mark.parametrize(
    ("name", "is_one"),
    [("Europe/Rome", True), ("UTC", True), ("America/Argentina/Buenos_Aires", True), ("CEST", False), ("Foo/Bar+3", False), ("Rome-2", False), ("", False)],
)  # fmt: skip
def test_a_timezone_is_a_name_of_the_time_zone_database(fleet: Fleet, name: str, is_one: bool) -> None:
    change = "update public.devices set timezone = %s where id = %s"
    if is_one:
        fleet.sql(change, name, DEVICE, who="operator")
    else:
        assert fleet.refused(change, name, DEVICE, who="operator").kind == "unknown_timezone"
