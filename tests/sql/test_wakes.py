"""An edit that concerns devices wakes them, on the right topics, whoever made it; others sleep on."""

from __future__ import annotations

import json

import pytest

from tests.support.identities import DEVICE, OTHER, PENDING, SUSPENDED, V1, V2, Fleet
from tests.support.rollout_builders import roll_out

ME, OTHER_TOPIC = f"device:{DEVICE}", f"device:{OTHER}"


@pytest.mark.parametrize(
    ("edit", "woken"),
    [
        ("update public.devices set segment = 'early' where name = 'device'", {ME: "device_changed"}),
        (
            "update public.devices set role = 'beacon', hold = true where name = 'device'",
            {ME: "device_changed"},
        ),
        (
            "update public.devices set labels = '{\"site\": \"rome\"}' where name = 'device'",
            {ME: "device_changed"},
        ),
        (f"update public.devices set pinned_release = '{V1}' where name = 'device'", {ME: "device_changed"}),
        ("update public.devices set poll_interval_s = 60 where name = 'device'", {ME: "device_changed"}),
        ("update public.devices set state = 'suspended' where name = 'device'", {ME: "device_changed"}),
        (
            "update public.devices set state = 'active' where name = 'suspended'",
            {f"device:{SUSPENDED}": "device_changed"},
        ),
        (
            "update public.devices set branch = 'staging' where true",
            {ME: "device_changed", OTHER_TOPIC: "device_changed"},
        ),
        # Nothing that the device acts on.
        ("update public.devices set name = 'renamed' where name = 'device'", {}),
        ("update public.devices set segment = segment where true", {}),
        ("update public.devices set segment = 'early' where name = 'pending'", {}),
        ("insert into public.devices (name, role) values ('new', 'beacon')", {}),
        (
            "insert into public.releases (commit_sha) values (repeat('9', 40))",
            {ME: "release_added", OTHER_TOPIC: "release_added"},
        ),
        ("insert into public.releases (commit_sha, branch) values (repeat('9', 40), 'staging')", {}),
        (
            "update public.releases set state = 'withdrawn' where version = 'v2'",
            {ME: "release_withdrawn", OTHER_TOPIC: "release_withdrawn"},
        ),
        ("update public.releases set notes = 'x' where version = 'v2'", {}),
        (
            "insert into public.halts (reason) values ('x')",
            {"segment:canary": "halt_opened", "segment:stable": "halt_opened"},
        ),
        (
            "insert into public.halts (scope, target, reason) values ('segment', 'stable', 'x')",
            {"segment:stable": "halt_opened"},
        ),
        ("insert into public.halts (scope, target, reason) values ('segment', 'early', 'x')", {}),
        (
            "insert into public.halts (scope, target, reason) values ('role', 'beacon', 'x')",
            {ME: "halt_opened", OTHER_TOPIC: "halt_opened"},
        ),
        (
            f"insert into public.halts (scope, target, reason) values ('release', '{V2}', 'x')",
            {ME: "halt_opened", OTHER_TOPIC: "halt_opened"},
        ),
        (
            f"insert into public.device_commands (device_id, kind) values ('{DEVICE}', 'restart')",
            {ME: "command"},
        ),
    ],
)
def test_an_edit_wakes_exactly_whom_it_concerns(fleet: Fleet, edit: str, woken: dict[str, str]) -> None:
    fleet.sql(edit, who="operator")
    assert fleet.woken() == woken


@pytest.mark.parametrize("by", ["rollout", "known-bad pattern"])
def test_a_rename_wakes_the_device_that_a_selector_takes_by_it(fleet: Fleet, by: str) -> None:
    selector = '{"name": ["renamed", "somebody"]}'
    if by == "rollout":
        roll_out(fleet, selector=json.loads(selector), allow_empty=True)
    else:
        fleet.sql("select public.mark_known_bad(%s, %s, 'x', allow_empty => true)", V2, selector)
    fleet.messages()
    fleet.sql("update public.devices set name = name || 's' where name = 'other'", who="operator")
    assert fleet.woken() == {}
    fleet.sql("update public.devices set name = 'Renamed' where name = 'device'", who="operator")
    assert fleet.woken() == {}, "as written"
    fleet.sql("update public.devices set name = 'renamed' where name = 'Renamed'", who="operator")
    assert fleet.woken() == {ME: "device_changed"}


def test_a_hand_edit_by_the_owner_wakes_like_one_through_the_api(fleet: Fleet) -> None:
    with fleet.connect("postgres") as editor:
        editor.execute("update public.devices set segment = 'early' where name = 'device'")
    assert fleet.woken() == {ME: "device_changed"}


def test_lifting_a_halt_and_changing_the_interval_wake_their_segments(fleet: Fleet) -> None:
    fleet.sql("select public.halt_fleet('x')", who="operator")
    fleet.messages()
    fleet.sql("update public.halts set lift_reason = 'fine' where true", who="operator")
    assert fleet.woken() == {"segment:canary": "halt_lifted", "segment:stable": "halt_lifted"}
    fleet.sql("update public.fleet_settings set default_poll_interval_s = 60 where id", who="admin")
    assert fleet.woken() == {"segment:canary": "settings_changed", "segment:stable": "settings_changed"}
    fleet.sql("update public.fleet_settings set offline_after_intervals = 5 where id", who="admin")
    assert fleet.woken() == {}


def test_many_devices_are_woken_by_segment_and_told_to_spread(fleet: Fleet) -> None:
    fleet.sql(
        "insert into public.devices (name, role, state, public_key) "
        "select 'bulk' || n, 'beacon', 'active', lpad(n::text, 43, '0') from generate_series(1, 300) n"
    )
    fleet.messages()
    fleet.sql("insert into public.releases (commit_sha) values (repeat('9', 40))", who="operator")
    sent = fleet.messages(event="wake")
    assert {topic for topic, _, _ in sent} == {"segment:canary", "segment:stable"}
    spread = {topic: payload["spread_s"] for topic, _, payload in sent}
    # 301 devices, 20 ms each.
    assert spread == {"segment:canary": 0, "segment:stable": 6}


def test_heartbeats_wake_nobody(fleet: Fleet) -> None:
    fleet.report(V1)
    fleet.report(V2)
    assert fleet.woken() == {}


def test_a_refused_or_rolled_back_edit_wakes_nobody(fleet: Fleet) -> None:
    fleet.refused("update public.devices set segment = 'nowhere' where name = 'device'", who="operator")
    with fleet.admin.transaction(force_rollback=True):
        fleet.admin.execute("update public.devices set segment = 'early' where name = 'device'")
    assert fleet.messages() == []


def test_operators_see_small_changes_row_by_row(fleet: Fleet) -> None:
    fleet.report(V1, state="updating")
    fleet.report(V1, state="updating")
    fleet.report(V2, state="healthy")
    fleet.sql(
        "update public.devices set segment = 'early' where name in ('device', 'pending')", who="operator"
    )
    sent = fleet.messages("fleet")
    assert [(event, p["op"], p["device_id"]) for _, event, p in sent[:2]] == [
        ("device_status", "insert", str(DEVICE)),
        ("device_status", "update", str(DEVICE)),
    ]
    assert sent[1][2]["record"]["current_release"] == str(V2)
    assert {p["id"] for _, event, p in sent if event == "devices"} == {str(DEVICE), str(PENDING)}
    assert {p["record"]["segment"] for _, event, p in sent if event == "devices"} == {"early"}


@pytest.mark.parametrize(("rows", "messages"), [(20, 20), (21, 1)])
def test_operators_see_a_large_change_as_one_message(fleet: Fleet, rows: int, messages: int) -> None:
    fleet.sql(
        "insert into public.devices (name, role) select 'bulk' || n, 'beacon' from generate_series(1, %s) n",
        rows, who="operator",
    )  # fmt: skip
    sent = fleet.messages("fleet", "devices")
    assert len(sent) == messages
    if messages == 1:
        assert (sent[0][2]["id"], sent[0][2]["count"]) == (None, rows)


def test_operators_see_halts_releases_commands_and_attempts(fleet: Fleet) -> None:
    fleet.sql("select public.halt_fleet('x')", who="operator")
    fleet.sql("insert into public.releases (commit_sha) values (repeat('9', 40))", who="operator")
    fleet.sql(
        "insert into public.device_commands (device_id, kind) values (%s, 'restart')", DEVICE, who="operator"
    )
    fleet.sql(
        "insert into public.update_history (id, device_id, to_commit, outcome, started_at, finished_at) "
        "values (gen_random_uuid(), %s, repeat('1', 40), 'succeeded', now(), now())",
        DEVICE, who="device",
    )  # fmt: skip
    sent = {event: payload for _, event, payload in fleet.messages("fleet")}
    assert set(sent) == {"halts", "releases", "device_commands", "update_history", "alerts"}
    assert sent["halts"]["record"]["reason"] == "x"
    assert sent["update_history"]["device_id"] == str(DEVICE)


def test_an_edit_survives_realtime_being_broken(fleet: Fleet) -> None:
    """No partition for today, as on a hosted project that nobody has listened to for days."""
    for (name,) in fleet.sql(
        "select inhrelid::regclass::text from pg_inherits where inhparent = 'realtime.messages'::regclass"
    ):
        fleet.sql(f"drop table {name}")
    fleet.sql("update public.devices set segment = 'early' where name = 'device'", who="operator")
    assert fleet.desired()["device"]["segment"] == "early"
