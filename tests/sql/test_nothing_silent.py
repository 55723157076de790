"""What would do nothing, or something else than it says, is refused in words (releases, rollouts, lookup tables)."""

from __future__ import annotations

import json

import pytest

from tests.support.identities import DEVICE, OTHER, V1, V2, Fleet
from tests.support.profiles import OLDER_SERVER_IN_FULL
from tests.support.rollout_builders import (
    ask,
    device_id,
    finish,
    make_devices,
    opened,
    roll_out,
    state,
)

pytestmark = OLDER_SERVER_IN_FULL


def test_a_version_names_one_release_of_its_branch(fleet: Fleet) -> None:
    twice = "insert into public.releases (commit_sha, version, branch) values (repeat('9', 40), ' v1 ', %s)"
    refusal = fleet.refused(twice, "main", who="operator")
    assert refusal.kind == "version_taken"
    assert refusal.message == "Branch main has a release v1 already: commit 111111111111."
    fleet.sql(twice, "staging", who="operator")
    rename = "update public.releases set version = 'v1' where id = %s"
    assert fleet.refused(rename, V2, who="operator").kind == "version_taken"
    # Also where two add it at the same time, past the sentence.
    fleet.sql("set session_replication_role = replica")
    assert fleet.refused(twice.replace("' v1 '", "'v1'"), "main").code == "23505"


@pytest.mark.parametrize(
    "edit",
    [
        "update public.rollout_stages set opened_at = now() + interval '1 day' where position = 2",
        "update public.rollout_stages set approved_at = now() + interval '1 day' where position = 2",
        "insert into public.rollout_stages (rollout_id, position, approved_at) values ('{r}', 3, now() + interval '1 day')",
    ],
)
def test_a_date_in_the_future_is_refused(fleet: Fleet, edit: str) -> None:
    rollout = roll_out(fleet, {"segment": "canary", "soak_s": 3600}, {"needs_approval": True})
    refusal = fleet.refused(edit.format(r=rollout), who="operator")
    assert (refusal.code, refusal.kind) == ("PT400", "date_in_the_future")
    assert opened(fleet, rollout) == [1]
    fleet.sql("update public.rollout_stages set approved_at = now() where position = 2", who="operator")
    fleet.sql("update public.rollout_stages set opened_at = now() where position = 2", who="operator")
    assert opened(fleet, rollout) == [1, 2]


@pytest.mark.parametrize("table", ["releases (commit_sha", "rollouts (release_id"])
def test_what_the_owner_adds_is_not_from_the_future(fleet: Fleet, table: str) -> None:
    first = "repeat('9', 40)" if table.startswith("releases") else f"'{V2}'"
    refusal = fleet.refused(f"insert into public.{table}, created_at) values ({first}, '2099-01-01Z')")
    assert (refusal.code, refusal.kind) == ("PT400", "date_in_the_future")


@pytest.mark.parametrize("column", ["hold_until", "ignore_window_until"])
@pytest.mark.parametrize("who", ["operator", "service"])
def test_what_is_to_end_does_not_end_in_the_past(fleet: Fleet, column: str, who: str) -> None:
    edit = f"update public.devices set hold = true, {column} = now() + %s::interval where id = %s"
    for ago in ("-1 day", "0"):
        refusal = fleet.refused(edit, ago, DEVICE, who=who)
        assert (refusal.code, refusal.kind) == ("PT400", "date_in_the_past")
    fleet.sql(edit, "1 second", DEVICE, who=who)
    # Once it has ended, the row can still be edited.
    fleet.sql(edit, "-1 second", DEVICE)
    fleet.sql(
        f"update public.devices set segment = 'early', {column} = {column} where id = %s", DEVICE, who=who
    )


def test_a_rollout_keeps_its_start(fleet: Fleet) -> None:
    """It says which rollout spoke last."""
    rollout = roll_out(fleet)
    later = "update public.rollouts set started_at = '2099-01-01Z' where id = %s"
    assert fleet.refused(later, rollout).kind == "rollout_is_fixed"
    assert fleet.refused(later, rollout, who="operator").kind == "column_is_kept"
    draft = roll_out(fleet, release=V1, start=False)
    assert fleet.refused(later, draft, who="operator").kind == "column_is_kept"
    fleet.sql(later, draft)
    fleet.sql("select public.start_rollout(%s)", draft, who="operator")
    assert fleet.one("select started_at <= clock_timestamp() from public.rollouts where id = %s", draft)


@pytest.mark.parametrize(
    ("stages", "options"),
    [
        ([{}], {"selector": {"labels": {"site": "roma"}}}),
        ([{"segment": "early"}], {}),
        ([{"percent": 0}], {}),
        ([{"device_ids": ["00000000-0000-4000-8000-0000000000d4"]}], {}),
    ],
)
def test_a_rollout_that_concerns_nobody_does_not_start_unasked(
    fleet: Fleet, stages: list[dict[str, object]], options: dict[str, object]
) -> None:
    def draft(**more: object) -> object:
        return fleet.one(
            "select (public.create_rollout(%s, stages => %s, options => %s)).id",
            V2, json.dumps(stages), json.dumps(options | more), who="operator",
        )  # fmt: skip

    first = draft()
    refusal = fleet.refused("select public.start_rollout(%s)", first, who="operator")
    assert refusal.kind == "rollout_concerns_nobody"
    assert refusal.message == "This rollout would reach nobody: no active device matches it."
    assert fleet.one("select state::text from public.rollouts where id = %s", first) == "draft"
    fleet.sql("update public.rollouts set allow_empty = true where id = %s", first, who="operator")
    fleet.sql("select public.start_rollout(%s)", first, who="operator")
    fleet.sql("select public.start_rollout(%s)", draft(allow_empty=True), who="operator")


def test_a_template_starts_its_rollout_in_a_fleet_without_devices(bare: Fleet) -> None:
    bare.sql("update public.branches set rollout_template = 'staged' where name = 'main'")
    bare.sql("insert into public.releases (commit_sha) values (repeat('9', 40))")
    assert bare.one("select state::text from public.rollouts") in ("running", "completed")


@pytest.mark.parametrize("by_hand", [False, True])
def test_a_pattern_that_concerns_nobody_is_refused_unasked(fleet: Fleet, by_hand: bool) -> None:
    def mark(allow_empty: bool) -> str:
        return (
            "insert into public.known_bad_patterns (release_id, selector, reason, allow_empty) "
            f"values ('{V2}', '{{\"hardware_model\": \"Pi 33\"}}', 'its disk fills', {allow_empty})"
            if by_hand
            else f"select public.mark_known_bad('{V2}', '{{\"hardware_model\": \"Pi 33\"}}', 'its disk fills', {allow_empty})"
        )

    refusal = fleet.refused(mark(allow_empty=False), who="operator")
    assert refusal.kind == "pattern_concerns_nobody"
    assert refusal.message == "No device has hardware_model Pi 33."
    fleet.sql(mark(allow_empty=True), who="operator")


def test_a_stage_added_to_a_finished_rollout_reopens_it(fleet: Fleet) -> None:
    make_devices(fleet, 3)
    rollout = roll_out(fleet, {"segment": "canary"})
    ask(fleet)
    finish(fleet, rollout)
    assert state(fleet, rollout) == "completed"
    fleet.sql(
        "insert into public.rollout_stages (rollout_id, position, segment, max_in_flight) values (%s, 2, 'stable', 1)",
        rollout, who="operator",
    )  # fmt: skip
    assert state(fleet, rollout) == "running"
    fleet.sql("update public.rollout_stages set opened_at = now() where position = 2", who="operator")
    told = [ask(fleet, device_id(fleet, f"bulk{n}"))["action"] for n in (1, 2, 3)]
    assert told == ["update", "run", "run"]


def test_a_stage_is_not_added_where_a_newer_rollout_took_over(fleet: Fleet) -> None:
    rollout = roll_out(fleet, {"segment": "canary"}, release=V1)
    ask(fleet)
    finish(fleet, rollout, release=V1)
    roll_out(fleet)
    refusal = fleet.refused(
        "insert into public.rollout_stages (rollout_id, position) values (%s, 2)", rollout, who="operator"
    )
    assert refusal.kind == "newer_rollout"
    assert state(fleet, rollout) == "completed"


def test_a_segment_without_a_position_goes_to_the_end(fleet: Fleet) -> None:
    fleet.sql("insert into public.segments (name) values ('lab'), ('attic')", who="operator")
    fleet.sql("insert into public.segments (name, position) values ('last', 500)", who="operator")
    fleet.sql("insert into public.segments (name) values ('cellar'), ('roof')", who="operator")
    order = fleet.sql("select name from public.segments order by position")
    assert [row[0] for row in order] == [
        "canary", "early", "stable", "lab", "attic", "last", "cellar", "roof",
    ]  # fmt: skip


@pytest.mark.parametrize(
    ("table", "name", "message"),
    [
        ("segments", "canary", "canary cannot be deleted: it is used by 1 row of devices, 1 of rollout_stages, 1 of rollout_template_stages."),
        ("device_roles", "beacon", "beacon cannot be deleted: it is used by 5 rows of devices, 1 of fleet_settings."),
        ("branches", "main", "main cannot be deleted: it is used by 5 rows of devices, 2 of releases, 1 of rollouts."),
        ("rollout_templates", "staged", "staged cannot be deleted: it is used by 1 row of branches."),
        ("maintenance_windows", "w", "w cannot be deleted: it is used by 1 row of devices."),
        ("releases", "v1", "v1 cannot be deleted: it is used by 1 row of device_status, 1 of devices."),
    ],
)  # fmt: skip
def test_deleting_what_is_in_use_is_refused_with_what_uses_it(
    fleet: Fleet, table: str, name: str, message: str
) -> None:
    roll_out(fleet, {"segment": "canary"}, {})
    fleet.report(V1)
    fleet.sql("insert into public.maintenance_windows (name) values ('w')")
    fleet.sql(
        "insert into public.maintenance_openings (maintenance_window, starts_at, minutes) values ('w', '02:00', 60)"
    )
    fleet.sql(
        "update public.devices set maintenance_window = 'w', pinned_release = %s where id = %s", V1, OTHER
    )
    fleet.sql("update public.branches set rollout_template = 'staged' where name = 'staging'")
    key = "version" if table == "releases" else "name"
    refusal = fleet.refused(f"delete from public.{table} where {key} = %s", name)
    assert (refusal.kind, refusal.message) == ("still_in_use", message)


def test_what_nobody_uses_is_deleted(fleet: Fleet) -> None:
    fleet.sql("insert into public.segments (name) values ('lab')", who="operator")
    fleet.sql("delete from public.segments where name = 'lab'", who="operator")
    fleet.sql("delete from public.rollout_templates where name = 'at-once'", who="operator")
