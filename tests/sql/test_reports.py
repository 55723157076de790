"""The reports: who is offline, what ran when, how updates went, what failures have in common. Time is set, not slept."""

from __future__ import annotations

import json
from datetime import date, timedelta
from typing import Any
from uuid import UUID

import pytest

from tests.support.identities import DEVICE, OTHER, V1, V2, Fleet
from tests.support.profiles import OLDER_SERVER_IN_FULL
from tests.support.rollout_builders import ask, make_devices, roll_out

pytestmark = OLDER_SERVER_IN_FULL

VIEWS = [
    "devices_by_state", "drifted_clocks", "failure_patterns", "fleet_overview", "offline_devices", "release_signers", "slo",
    "update_durations", "update_outcomes_per_day", "version_adoption",
]  # fmt: skip


def rows(fleet: Fleet, query: str, *params: object, who: str | None = "viewer") -> list[dict[str, Any]]:
    """The rows as a client sees them."""
    found = fleet.sql(f"select to_jsonb(r) from ({query}) r", *params, who=who)
    return [row[0] for row in found]


def overview(fleet: Fleet) -> dict[str, Any]:
    (row,) = rows(fleet, "select * from public.fleet_overview")
    return row


def heard(fleet: Fleet, device: UUID, ago: str) -> None:
    """The device reported so long ago; reported_at is a trigger's, so the superuser goes past it."""
    fleet.sql("insert into public.device_status (device_id) values (%s) on conflict do nothing", device)
    fleet.admin.execute("set session_replication_role = replica")
    fleet.sql(
        "update public.device_status set reported_at = now() - %s::interval where device_id = %s", ago, device
    )
    fleet.admin.execute("set session_replication_role = origin")


def goes_by_it(fleet: Fleet, settings: dict[str, object]) -> None:
    """The device reports these settings."""
    insert = "insert into public.device_status (device_id, settings) values (%s, %s)"
    fleet.sql(insert, DEVICE, json.dumps(settings), who="device")


def attempts(
    fleet: Fleet,
    count: int,
    outcome: str = "succeeded",
    *,
    release: UUID | None = V2,
    device: UUID = DEVICE,
    arrived: str = "now()",
    seconds: int = 60,
) -> None:
    """Rows of update_history that arrived at this SQL time, past the triggers."""
    fleet.admin.execute("set session_replication_role = replica")
    fleet.sql(
        "insert into public.update_history (id, device_id, release_id, to_commit, outcome, started_at, finished_at, received_at, bytes_fetched) "
        f"select gen_random_uuid(), %s, %s, repeat('2', 40), %s, t, t + make_interval(secs => %s), t, 10 "
        f"from (select {arrived} as t) at, generate_series(1, %s)",
        device, release, outcome, seconds, count,
    )  # fmt: skip
    fleet.admin.execute("set session_replication_role = origin")


@pytest.mark.parametrize(
    ("silent_s", "interval_s", "offline"),
    [
        (2700, None, False),
        (2701, None, True),
        (180, 60, False),
        (181, 60, True),
        (None, None, False),
    ],
)
def test_offline_is_more_than_the_allowed_polls_missed(
    fleet: Fleet, silent_s: int | None, interval_s: int | None, offline: bool
) -> None:
    assert (
        fleet.one(
            "select private.is_offline('2026-01-01Z', %s, 900, 3, '2026-01-01Z'::timestamptz + make_interval(secs => %s))"
            if silent_s is not None
            else "select private.is_offline(null, %s, 900, 3, now() + make_interval(secs => coalesce(%s, 0)))",
            interval_s, silent_s,
        )
        is offline
    )  # fmt: skip


def test_offline_devices_are_the_active_ones_that_went_silent(fleet: Fleet) -> None:
    suspended = fleet.one("select id from public.devices where name = 'suspended'")
    heard(fleet, DEVICE, "46 minutes")
    heard(fleet, OTHER, "44 minutes")
    heard(fleet, suspended, "1 year")
    found = rows(fleet, "select * from public.offline_devices")
    assert [row["name"] for row in found] == ["device"]
    assert found[0]["expected_every_s"] == 900
    fleet.sql("update public.devices set poll_interval_s = 60 where id = %s", OTHER, who="operator")
    assert {row["name"] for row in rows(fleet, "select * from public.offline_devices")} == {"device", "other"}
    fleet.report(V1, who="other device")
    assert {row["name"] for row in rows(fleet, "select * from public.offline_devices")} == {"device"}


@pytest.mark.parametrize(
    ("pinned_s", "row_s", "heard_ago", "offline"),
    [
        (3600, None, "46 minutes", False),
        (3600, 60, "10 minutes", False),
        (3600, 60, "170 minutes", False),
        (3600, 60, "181 minutes", True),
        (60, None, "90 seconds", False),
        (60, 3600, "181 seconds", True),
        (60, 3600, "46 minutes", True),
        (None, 3600, "46 minutes", False),
        (None, 60, "181 seconds", True),
    ],
)
def test_each_report_expects_a_device_as_often_as_its_own_file_says_else_its_row(
    fleet: Fleet, pinned_s: int | None, row_s: int | None, heard_ago: str, offline: bool
) -> None:
    rollout = roll_out(fleet)
    fleet.sql("update public.devices set poll_interval_s = %s where id = %s", row_s, DEVICE, who="operator")
    if pinned_s is not None:
        pinned = ["labels.site", "poll_interval_s"]
        goes_by_it(fleet, {"poll_interval_s": float(pinned_s), "pinned": pinned})
    heard(fleet, DEVICE, heard_ago)
    assert [row["expected_every_s"] for row in rows(fleet, "select * from public.offline_devices")] == (
        [pinned_s or row_s] if offline else []
    )
    assert overview(fleet)["offline"] == offline
    assert sum(row["offline"] for row in rows(fleet, "select * from public.devices_by_state")) == offline
    progress = fleet.one("select public.rollout_progress(%s)", rollout, who="viewer")
    assert progress["stages"][0]["waiting"] == (not offline)
    assert fleet.one("select private.watch_offline(now())")["offline_opened"] == offline


@pytest.mark.parametrize(
    "settings",
    [
        {},
        {"poll_interval_s": 3600},
        {"poll_interval_s": 3600, "pinned": ["labels.site"]},
        {"poll_interval_s": "3600", "pinned": ["poll_interval_s"]},
        {"poll_interval_s": 604801, "pinned": ["poll_interval_s"]},
        {"poll_interval_s": 0, "pinned": ["poll_interval_s"]},
        {"poll_interval_s": 1e300, "pinned": ["poll_interval_s"]},
        {"pinned": {"poll_interval_s": 3600}},
        {"pinned": ["poll_interval_s"]},
    ],
)
def test_an_interval_that_is_not_pinned_or_makes_no_sense_is_not_gone_by(
    fleet: Fleet, settings: dict[str, object]
) -> None:
    goes_by_it(fleet, settings)
    assert (
        fleet.one("select pinned_poll_interval_s from public.device_status where device_id = %s", DEVICE)
        is None
    )


def test_the_overview_adds_up(fleet: Fleet) -> None:
    make_devices(fleet, 3)
    bulk = [row[0] for row in fleet.sql("select id from public.devices where starts_with(name, 'bulk')")]
    heard(fleet, DEVICE, "2 days")
    heard(fleet, bulk[0], "1 minute")
    fleet.report(V1, who="other device", state="degraded")
    fleet.sql("update public.devices set hold = true where id = %s", OTHER, who="operator")
    fleet.sql("select public.pin_device(%s, %s)", DEVICE, V1, who="operator")
    fleet.sql("select public.halt_fleet('stop')", who="operator")
    seen = overview(fleet)
    assert seen["devices"] == 7
    assert (seen["active"], seen["pending"], seen["suspended"], seen["retired"]) == (5, 1, 1, 1)
    assert (seen["online"], seen["offline"], seen["not_heard_yet"]) == (2, 1, 2)
    states = ("healthy", "updating", "degraded", "rolled_back", "isolated", "safe_mode")
    assert [seen[state] for state in states] == [1, 0, 1, 0, 0, 0]
    assert (seen["held"], seen["pinned"], seen["open_halts"], seen["open_alerts"]) == (1, 1, 1, 1)
    # A hold that has ended is none.
    fleet.sql("update public.devices set hold_until = now() - interval '1 s' where id = %s", OTHER)
    assert overview(fleet)["held"] == 0


def test_the_overview_is_what_counting_the_devices_one_by_one_gives(fleet: Fleet) -> None:
    """Every state, interval, hold, pin, report and silence there is, together: the view looks only at the unusual ones."""
    fleet.admin.execute("set session_replication_role = replica")
    fleet.sql(
        f"""
        with mixed as (
          select row_number() over () as n, state, every, held, until, pinned, said, ago, by_file
          from unnest(enum_range(null::public.device_state)) state, unnest(array[null, 60, 3600]) every,
            unnest(array[false, true]) held, unnest(array[null, '-1 s', '1 day']::interval[]) until,
            unnest(array[null, '{V1}']::uuid[]) pinned, unnest(enum_range(null::public.report_state) || null) said,
            unnest(array['170 s', '190 s', '44 min', '46 min', '1 day']::interval[]) ago,
            unnest(array[null, 120]) by_file
          where held or until is null),
        made as (
          insert into public.devices (id, name, role, segment, branch, state, poll_interval_s, hold, hold_until, pinned_release, public_key)
          select md5(n::text)::uuid, 'mixed' || n, 'beacon', 'stable', 'main', state, every, held, now() + until, pinned, left(md5('k' || n) || md5('l' || n), 43)
          from mixed)
        insert into public.device_status (device_id, state, reported_at, settings)
        select md5(n::text)::uuid, said, now() - ago, case when by_file is null then '{{}}'
          else jsonb_build_object('poll_interval_s', by_file, 'pinned', array['poll_interval_s']) end
        from mixed where said is not null
        """
    )
    fleet.admin.execute("set session_replication_role = origin")
    counted = fleet.sql(
        """
        with each as (
          select d.*, s.state as said, case when s.reported_at is null then 'not_heard_yet'
            when private.is_offline(s.reported_at, coalesce(s.pinned_poll_interval_s, d.poll_interval_s), 900, 3, now()) then 'offline' else 'online' end as heard
          from public.devices d left join public.device_status s on s.device_id = d.id)
        select column_name, count(*) from each, unnest(array[
          case when each.state <> 'retired' then 'devices' end, each.state::text, case when each.state = 'active' then heard end,
          case when each.state = 'active' and heard = 'online' then said::text end,
          case when each.state = 'active' and hold and (hold_until is null or hold_until > now()) then 'held' end,
          case when each.state = 'active' and pinned_release is not null then 'pinned' end]) column_name
        where column_name is not null group by column_name
        """
    )
    seen = overview(fleet)
    assert {name: seen[name] for name, _ in counted} == dict(counted)
    assert len(counted) == 16


def test_the_overview_counts_what_is_in_flight(fleet: Fleet) -> None:
    roll_out(fleet)
    assert ask(fleet)["action"] == "update"
    seen = overview(fleet)
    assert (seen["rollouts_running"], seen["devices_in_flight"]) == (1, 1)


def test_devices_by_state_sums_to_the_fleet(fleet: Fleet) -> None:
    heard(fleet, DEVICE, "2 days")
    found = rows(fleet, "select * from public.devices_by_state")
    assert sum(row["devices"] for row in found) == 5
    (active,) = [row for row in found if row["segment"] == "canary"]
    assert (active["state"], active["report_state"], active["devices"], active["offline"]) == (
        "active", "healthy", 1, 1,
    )  # fmt: skip


@pytest.mark.parametrize(("ahead_s", "listed"), [(60, False), (61, True), (-60, False), (-61, True)])
def test_a_clock_is_drifted_past_the_setting(fleet: Fleet, ahead_s: int, listed: bool) -> None:
    # One statement, one now(): the trigger stamps the same instant.
    fleet.sql(
        "insert into public.device_status (device_id, device_time) values (%s, now() + make_interval(secs => %s))",
        DEVICE, ahead_s,
    )  # fmt: skip
    found = rows(fleet, "select * from public.drifted_clocks")
    assert [row["ahead_s"] for row in found] == ([ahead_s] if listed else [])
    if listed:
        assert found[0]["sentence"].startswith(
            f"The clock of device was 61 s {'ahead' if ahead_s > 0 else 'behind'} when it reported at "
        )


def test_outcomes_are_counted_by_day_of_arrival_before_and_after_the_roll_up(fleet: Fleet) -> None:
    """A report is never late: what tick() has not taken in yet is read from the history itself."""
    today = fleet.one("select (now() at time zone 'UTC')::date")
    attempts(fleet, 3, arrived="now() - interval '2 days'")
    attempts(fleet, 2, "rolled_back", arrived="now() - interval '2 days'")
    attempts(fleet, 1)
    expected = {
        (today - timedelta(days=2), "succeeded", 3, 30),
        (today - timedelta(days=2), "rolled_back", 2, 20),
        (today, "succeeded", 1, 10),
    }
    query = "select day, outcome::text, attempts, bytes_fetched from public.update_outcomes_per_day"
    assert set(fleet.sql(query, who="viewer")) == expected
    assert fleet.one("select private.roll_up_history(now())") == 5
    assert set(fleet.sql(query, who="viewer")) == expected
    # Once more takes nothing twice, and the rest follows when it is ten minutes old.
    assert fleet.one("select private.roll_up_history(now())") == 0
    attempts(fleet, 4, arrived="now() - interval '1 s'")
    assert sum(row[2] for row in fleet.sql(query, who="viewer")) == 10


def test_bytes_that_no_column_holds_break_no_report(fleet: Fleet) -> None:
    attempts(fleet, 3)
    fleet.admin.execute("set session_replication_role = replica")
    fleet.sql("update public.update_history set bytes_fetched = 9223372036854775807 where true")
    fleet.admin.execute("set session_replication_role = origin")
    query = "select bytes_fetched from public.update_outcomes_per_day"
    assert fleet.sql(query, who="viewer") == [(9223372036854775807,)]
    fleet.sql("select private.rebuild_reports(now())")
    assert fleet.sql(query, who="viewer") == [(9223372036854775807,)]


def test_later_roll_ups_add_to_the_same_day(fleet: Fleet) -> None:
    attempts(fleet, 2, arrived="now() - interval '12 minutes'")
    assert fleet.one("select private.roll_up_history(now() - interval '30 minutes')") == 0
    assert fleet.one("select private.roll_up_history(now())") == 2
    fleet.sql("update private.report_state set through = now() - interval '13 minutes' where id")
    attempts(fleet, 3, arrived="now() - interval '11 minutes'")
    assert fleet.one("select private.roll_up_history(now())") == 5
    assert fleet.one("select sum(attempts) from private.update_days") == 7


def test_a_tick_far_ahead_loses_no_attempt_that_arrives_afterwards(fleet: Fleet) -> None:
    attempts(fleet, 1, arrived="now() - interval '1 day'")
    assert fleet.one("select private.roll_up_history(now() + interval '10 years')") == 1
    attempts(fleet, 1)
    assert fleet.one("select sum(attempts) from public.update_outcomes_per_day", who="viewer") == 2


def test_a_rebuild_counts_what_was_imported_behind_the_roll_up(fleet: Fleet) -> None:
    attempts(fleet, 1, arrived="now() - interval '1 day'")
    fleet.sql("select private.roll_up_history(now())")
    attempts(fleet, 2, arrived="now() - interval '3 days'")
    total = "select sum(attempts) from public.update_outcomes_per_day"
    assert fleet.one(total, who="viewer") == 1
    fleet.sql("select private.rebuild_reports(now())")
    assert fleet.one(total, who="viewer") == 3


def test_a_history_imported_into_a_new_fleet_is_counted(fleet: Fleet) -> None:
    fleet.sql("select private.tick(now())")
    attempts(fleet, 2, arrived="now() - interval '20 days'")
    assert fleet.one("select sum(attempts) from public.update_outcomes_per_day", who="viewer") == 2


def test_durations_are_nearest_rank_percentiles(fleet: Fleet) -> None:
    for seconds in range(1, 101):
        attempts(fleet, 1, seconds=seconds)
    attempts(fleet, 1, "rolled_back", seconds=1234)
    attempts(fleet, 5, "failed", seconds=1)
    for _ in range(2):
        found = {row["what"]: row for row in rows(fleet, "select * from public.update_durations")}
        assert set(found) == {"update", "roll_back"}
        update = found["update"]
        assert [update[key] for key in ("attempts", "p50_s", "p90_s", "p99_s")] == [100, 50, 90, 99]
        assert found["roll_back"]["p50_s"] == 1200
        fleet.sql("select private.roll_up_history(now() + interval '1 hour')")


@pytest.mark.parametrize(
    ("seconds", "kept"),
    [
        (-5, 0), (0, 0), (7.4, 7), (99.4, 99), (99.6, 100), (104.9, 100), (105.1, 110), (994, 990), (996, 1000),
        (12345, 12000), (1e12, 1_000_000_000),
    ],
)  # fmt: skip
def test_durations_are_kept_to_two_digits(bare: Fleet, seconds: float, kept: int) -> None:
    assert bare.one("select private.two_digits(%s)", seconds) == kept


def test_adoption_today_is_live_and_past_days_stay(fleet: Fleet) -> None:
    today = fleet.one("select (now() at time zone 'UTC')::date")

    def adoption() -> set[tuple[date, str, int]]:
        return set(fleet.sql("select day, version, devices from public.version_adoption", who="viewer"))

    fleet.report(V1)
    fleet.report(V1, who="other device")
    fleet.sql("select private.count_adoption(now() - interval '1 day')")
    fleet.report(V2)
    yesterday = today - timedelta(days=1)
    assert adoption() == {(yesterday, "v1", 2), (today, "v1", 1), (today, "v2", 1)}
    # The last count of a day stands, also when a release is gone from it.
    fleet.report(V2, who="other device")
    fleet.sql("select private.count_adoption(now() - interval '1 day')")
    assert adoption() == {(yesterday, "v2", 2), (today, "v2", 2)}
    assert {row["percent"] for row in rows(fleet, "select * from public.version_adoption")} == {100}


def test_adoption_is_rebuilt_from_history(fleet: Fleet) -> None:
    today = fleet.one("select (now() at time zone 'UTC')::date")
    attempts(fleet, 1, release=V1, arrived="now() - interval '5 days'")
    attempts(fleet, 1, release=V1, device=OTHER, arrived="now() - interval '4 days'")
    attempts(fleet, 1, "rolled_back", release=V2, arrived="now() - interval '3 days'")
    # Twice on one day: what it ran when the day ended counts.
    attempts(fleet, 1, release=V1, arrived="date_trunc('day', now()) - interval '2 days'")
    attempts(fleet, 1, release=V2, arrived="date_trunc('day', now()) - interval '47 hours'")
    fleet.report(V2)
    fleet.report(V1, who="other device")
    fleet.sql("select private.rebuild_reports(now())")
    found = set(fleet.sql("select day, version, devices from public.version_adoption", who="viewer"))
    assert found == {
        (today - timedelta(days=5), "v1", 1),
        (today - timedelta(days=4), "v1", 2),
        (today - timedelta(days=3), "v1", 2),
        (today - timedelta(days=2), "v1", 1),
        (today - timedelta(days=2), "v2", 1),
        (today - timedelta(days=1), "v1", 1),
        (today - timedelta(days=1), "v2", 1),
        (today, "v1", 1),
        (today, "v2", 1),
    }


def test_the_clock_keeps_the_reports(fleet: Fleet) -> None:
    attempts(fleet, 2, arrived="now() - interval '20 minutes'")
    fleet.report(V1)
    first = fleet.one("select private.tick(now())")
    assert (first["attempts_rolled_up"], first["releases_in_use"]) == (2, 1)
    # Its other jobs are still there.
    assert {"commands_expired", "leases_expired", "stages_opened", "offline_opened"} <= set(first)
    again = fleet.one("select private.tick(now())")
    assert "attempts_rolled_up" not in again
    assert "releases_in_use" not in again


def patterns(fleet: Fleet, release: UUID) -> list[dict[str, Any]]:
    """What tick() finds and the view then shows; the same as looking now."""
    fleet.sql("select private.look_for_patterns(now())")
    found = rows(
        fleet,
        "select * from public.failure_patterns where release_id = %s order by lift desc, failed desc, attribute",
        release,
    )
    now = rows(fleet, "select * from private.failure_patterns(%s)", release)
    assert now == [
        {
            key: value
            for key, value in row.items()
            if key not in {"release_id", "version", "looked_at", "selector", "known_bad_pattern"}
        }
        for row in found
    ]
    return found


def _failing_fleet(fleet: Fleet) -> None:
    """40 devices tried v2: of the ten Pi 3 eight failed, of the others two; all are beacons."""
    make_devices(fleet, 40)
    fleet.sql(
        "update public.devices set hardware_model = case when right(name, 1) = '3' or name in ('bulk1', 'bulk11', 'bulk21', 'bulk31', 'bulk2', 'bulk12') then 'Pi 3' else 'Pi 4' end, "
        "labels = jsonb_build_object('site', case when right(name, 1) in ('3', '4') then 'rome' else 'oslo' end) where starts_with(name, 'bulk')"
    )
    for n in range(1, 41):
        device = fleet.one("select id from public.devices where name = %s", f"bulk{n}")
        failed = n in {3, 13, 23, 33, 1, 11, 21, 31, 5, 6}
        attempts(fleet, 1, "rolled_back" if failed else "succeeded", device=device)


def test_failures_that_share_an_attribute_are_named_with_their_lift(fleet: Fleet) -> None:
    _failing_fleet(fleet)
    found = patterns(fleet, V2)
    assert [(row["attribute"], row["value"]) for row in found] == [
        ("hardware_model", "Pi 3"),
        ("label site", "rome"),
    ]
    pi = found[0]
    assert (pi["failed"], pi["attempted"], pi["other_failed"], pi["other_attempted"]) == (8, 10, 2, 30)
    assert pi["lift"] == 3.2
    assert pi["sentence"] == (
        "8 of 10 attempted devices with hardware_model Pi 3 failed (80 %), of the other 30 it is 2 (7 %)."
    )
    rome = found[1]
    assert (rome["failed"], rome["attempted"], rome["lift"]) == (4, 8, 2.0)


def test_a_release_without_failures_has_no_pattern(fleet: Fleet) -> None:
    _failing_fleet(fleet)
    assert patterns(fleet, V1) == []
    attempts(fleet, 3, release=V1)
    assert patterns(fleet, V1) == []


def test_patterns_are_looked_for_again_when_failures_arrive(fleet: Fleet) -> None:
    look = "select private.look_for_patterns(now())"
    assert fleet.one(look) == 0
    _failing_fleet(fleet)
    assert fleet.one(look) == 1
    assert fleet.one(look) == 0
    # A success alone is less than a tenth more attempts: nobody looks. Two Pi 4 more: the Pi 3 stand out less.
    attempts(fleet, 1, device=OTHER)
    assert fleet.one(look) == 0
    for name in ("bulk7", "bulk8"):
        attempts(fleet, 1, "failed", device=fleet.one("select id from public.devices where name = %s", name))
    assert fleet.one(look) == 1
    found = rows(fleet, "select * from public.failure_patterns where attribute = 'hardware_model'")
    assert [(row["value"], row["failed"], row["other_failed"]) for row in found] == [("Pi 3", 8, 4)]
    # Many more attempts without a failure change the picture too.
    attempts(fleet, 5, device=OTHER)
    assert fleet.one(look) == 1


def test_an_attribute_that_everybody_has_explains_nothing(fleet: Fleet) -> None:
    _failing_fleet(fleet)
    found = rows(fleet, "select attribute from private.failure_patterns(%s, 0, 0)", V2)
    assert {row["attribute"] for row in found} == {"hardware_model", "label site"}


def test_devices_that_went_dark_or_regressed_are_failures_of_the_pattern(fleet: Fleet) -> None:
    make_devices(fleet, 6)
    fleet.sql("update public.devices set os = 'old' where name in ('bulk1', 'bulk2')")
    rollout = roll_out(fleet, {"percent": 100}, halt_consecutive_failures=None, halt_failure_ratio=None)
    for n, state in enumerate(["expired", "regressed", "succeeded", "succeeded", "succeeded", "claimed"], 1):
        device = fleet.one("select id from public.devices where name = %s", f"bulk{n}")
        fleet.sql(
            "insert into public.rollout_claims (rollout_id, device_id, stage, state, claimed_at, lease_until, to_release) "
            "values (%s, %s, 1, %s, now(), now(), %s)",
            rollout, device, state, V2,
        )  # fmt: skip
        if state == "succeeded":
            attempts(fleet, 1, device=device)
    (found,) = patterns(fleet, V2)
    assert (found["attribute"], found["value"], found["failed"], found["attempted"]) == ("os", "old", 2, 2)


def test_slo_says_what_is_met(fleet: Fleet) -> None:
    report = {row["name"]: row for row in rows(fleet, "select * from public.slo")}
    assert {row["met"] for row in report.values() if row["name"] != "devices_online"} == {None}
    fleet.report(V1)
    heard(fleet, OTHER, "2 days")
    # The 94th of 98 is the 95th percentile.
    attempts(fleet, 93, seconds=100)
    attempts(fleet, 5, seconds=900)
    attempts(fleet, 2, "rolled_back", seconds=700)
    attempts(fleet, 7, "skipped")
    attempts(fleet, 50, "failed", arrived="now() - interval '30 days'")
    report = {row["name"]: row for row in rows(fleet, "select * from public.slo")}
    seen = {name: (row["value"], row["sample"], row["met"]) for name, row in report.items()}
    assert seen == {
        "devices_online": (50, 2, False),
        "devices_healthy": (100, 1, True),
        "updates_succeeded": (98, 100, True),
        "time_to_update_p95": (900, 98, True),
        "time_to_roll_back_p95": (700, 2, False),
    }
    fleet.sql("update public.slo_targets set target = 98.1 where name = 'updates_succeeded'", who="admin")
    edit = "update public.slo_targets set target = 1 where true returning 1"
    assert fleet.refused(edit, who="operator").kind == "rank_too_low"
    assert fleet.one("select met from public.slo where name = 'updates_succeeded'", who="viewer") is False


@pytest.mark.parametrize("view", VIEWS)
def test_reports_show_to_each_what_the_tables_would(fleet: Fleet, view: str) -> None:
    """security_invoker: a stranger sees an empty fleet, devices and anon are refused."""
    _failing_fleet(fleet)
    fleet.sql("select private.look_for_patterns(now())")
    heard(fleet, DEVICE, "2 days")
    fleet.sql("update public.device_status set device_time = now() - interval '1 day' where true")
    heard(fleet, DEVICE, "2 hours")
    fleet.report(V1, who="other device")
    fleet.sql(
        "insert into public.update_history (id, device_id, release_id, to_commit, outcome, started_at, finished_at, signer) "
        "values (gen_random_uuid(), %s, %s, repeat('1', 40), 'succeeded', now(), now(), 'alice')", OTHER, V1,
    )  # fmt: skip
    query = f"select count(*) from public.{view}"
    everything = fleet.one(query)
    assert everything > 0
    for who in ("viewer", "operator", "admin", "service"):
        assert fleet.one(query, who=who) == everything, who
    if view == "fleet_overview":
        assert overview(fleet)["devices"] == 44
        assert fleet.one("select devices from public.fleet_overview", who="stranger") == 0
    else:
        assert fleet.one(query, who="stranger") == 0
    for who in ("anon", "device"):
        assert fleet.refused(query, who=who).code == "42501", who


def test_who_signed_a_release_is_counted_once_for_each_device(fleet: Fleet) -> None:
    """However its rows come, and also with a name that no index takes."""
    insert = (
        "insert into public.update_history (id, device_id, release_id, to_commit, outcome, started_at, finished_at, signer) "
        "select gen_random_uuid(), d, %s, repeat('2', 40), 'failed', now() - make_interval(days => n), now(), %s "
        "from unnest(%s::uuid[]) d, generate_series(1, 50, 24) n"
    )
    long = fleet.one(
        "select left(string_agg(gen_random_uuid()::text, ''), 4000) from generate_series(1, 200)"
    )
    for signer in ("alice", "alice", long):
        fleet.sql(insert, V2, signer, [DEVICE, OTHER])
    fleet.sql(insert, V1, "alice", [OTHER])
    query = "select release_id, signer, devices from public.release_signers"
    found = rows(fleet, query)
    assert sorted((row["release_id"], row["signer"], row["devices"]) for row in found) == sorted([
        (str(V1), "alice", 1), (str(V2), "alice", 2), (str(V2), long, 2),
    ])  # fmt: skip
    fleet.sql("select private.rebuild_reports(now())")
    assert sorted(map(str, rows(fleet, query))) == sorted(map(str, found))


def test_who_signed_a_release_is_what_each_device_verified(fleet: Fleet) -> None:
    """One key that lies names nobody for all: it shows beside what the others say."""
    insert = (
        "insert into public.update_history (id, device_id, release_id, to_commit, outcome, started_at, finished_at, signer) "
        "values (gen_random_uuid(), %s, %s, repeat('2', 40), 'succeeded', now(), now(), %s)"
    )
    for who, device, signer in (("device", DEVICE, "alice"), ("device", DEVICE, "alice"), (None, OTHER, "alice"),
                                (None, OTHER, "mallory"), (None, OTHER, None)):  # fmt: skip
        fleet.sql(insert, device, V2, signer, who=who)
    found = rows(fleet, "select * from public.release_signers order by signer")
    assert [(row["release_id"], row["signer"], row["devices"]) for row in found] == [
        (str(V2), "alice", 2), (str(V2), "mallory", 1),
    ]  # fmt: skip
