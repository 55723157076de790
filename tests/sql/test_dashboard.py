"""What the dashboard asks: a count and its list agree, a bulk change is about what was shown, one list of what happened."""

from __future__ import annotations

import json
from typing import Any
from uuid import UUID

import pytest

from tests.support.identities import DEVICE, OTHER, V1, V2, Fleet
from tests.support.profiles import OLDER_SERVER_IN_FULL
from tests.support.rollout_builders import make_devices, roll_out

pytestmark = OLDER_SERVER_IN_FULL

SHOWN = [
    "safe_mode", "isolated", "degraded", "offline", "rolled_back", "pending", "updating", "never_seen", "suspended",
    "healthy", "retired",
]  # fmt: skip


def listed(fleet: Fleet, selector: dict[str, Any], **options: Any) -> tuple[int, list[str]]:
    """How many, and the names of the page."""
    given = ", ".join(f"{name} => %s" for name in options)
    answer = fleet.one(
        f"select public.list_devices(%s{', ' if given else ''}{given})",
        json.dumps(selector), *options.values(), who="viewer",
    )  # fmt: skip
    return answer["total"], [row["device"]["name"] for row in answer["devices"]]


def change(
    fleet: Fleet, selector: dict[str, Any], what: dict[str, Any], expected: int, reason: str | None = None
) -> Any:
    return fleet.one(
        "select public.change_devices(%s, %s, %s, %s)",
        json.dumps(selector),
        json.dumps(what),
        expected,
        reason,
        who="operator",
    )


def a_fleet_of_everything(fleet: Fleet) -> None:
    """At least one device in each state in which one can be shown, some of them by two reasons at once."""
    fleet.admin.execute("set session_replication_role = replica")
    for number, state in enumerate(
        ["healthy", "updating", "degraded", "rolled_back", "isolated", "safe_mode"]
    ):
        for ago, pinned in (("10 s", None), ("10 days", None), ("1 h", 7200), ("10 min", 30)):
            fleet.sql(
                "with made as (insert into public.devices (name, role, segment, state, public_key, hold, poll_interval_s)"
                " values (%s, 'beacon', 'stable', 'active', md5(%s) || repeat('x', 11), %s, %s) returning id)"
                " insert into public.device_status (device_id, state, reported_at, settings, current_release)"
                " select id, %s, now() - %s::interval, %s, %s from made",
                f"{state}-{ago[:-1].replace(' ', '')}", f"{state}{ago}", number % 2 == 0, 86400 if number == 5 else None,
                state, ago, json.dumps({"pinned": ["poll_interval_s"], "poll_interval_s": pinned} if pinned else {}), V1,
            )  # fmt: skip
    # Whatever a device that is not active reported last does not count.
    fleet.sql(
        "insert into public.device_status (device_id, state, reported_at) select id, 'degraded', now() from public.devices"
        " where name in ('suspended', 'retired')"
    )
    fleet.admin.execute("set session_replication_role = origin")


def test_each_count_of_the_overview_is_the_length_of_its_list(fleet: Fleet) -> None:
    a_fleet_of_everything(fleet)
    overview = fleet.one("select to_jsonb(o) from public.fleet_overview o", who="viewer")
    counts = {state: overview["not_heard_yet" if state == "never_seen" else state] for state in SHOWN}
    assert {state: listed(fleet, {"shown": state})[0] for state in SHOWN} == counts
    assert all(counts.values()), counts
    # Retired devices are history, for lists as for counts.
    assert listed(fleet, {})[0] == overview["devices"] == sum(counts.values()) - counts["retired"]


def test_a_page_is_a_part_of_the_whole_in_its_order(fleet: Fleet) -> None:
    a_fleet_of_everything(fleet)
    total, everyone = listed(fleet, {}, at_most=1000)
    pages = [listed(fleet, {}, skip=skip, at_most=10)[1] for skip in range(0, total, 10)]
    assert [name for page in pages for name in page] == everyone
    assert len(everyone) == total
    urgent = [name.rpartition("-")[0] for name in everyone if name.endswith("-10")]
    assert urgent.index("safe_mode") < urgent.index("degraded") < urgent.index("healthy")
    assert listed(fleet, {"text": "never-there"}) == (0, [])
    refusal = fleet.refused("select public.list_devices('{}', 'name; drop table devices')", who="viewer")
    assert (refusal.code, refusal.kind) == ("PT400", "sort_unknown")
    assert fleet.refused("select public.list_devices()", who="stranger").kind == "not_an_operator"


@pytest.mark.parametrize(
    ("words", "function"),
    [
        (["lobby-1", "lobby-9", "lobby-10", "Lobby-11", "lobby-100"], "natural_order"),
        (
            [
                "1.9.0",
                "v1.10.0-rc.1",
                "1.10.0-rc.2",
                "1.10.0-rc.10",
                "1.10.0",
                "1.10.1",
                "2",
                "4fbc2e1",
                None,
            ],
            "version_order",
        ),
    ],
)
def test_names_and_versions_sort_by_their_numbers(
    fleet: Fleet, words: list[str | None], function: str
) -> None:
    found = fleet.sql(
        f'select w from unnest(%s::text[]) w order by private.{function}(w) collate "C" nulls last',
        sorted(words, key=str),
    )
    assert [row[0] for row in found] == words


def test_all_that_match_are_changed_past_the_limit_of_rows_and_each_is_audited(fleet: Fleet) -> None:
    fleet.sql(
        "insert into public.devices (name, role, state, labels) select 'cam-' || n, 'beacon', 'pending', '{\"old\": \"1\"}'"
        " from generate_series(1, 2500) n"
    )
    selector = {"text": "CAM-", "state": "pending"}
    fleet.messages()
    answer = change(fleet, selector, {"labels": {"site": "rome", "old": None}}, 2500)
    assert (answer["devices"], answer["changed"], answer["refused"]) == (2500, 2500, 0)
    assert len(answer["answers"]) == 2500
    assert fleet.one('select count(*) from public.devices where labels = \'{"site": "rome"}\'') == 2500
    rows = fleet.sql(
        "select row_id = '*', count(*), min(actor) from public.audit_log where table_name = 'devices' and action = 'update' group by 1"
    )
    assert sorted(rows) == [(False, 2500, "operator@example.com"), (True, 1, "operator@example.com")]
    assert len(fleet.messages(topic="fleet")) == 1


def test_a_change_is_refused_whole_if_it_is_about_another_number_than_was_shown(fleet: Fleet) -> None:
    def attempt(expected: object, **selector: Any) -> str:
        refusal = fleet.refused(
            'select public.change_devices(%s, \'{"segment": "early"}\', %s)',
            json.dumps(selector),
            expected,
            who="operator",
        )
        return f"{refusal.kind}: {refusal.message}"

    assert (
        attempt(3, name=["device", "other"])
        == "count_changed: This is about 2 devices now, not 3: nothing was changed."
    )
    assert attempt(0, name="device").startswith("count_changed: This is about 1 device now")
    assert attempt(None, name="device").startswith("count_changed")
    # Retired devices are not meant unless they are named so.
    assert attempt(5).startswith("count_changed: This is about 4 devices now")
    assert fleet.one("select count(*) from public.devices where segment = 'early'") == 0
    refusal = fleet.refused("select public.change_devices('{}', '{\"segment\": \"early\"}', 4)", who="viewer")
    assert (refusal.code, refusal.kind) == ("PT403", "rank_too_low")


def test_a_device_that_refuses_says_why_and_does_not_keep_the_others(fleet: Fleet) -> None:
    selector = {
        "name": ["device", "other", "retired", "suspended"],
        "state": ["active", "suspended", "retired"],
    }
    answer = change(fleet, selector, {"state": "suspended"}, 4)
    assert {row["name"]: row["outcome"] for row in answer["answers"]} == {
        "device": "changed", "other": "changed", "suspended": "unchanged", "retired": "refused",
    }  # fmt: skip
    assert [row["message"] for row in answer["answers"] if row["outcome"] == "refused"] == [
        "retired is retired and cannot become suspended."
    ]
    assert (answer["changed"], answer["unchanged"], answer["refused"]) == (2, 1, 1)
    told = change(fleet, {"name": ["device", "suspended"]}, {"command": {"kind": "restart"}}, 2)
    assert {row["name"]: row["outcome"] for row in told["answers"]} == {
        "device": "refused",
        "suspended": "refused",
    }


def test_a_bulk_hold_keeps_its_reason_and_its_end_and_clearing_it_takes_both_away(fleet: Fleet) -> None:
    held = "select hold, hold_reason, hold_until is not null from public.devices where name = 'device'"
    until = fleet.one("select now() + interval '8 hours'")
    assert (
        change(fleet, {"name": "device"}, {"hold": True, "hold_until": until.isoformat()}, 1, " night ")[
            "changed"
        ]
        == 1
    )
    assert fleet.sql(held) == [(True, "night", True)]
    assert change(fleet, {"name": "device"}, {"hold": False}, 1)["changed"] == 1
    assert fleet.sql(held) == [(False, None, False)]


@pytest.mark.parametrize(
    ("what", "kind"),
    [
        ({}, "change_malformed"),
        ([], "change_malformed"),
        ({"name": "x"}, "change_unknown"),
        ({"public_key": "x"}, "change_unknown"),
        ({"hold": True}, "reason_missing"),
        ({"labels": {"site": 1}}, "change_malformed"),
        ({"maintenance_window": "nights"}, "unknown_window"),
        ({"command": {"kind": "restart"}, "segment": "early"}, "change_malformed"),
    ],
)
def test_what_is_not_a_change_is_refused(fleet: Fleet, what: object, kind: str) -> None:
    refusal = fleet.refused(
        'select public.change_devices(\'{"name": "device"}\', %s, 1)', json.dumps(what), who="operator"
    )
    assert (refusal.code, refusal.kind) == ("PT400", kind)


def test_rows_that_were_chosen_one_by_one_are_all_that_is_changed(fleet: Fleet) -> None:
    answer = fleet.one(
        "select public.change_devices('{}', '{\"poll_interval_s\": 60}', 1, null, %s)",
        [OTHER],
        who="operator",
    )
    assert [row["name"] for row in answer["answers"]] == ["other"]
    # A value that its column refuses is told in the words of the column.
    refused = change(fleet, {"name": "other"}, {"poll_interval_s": 1}, 1)
    assert refused["answers"][0]["message"] == "Poll_interval_s must be 30 to 604800 seconds, or empty."


def test_a_halt_is_told_with_its_release_and_steps_back_when_it_is_over(fleet: Fleet) -> None:
    make_devices(fleet, 3)
    first = roll_out(fleet, release=V1)
    fleet.sql(
        "insert into public.halts (scope, target, cause, reason) values ('rollout', %s, 'operator', 'smoke'), ('segment', 'canary', 'operator', 'x')",
        str(first), who="operator",
    )  # fmt: skip

    def told() -> dict[str, tuple[str, int, bool]]:
        rows = fleet.sql(
            "select scope::text, subject, devices, is_past from public.open_halts()", who="viewer"
        )
        return {row[0]: row[1:] for row in rows}

    now = told()
    assert now["segment"] == (
        "Segment canary",
        fleet.one("select count(*) from public.devices where segment = 'canary' and state = 'active'"),
        False,
    )
    assert now["rollout"][0].startswith("Rollout v1")
    assert str(first) not in now["rollout"][0]
    assert now["rollout"][1] > 0
    assert now["rollout"][2] is False
    roll_out(fleet, release=V2)
    assert fleet.one("select state::text from public.rollouts where id = %s", first) == "superseded"
    assert told()["rollout"][1:] == (0, True)


def test_a_halt_that_takes_back_stays_loud_until_nobody_runs_it(fleet: Fleet) -> None:
    fleet.report(V2)
    fleet.sql("update public.releases set state = 'withdrawn' where id = %s", V2)
    fleet.sql(
        "insert into public.halts (scope, target, reason, roll_back) values ('release', %s, 'smoke', true)",
        str(V2),
        who="operator",
    )
    told = "select subject, going_back, is_past from public.open_halts()"
    assert fleet.sql(told, who="viewer") == [("Release v2", 1, False)]
    fleet.report(V1)
    assert fleet.sql(told, who="viewer") == [("Release v2", 0, True)]
    assert fleet.refused(told, who="stranger").kind == "not_an_operator"


def test_the_reach_of_a_halt_counts_active_devices_only(fleet: Fleet) -> None:
    everyone = fleet.one("select public.halt_reach()", who="viewer")
    assert everyone == {
        "devices": 2, "updating": 0, "by_segment": [{"segment": "canary", "devices": 1}, {"segment": "stable", "devices": 1}],
    }  # fmt: skip
    fleet.report(V2, state="updating")
    assert fleet.one("select public.halt_reach('release', %s)", str(V2), who="viewer")["devices"] == 1
    assert fleet.one("select public.halt_reach('segment', 'canary')", who="viewer")["updating"] == 1


def test_open_rollouts_say_what_comes_next_and_when(fleet: Fleet) -> None:
    make_devices(fleet, 4)
    rollout = roll_out(fleet, {"percent": 50, "soak_s": 600}, {"percent": 100}, release=V2)
    (told,) = fleet.one("select public.open_rollouts()", who="viewer")
    assert (told["rollout_id"], told["next"]["stage"], told["next"]["at"]) == (str(rollout), 2, None)
    assert told["next"]["because"].startswith("stage 1 is not proved")
    fleet.sql("select public.pause_rollout(%s)", rollout, who="operator")
    (paused,) = fleet.one("select public.open_rollouts()", who="viewer")
    assert paused["next"]["because"] == "the rollout is paused."


def test_the_last_day_counts_what_happened_in_it(fleet: Fleet) -> None:
    fleet.sql(
        "insert into public.update_history (id, device_id, release_id, to_commit, outcome, started_at, finished_at)"
        " select gen_random_uuid(), %s, %s, repeat('2', 40), o::public.update_outcome, now(), now()"
        " from unnest(array['succeeded', 'succeeded', 'rolled_back']) o", DEVICE, V2,
    )  # fmt: skip
    fleet.sql("update public.devices set segment = 'early' where id = %s", DEVICE, who="operator")
    day = fleet.one("select to_jsonb(d) from public.fleet_last_day d", who="viewer")
    assert {name: day[name] for name in ("updates_succeeded", "updates_rolled_back", "updates_failed", "devices_that_tried", "edits", "people")} == {
        "updates_succeeded": 2, "updates_rolled_back": 1, "updates_failed": 0, "devices_that_tried": 1, "edits": 1, "people": 1,
    }  # fmt: skip


def test_adoption_adds_up_to_the_devices_that_run_a_release_each_day(fleet: Fleet) -> None:
    fleet.sql("insert into public.device_roles (name) values ('kiosk')")
    fleet.sql("update public.devices set role = 'kiosk' where id = %s", OTHER)
    fleet.report(V1)
    fleet.report(V1, who="other device")
    fleet.sql("select private.count_adoption(now() - interval '2 days')")
    fleet.report(V2)

    def adoption(*arguments: object) -> dict[str, Any]:
        answer = fleet.one(
            f"select public.adoption_over_time({', '.join(['%s'] * len(arguments))})",
            *arguments,
            who="viewer",
        )
        assert isinstance(answer, dict)
        return answer

    whole = adoption()
    assert {row["version"]: row["devices"] for row in whole["releases"]} == {"v1": [2, 0, 1], "v2": [0, 0, 1]}
    assert (len(whole["days"]), whole["others"]) == (3, [0, 0, 0])
    assert {row["version"]: row["devices"] for row in adoption(30, "kiosk")["releases"]} == {"v1": [1, 0, 1]}
    assert adoption(30, None, "staging")["releases"] == []
    # More releases than a chart can tell apart are added up, not left out.
    for number in range(9):
        release = fleet.one(
            "insert into public.releases (commit_sha, version) values (md5(%s) || repeat('0', 8), %s) returning id",
            str(number),
            f"x{number}",
        )
        fleet.sql(
            "insert into private.adoption_days (day, role, release_id, devices) values (current_date - 1, 'beacon', %s, %s)",
            release,
            number + 1,
        )
    crowded = adoption()
    assert len(crowded["releases"]) == 8
    assert sum(row["devices"][-2] for row in crowded["releases"]) + crowded["others"][-2] == sum(range(1, 10))


def test_the_timeline_of_a_device_is_everything_about_it_latest_first_and_in_pages(fleet: Fleet) -> None:
    fleet.sql(
        "insert into public.update_history (id, device_id, release_id, to_commit, outcome, started_at, finished_at)"
        " values (gen_random_uuid(), %s, %s, repeat('2', 40), 'failed', now() + interval '9 years', now())", DEVICE, V2,
    )  # fmt: skip
    fleet.sql("update public.devices set segment = 'early' where id = %s", DEVICE, who="operator")
    fleet.sql(
        "insert into public.device_commands (device_id, kind) values (%s, 'restart')", DEVICE, who="operator"
    )
    fleet.sql(
        "insert into public.alerts (kind, device_id, summary) values ('clock_drift', %s, 'late')", DEVICE
    )
    fleet.sql(
        "insert into public.halts (scope, target, reason) values ('segment', 'early', 'x'), ('segment', 'stable', 'y')",
        who="operator",
    )
    fleet.sql("delete from public.known_bad_releases where device_id = %s", DEVICE, who="operator")

    def timeline(device: UUID, *more: object, who: str = "viewer") -> list[dict[str, Any]]:
        found = fleet.one(f"select public.device_timeline(%s{', %s' * len(more)})", device, *more, who=who)
        assert isinstance(found, list)
        return found

    whole = timeline(DEVICE)
    assert sorted(entry["what"] for entry in whole if entry["what"] != "retry") == [
        "alert",
        "attempt",
        "command",
        "edit",
        "halt",
    ]
    assert [entry["at"] for entry in whole] == sorted((entry["at"] for entry in whole), reverse=True)
    facts = {entry["what"]: entry["facts"] for entry in whole}
    assert facts["edit"]["by"] == "operator@example.com"
    assert (facts["edit"]["before"], facts["edit"]["after"]) == ({"segment": "canary"}, {"segment": "early"})
    assert facts["attempt"]["to"] == "v2"
    assert facts["command"]["by"] == "operator@example.com"
    paged = timeline(DEVICE, "infinity", 2)
    assert paged == whole[:2]
    assert timeline(DEVICE, whole[1]["at"], 50) == [entry for entry in whole if entry["at"] < whole[1]["at"]]
    refusal = fleet.refused("select public.device_timeline(gen_random_uuid())", who="viewer")
    assert (refusal.code, refusal.kind) == ("PT404", "device_unknown")
