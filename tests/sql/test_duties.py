"""The scheduler's duties and time: a slow one does not stop the others, and what is much is done in parts."""

from __future__ import annotations

import time
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import psycopg
import pytest

from tests.support.identities import DEVICE, V1, Fleet
from tests.support.patience import PATIENCE_S
from tests.support.rollout_builders import ask, device_id, make_devices, roll_out

OPEN_ALERTS = "select subject from public.alerts where kind = 'tick_failing' and resolved_at is null"


def _slow(fleet: Fleet, duty: str) -> None:
    fleet.sql(f"alter function private.{duty}(timestamptz) rename to {duty}_elsewhere")
    fleet.sql(
        f"create function private.{duty}(at timestamptz) returns int language sql as 'select 0 from pg_sleep(900)'"
    )


def _quick_again(fleet: Fleet, duty: str) -> None:
    fleet.sql(f"drop function private.{duty}(timestamptz)")
    fleet.sql(f"alter function private.{duty}_elsewhere(timestamptz) rename to {duty}")


def _tick(fleet: Fleet, after: str, *, timeout: str = "0") -> dict[str, Any]:
    with fleet.connect() as connection:
        connection.execute(f"set statement_timeout = '{timeout}'".encode())
        row = connection.execute(f"select private.tick(now() + interval '{after}')".encode()).fetchone()
    assert row is not None
    assert isinstance(row[0], dict)
    return row[0]


def test_a_duty_that_runs_out_of_time_is_an_alert_and_the_others_are_done(fleet: Fleet) -> None:
    # The first one: however busy the machine is, it is this one that the time ends.
    _slow(fleet, "expire_commands")
    done = _tick(fleet, "2 days", timeout="150ms")
    assert list(done["failed"]) == ["commands"]
    assert "150ms" in done["failed"]["commands"]
    assert {"offline_opened", "releases_in_use", "leases_expired", "stages_opened"} <= done.keys()
    assert fleet.sql(OPEN_ALERTS) == [("commands",)]
    # The others have all of the time for ten minutes: it is not even tried, or this would hang.
    assert "failed" not in _tick(fleet, "2 days 9 minutes")
    assert fleet.sql(OPEN_ALERTS) == [("commands",)]
    _quick_again(fleet, "expire_commands")
    assert "failed" not in _tick(fleet, "2 days 11 minutes")
    assert fleet.sql(OPEN_ALERTS) == []


def test_without_a_clock_only_what_is_bounded_is_done(fleet: Fleet) -> None:
    """Patterns are looked for in all attempts of a release, and nothing would end that any more."""
    _slow(fleet, "expire_commands")
    fleet.sql("alter function private.look_for_patterns(timestamptz, int) rename to look_elsewhere")
    fleet.sql(
        "create function private.look_for_patterns(at timestamptz) returns int language sql as 'select 0 from pg_sleep(900)'"
    )
    done = _tick(fleet, "2 days", timeout="150ms")
    assert list(done["failed"]) == ["commands"]
    assert {"releases_in_use", "leases_expired"} <= done.keys()
    # It is the first one now that takes its time, has a clock, and says so.
    done = _tick(fleet, "2 days 1 minute", timeout="1s")
    assert list(done["failed"]) == ["patterns"]
    assert {"leases_expired", "stages_opened"} <= done.keys()


@pytest.mark.parametrize("ran_out", [False, True])
def test_a_person_can_still_cancel_it(fleet: Fleet, ran_out: bool) -> None:
    """Also when one duty has run out of time already, and another one would go on for ever."""
    _slow(fleet, "count_adoption")
    if ran_out:
        _slow(fleet, "expire_commands")
    asleep = "select pid from pg_stat_activity where datname = current_database() and wait_event = 'PgSleep' "
    if ran_out:
        asleep += "and clock_timestamp() > query_start + interval '400ms'"
    with ThreadPoolExecutor(1) as pool:
        ticking = pool.submit(_tick, fleet, "1 hour", timeout="150ms" if ran_out else "0")
        give_up = time.monotonic() + PATIENCE_S
        while not fleet.sql(asleep):
            assert time.monotonic() < give_up, "tick() does not get to its sleep"
            time.sleep(0.01)
        fleet.sql(f"select pg_cancel_backend(pid) from ({asleep}) a")
        with pytest.raises(psycopg.errors.QueryCanceled):
            ticking.result()
    assert fleet.sql(OPEN_ALERTS) == []


def test_retention_is_done_in_parts(fleet: Fleet) -> None:
    old = 5
    fleet.sql(
        "insert into public.audit_log (at, actor, action, table_name, row_id) "
        "select now() - interval '20 years', 'somebody', 'update', 'devices', 'x' from generate_series(1, %s)",
        old,
    )
    fleet.sql("insert into private.tick_state (job, last_run) values ('retention', now())")
    assert fleet.one("select private.drop_old_audit(now(), at_most => 2)") == 2
    # There is more, so it is due at once, and not in an hour.
    assert _tick(fleet, "1 second")["audit_rows_dropped"] == old - 2
    assert "audit_rows_dropped" not in _tick(fleet, "2 seconds")


def test_attempts_of_a_wrong_clock_are_dropped_in_parts(fleet: Fleet) -> None:
    old = 5
    fleet.sql("alter table public.update_history disable trigger user")
    fleet.sql(
        "insert into public.update_history (id, device_id, to_commit, outcome, started_at, finished_at, received_at) "
        "select gen_random_uuid(), %s, repeat('1', 40), 'failed', '1970-01-02', '1970-01-02', now() - interval '20 years' "
        "from generate_series(1, %s)",
        DEVICE, old,
    )  # fmt: skip
    left = "select count(*) from private.update_history_default"
    fleet.sql("insert into private.tick_state (job, last_run) values ('retention', now())")
    fleet.sql("select private.drop_old_history(now(), at_most => 2)")
    assert fleet.one(left) == old - 2
    # There is more, so it is due at once, and not in an hour.
    _tick(fleet, "1 second")
    assert fleet.one(left) == 0


def test_alerts_that_stay_open_keep_no_other_from_being_resolved(fleet: Fleet) -> None:
    """Only a few are looked at in one tick."""
    make_devices(fleet, 6)
    fleet.sql(
        "insert into public.alerts (kind, device_id, summary) select 'roll_back_failed', id, 'x' from public.devices where name ~ '^bulk'"
    )
    look = "select private.expire_ways_back(now(), alerts_at_most => 2)"
    open_ones = "select count(*) from public.alerts where kind = 'roll_back_failed' and resolved_at is null"
    left = []
    for _ in range(3):
        fleet.sql(look)
        left.append(fleet.one(open_ones))
    assert left == [4, 2, 0]


def test_attempts_are_rolled_up_in_parts(fleet: Fleet) -> None:
    """Each once, whatever the parts are."""
    fleet.sql("alter table public.update_history disable trigger user")
    fleet.sql(
        "insert into public.update_history (id, device_id, release_id, to_commit, outcome, started_at, finished_at, received_at) "
        "select gen_random_uuid(), %s, %s, repeat('1', 40), 'succeeded', t, t, t from "
        "(select now() - make_interval(mins => 20 + n / 3) as t from generate_series(1, 20) n) m",
        DEVICE, V1,
    )  # fmt: skip
    parts = [fleet.one("select private.roll_up_history(now(), at_most => 2)") for _ in range(9)]
    assert sum(parts) == 20
    assert max(parts) <= 5
    assert fleet.sql("select sum(attempts) from private.update_days") == [(20,)]


def test_alerts_about_offline_devices_open_in_parts(fleet: Fleet) -> None:
    make_devices(fleet, 5)
    fleet.sql(
        "insert into public.device_status (device_id, state) select id, 'healthy' from public.devices where state = 'active' on conflict do nothing"
    )
    there = fleet.one("select count(*) from public.device_status s join public.devices d on d.id = s.device_id where d.state = 'active'")  # fmt: skip
    parts = [
        fleet.one("select private.watch_offline(now() + interval '1 day', at_most => 3)")["offline_opened"]
        for _ in range(4)
    ]
    assert (parts[0], sum(parts), parts[-1]) == (3, there, 0)


def test_leases_end_in_parts(fleet: Fleet) -> None:
    make_devices(fleet, 2)
    rollout = roll_out(fleet)
    for device in (DEVICE, device_id(fleet, "bulk1"), device_id(fleet, "bulk2")):
        assert ask(fleet, device)["rollout_id"] == str(rollout)
    expire = "select private.expire_leases(now() + interval '1 day', for_at_most => '0')"
    assert [fleet.one(expire) for _ in range(4)] == [1, 1, 1, 0]
