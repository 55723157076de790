"""update_history: harmless repetition, months made ahead, retention, wild clocks; and what the clock brings."""

from __future__ import annotations

from uuid import UUID, uuid4

import pytest

from tests.support.identities import DEVICE, Fleet

INSERT = (
    "insert into public.update_history (id, device_id, to_commit, outcome, started_at, finished_at) "
    "values (%s, %s, repeat('1', 40), 'succeeded', %s, %s) on conflict (id, started_at) do nothing"
)


def _attempt(fleet: Fleet, at: str, attempt: UUID | None = None, who: str | None = "device") -> None:
    fleet.sql(INSERT, attempt or uuid4(), DEVICE, at, at, who=who)


def _months(fleet: Fleet) -> list[str]:
    return [
        row[0]
        for row in fleet.sql(
            "select c.relname from pg_inherits i join pg_class c on c.oid = i.inhrelid "
            "where i.inhparent = 'public.update_history'::regclass and c.relname <> 'update_history_default' order by 1"
        )
    ]


def test_sending_an_attempt_twice_is_harmless(fleet: Fleet) -> None:
    attempt = uuid4()
    for _ in range(2):
        _attempt(fleet, "2026-11-10 10:00Z", attempt)
    assert fleet.one("select count(*) from public.update_history") == 1


def test_received_at_is_the_servers_time(fleet: Fleet) -> None:
    fleet.sql(
        "insert into public.update_history (id, device_id, to_commit, outcome, started_at, finished_at, received_at) "
        "values (gen_random_uuid(), %s, repeat('1', 40), 'failed', now(), now(), '1970-01-01Z')",
        DEVICE, who="device",
    )  # fmt: skip
    assert fleet.one("select received_at > now() - interval '1 hour' from public.update_history")


def test_months_are_made_ahead_and_twice_makes_no_more(fleet: Fleet) -> None:
    before = set(_months(fleet))
    assert fleet.one("select private.make_history_partitions('2030-11-30 23:00-05', 2)", who="service") == 4
    assert set(_months(fleet)) - before == {
        f"update_history_{month}" for month in ("2030_11", "2030_12", "2031_01", "2031_02")
    }
    assert fleet.one("select private.make_history_partitions('2030-12-15Z', 2)", who="service") == 0


@pytest.mark.parametrize(
    ("started_at", "partition"),
    [
        ("2030-11-01 00:00Z", "update_history_2030_11"),
        ("2030-11-30 23:59:59.999999Z", "update_history_2030_11"),
        ("2030-12-01 00:00Z", "update_history_2030_12"),
        ("1970-01-01 00:00Z", "update_history_default"),
        ("2099-01-01 00:00Z", "update_history_default"),
    ],
)
def test_an_attempt_lands_in_its_month_or_with_the_wild_clocks(
    fleet: Fleet, started_at: str, partition: str
) -> None:
    fleet.sql("select private.make_history_partitions('2030-11-15Z')")
    _attempt(fleet, started_at)
    assert fleet.one("select tableoid::regclass::text from public.update_history") == f"private.{partition}"


def test_a_month_made_late_takes_its_rows_from_the_default_partition(fleet: Fleet) -> None:
    _attempt(fleet, "2030-11-10Z")
    _attempt(fleet, "1970-01-01Z")
    fleet.messages()
    fleet.sql("select private.make_history_partitions('2030-11-15Z')")
    assert fleet.sql("select tableoid::regclass::text from public.update_history order by started_at") == [
        ("private.update_history_default",),
        ("private.update_history_2030_11",),
    ]
    assert fleet.messages() == [], "moving rows is no news"
    # The new month is as strict as the others.
    assert fleet.one(
        "select relrowsecurity from pg_class where oid = 'private.update_history_2030_11'::regclass"
    )
    assert fleet.refused("select * from private.update_history_2030_11", who="device").code == "42501"
    refusal = fleet.refused(INSERT, uuid4(), uuid4(), "2030-11-10Z", "2030-11-10Z")
    assert refusal.code == "23503"


def test_months_past_the_retention_go_and_the_others_stay(fleet: Fleet) -> None:
    fleet.sql("select private.make_history_partitions('2025-01-15Z', 6)")
    fleet.sql("update public.fleet_settings set history_retention_months = 2 where id", who="admin")
    _attempt(fleet, "1970-01-01Z")
    fleet.sql("select private.drop_old_history('2025-05-31 23:00Z')", who="service")
    assert _months(fleet)[0] == "update_history_2025_03"
    assert fleet.one("select count(*) from public.update_history") == 1, "a wild clock is judged by arrival"


def test_every_partition_has_row_level_security(fleet: Fleet) -> None:
    assert (
        fleet.sql(
            "select c.relname from pg_inherits i join pg_class c on c.oid = i.inhrelid "
            "where i.inhparent = 'public.update_history'::regclass and not c.relrowsecurity"
        )
        == []
    )


def test_a_tick_makes_months_and_expires_commands_and_again_does_nothing(fleet: Fleet) -> None:
    command = fleet.one(
        "insert into public.device_commands (device_id, kind) values (%s, 'restart') returning id", DEVICE
    )
    done = fleet.one("select private.tick(now() + interval '23 hours')", who="service")
    assert done["commands_expired"] == 0
    done = fleet.one("select private.tick(now() + interval '1 day')", who="service")
    assert done["commands_expired"] == 1
    assert fleet.sql(
        "select state::text, answered_at is not null from public.device_commands where id = %s", command
    ) == [("expired", True)]
    assert fleet.one("select private.tick('2040-01-01Z')")["months_made"] == 5
    again = fleet.one("select private.tick('2040-01-01Z')")
    assert (again["commands_expired"], "months_made" in again) == (0, False)


def test_two_ticks_at_once_do_the_work_once(fleet: Fleet) -> None:
    other = fleet.connect()
    with other.transaction():
        other.execute("select private.tick('2040-01-01Z')")
        assert fleet.one("select private.tick('2040-01-01Z')") == {"skipped": True}
    assert "skipped" not in fleet.one("select private.tick('2040-01-01Z')")


def test_ticking_is_for_the_scheduler(fleet: Fleet) -> None:
    for who in ("anon", "device", "viewer", "admin"):
        assert fleet.refused("select private.tick(now())", who=who).code == "42501"
