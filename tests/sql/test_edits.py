"""Hands on the tables: nonsense is refused in words, and every change leaves a trace."""

from __future__ import annotations

import pytest

from tests.support.identities import ADMIN, DEVICE, OPERATOR, SUSPENDED, V1, Fleet

HEX = "'" + "9" * 40 + "'"


@pytest.mark.parametrize(
    ("edit", "code", "kind", "words"),
    [
        ("update public.devices set segment = 'nowhere' where name = 'device'", "PT400", "unknown_segment", 'There is no segment "nowhere".'),
        ("update public.devices set role = 'nothing' where name = 'device'", "PT400", "unknown_role", 'There is no device role "nothing".'),
        ("update public.devices set branch = 'nix' where name = 'device'", "PT400", "unknown_branch", 'There is no branch "nix".'),
        ("update public.devices set timezone = 'Europe/Rom' where name = 'device'", "PT400", "unknown_timezone", 'There is no time zone "Europe/Rom".'),
        ("update public.devices set timezone = 'X3' where name = 'device'", "PT400", "unknown_timezone", 'There is no time zone "X3".'),
        ("update public.devices set pinned_release = gen_random_uuid() where name = 'device'", "PT409", "release_not_available", "device cannot be pinned to that release: it is withdrawn or does not exist."),
        ("update public.devices set state = 'pending' where name = 'device'", "PT409", "device_state_is_final", "device is active and cannot become pending."),
        ("update public.devices set state = 'active' where name = 'retired'", "PT409", "device_state_is_final", "retired is retired and cannot become active."),
        ("update public.devices set public_key = repeat('x', 43) where name = 'device'", "PT403", "public_key_is_fixed", "The key of device is set by its enrollment only."),
        ("update public.devices set id = gen_random_uuid() where name = 'device'", "PT409", "device_id_is_fixed", "The id of a device cannot be changed."),
        ("delete from public.devices where name = 'device'", "PT409", "device_is_known", "device has been part of the fleet, so its row stays."),
        ("update public.devices set poll_interval_s = 29 where name = 'device'", "23514", "", "poll_interval_s must be 30 to 604800 seconds, or empty"),
        ("update public.devices set name = 'no spaces' where name = 'device'", "23514", "", "name must be 1 to 63 letters, digits, dots, _ or -"),
        ("update public.devices set labels = '{\"site\": 1}' where name = 'device'", "23514", "", "labels must be an object of texts"),
        ("update public.devices set labels = '[]' where name = 'device'", "23514", "", "labels must be an object of texts"),
        ("update public.devices set hold_until = now() + interval '1 day' where name = 'device'", "23514", "", "hold_until and hold_reason need hold switched on"),
        ("insert into public.devices (name, role, state) values ('x', 'beacon', 'active')", "23514", "", "an active device needs a public_key"),
        ("insert into public.releases (commit_sha) values ('abc')", "23514", "", "commit_sha must be the full 40 or 64 hex digits of a commit"),
        (f"insert into public.releases (commit_sha, branch) values ({HEX}, 'nix')", "PT400", "unknown_branch", 'There is no branch "nix".'),
        ("insert into public.releases (commit_sha) values (repeat('1', 40))", "23505", "", "this commit is already a release of this branch"),
        (f"update public.releases set commit_sha = {HEX} where version = 'v1'", "PT409", "release_is_fixed", "A release cannot be pointed at another commit or branch."),
        ("insert into public.halts (reason) values (' ')", "PT400", "reason_missing", "A halt needs a reason."),
        ("insert into public.halts (target, reason) values ('canary', 'x')", "PT400", "target_not_empty", "A halt of the fleet has no target."),
        ("insert into public.halts (scope, target, reason) values ('segment', 'nowhere', 'x')", "PT400", "unknown_target", 'There is no segment "nowhere" to halt.'),
        ("insert into public.halts (scope, reason) values ('release', 'x')", "PT400", "unknown_target", 'There is no release "" to halt.'),
        (f"insert into public.device_commands (device_id, kind) values ('{SUSPENDED}', 'restart')", "PT409", "device_not_active", "That device is suspended, so it would never read a command."),
        (f"insert into public.device_commands (device_id, kind, state) values ('{DEVICE}', 'restart', 'failed')", "PT400", "command_starts_queued", "A new command starts as queued and without an answer."),
        (f"insert into public.device_commands (device_id, kind) values ('{DEVICE}', 'dance')", "22P02", "", "dance"),
        ("insert into public.segments (name, position) values ('No', 50)", "23514", "", "name must be 1 to 63 of a-z, 0-9 and -"),
        ("delete from public.segments where name = 'canary'", "23503", "", "devices"),
        ("insert into public.branches (name) values ('a..b')", "23514", "", "name must look like a Git branch"),
    ],
)  # fmt: skip
def test_nonsense_is_refused_in_words(fleet: Fleet, edit: str, code: str, kind: str, words: str) -> None:
    refusal = fleet.refused(edit, who="operator")
    assert refusal.code == code
    assert words in refusal.message
    if kind:
        assert (refusal.kind, refusal.message) == (kind, words)
        assert refusal.hint.endswith(".")


@pytest.mark.parametrize(
    ("seconds", "allowed"), [(29, False), (30, True), (604800, True), (604801, False), (None, True)]
)
def test_poll_intervals_have_bounds(fleet: Fleet, seconds: int | None, allowed: bool) -> None:
    edit = "update public.devices set poll_interval_s = %s where id = %s"
    if allowed:
        fleet.sql(edit, seconds, DEVICE, who="operator")
    else:
        assert fleet.refused(edit, seconds, DEVICE, who="operator").code == "23514"


def test_settings_have_bounds_and_one_row(fleet: Fleet) -> None:
    refusal = fleet.refused(
        "update public.fleet_settings set default_poll_interval_s = 29 where id", who="admin"
    )
    assert (refusal.code, "default_poll_interval_s must be 30 to 604800 seconds" in refusal.message) == (
        "23514",
        True,
    )
    assert fleet.refused("insert into public.fleet_settings default values").code == "23505"
    assert fleet.refused("insert into public.fleet_settings (id) values (false)").code == "23514"


def test_sensible_defaults_fill_a_hand_made_row(fleet: Fleet) -> None:
    fleet.sql("insert into public.devices (name, role) values (' spaced ', 'beacon')", who="operator")
    assert fleet.sql(
        "select segment, branch, state::text, timezone from public.devices where name = 'spaced'"
    ) == [("stable", "main", "pending", "UTC")]
    fleet.sql("insert into public.releases (commit_sha) values (repeat('AB', 20))", who="operator")
    assert (
        fleet.one("select version from public.releases where commit_sha = repeat('ab', 20)") == "abababababab"
    )


def test_switching_a_hold_off_clears_its_reason(fleet: Fleet) -> None:
    fleet.sql(
        "update public.devices set hold = true, hold_reason = 'x', hold_until = now() where id = %s", DEVICE
    )
    fleet.sql("update public.devices set hold = false where id = %s", DEVICE, who="operator")
    assert fleet.sql("select hold_reason, hold_until from public.devices where id = %s", DEVICE) == [
        (None, None)
    ]


def test_a_halt_can_only_be_lifted(fleet: Fleet) -> None:
    halt = fleet.one("insert into public.halts (reason) values ('smoke') returning id", who="operator")
    for who in ("operator", None):
        refusal = fleet.refused("update public.halts set reason = 'else' where id = %s", halt, who=who)
        assert (refusal.code, refusal.kind) == ("PT409", "halt_is_fixed")
    assert fleet.refused("delete from public.halts where id = %s", halt, who="admin").code == "42501"
    assert fleet.refused("delete from public.halts where id = %s", halt).kind == "halts_stay"
    assert fleet.refused("truncate public.halts").kind == "append_only"
    for missing in ("lifted_at = now()", "lift_reason = ' '", f"lifted_by = '{OPERATOR}'"):
        refusal = fleet.refused(f"update public.halts set {missing} where id = %s", halt, who="operator")
        assert refusal.kind == "reason_missing", missing
    fleet.sql("update public.halts set lift_reason = 'fine' where id = %s", halt, who="operator")
    assert fleet.sql("select opened_by, lifted_by, lifted_at is not null from public.halts") == [
        (OPERATOR, OPERATOR, True)
    ]
    assert (
        fleet.refused("update public.halts set lift_reason = 'no' where id = %s", halt, who="operator").kind
        == "halt_is_lifted"
    )
    assert (
        fleet.refused("select public.lift_halt(%s, 'again')", halt, who="operator").kind == "halt_is_lifted"
    )
    assert (
        fleet.refused("select public.lift_halt(gen_random_uuid(), 'x')", who="operator").kind
        == "halt_unknown"
    )


def test_nobody_signs_with_another_name(fleet: Fleet) -> None:
    fleet.sql("insert into public.halts (reason, opened_by) values ('x', %s)", ADMIN, who="operator")
    assert fleet.one("select opened_by from public.halts") == OPERATOR
    command = "insert into public.device_commands (device_id, kind{}) values (%s, 'restart'{})"
    forged = command.format(", requested_by", f", '{ADMIN}'")
    assert fleet.refused(forged, DEVICE, who="operator").kind == "column_is_kept"
    fleet.sql(command.format("", ""), DEVICE, who="operator")
    assert fleet.one("select requested_by from public.device_commands") == OPERATOR


def test_a_device_answers_a_command_once_and_changes_nothing_else(fleet: Fleet) -> None:
    command = fleet.one(
        "insert into public.device_commands (device_id, kind) values (%s, 'restart') returning id", DEVICE
    )
    refusal = fleet.refused(
        "update public.device_commands set kind = 'rollback' where id = %s", command, who="device"
    )
    assert refusal.code == "42501"
    assert (
        fleet.refused(
            "update public.device_commands set state = 'expired' where id = %s", command, who="device"
        ).code
        == "42501"
    )
    assert (
        fleet.sql(
            "update public.device_commands set state = 'failed' where id = %s returning 1",
            command,
            who="other device",
        )
        == []
    )
    answered = "update public.device_commands set state = 'succeeded', result = '{\"ok\": true}' where id = %s returning answered_at"
    assert fleet.one(answered, command, who="device") is not None
    assert fleet.sql(answered, command, who="device") == []
    assert (
        fleet.refused(
            "update public.device_commands set state = 'queued' where id = %s", command, who="operator"
        ).kind
        == "command_is_answered"
    )


def test_report_times_are_the_servers_whatever_the_device_says(fleet: Fleet) -> None:
    fleet.sql(
        "insert into public.device_status (device_id, reported_at, device_time) values (%s, '1970-01-01Z', '1970-01-01Z')",
        DEVICE, who="device",
    )  # fmt: skip
    assert fleet.sql(
        "select reported_at > now() - interval '1 hour', device_time from public.device_status where device_time < '1971-01-01Z'"
    )[0][0]


def test_a_device_cannot_fill_the_database_with_one_report(fleet: Fleet) -> None:
    refusal = fleet.refused(
        "insert into public.device_status (device_id, log_tail) values (%s, jsonb_build_array(repeat('x', 70000)))",
        DEVICE, who="device",
    )  # fmt: skip
    assert (refusal.code, "log_tail must be a list of at most 64 kB" in refusal.message) == ("23514", True)


def test_a_device_reports_the_settings_in_force_and_no_flood_of_them(fleet: Fleet) -> None:
    insert = "insert into public.device_status (device_id, settings) values (%s, jsonb_build_object('labels', repeat('x', %s)))"
    refusal = fleet.refused(insert, DEVICE, 32768, who="device")
    assert (refusal.code, "settings must be an object of at most 32 kB" in refusal.message) == ("23514", True)
    fleet.sql(insert, DEVICE, 32700, who="device")
    assert fleet.sql("select length(settings->>'labels') from public.device_status", who="viewer") == [
        (32700,)
    ]


def test_accepting_a_device_makes_it_active_once(fleet: Fleet) -> None:
    pending = fleet.one("select id from public.devices where name = 'pending'")
    fleet.sql("select public.accept_device(%s)", pending, who="operator")
    assert fleet.sql(
        "select state::text, enrolled_at is not null from public.devices where id = %s", pending
    ) == [("active", True)]
    assert (
        fleet.refused("select public.accept_device(%s)", SUSPENDED, who="operator").kind
        == "device_not_pending"
    )
    assert (
        fleet.refused("select public.accept_device(gen_random_uuid())", who="operator").kind
        == "device_unknown"
    )


def test_pinning_names_what_is_missing(fleet: Fleet) -> None:
    assert (
        fleet.refused("select public.pin_device(gen_random_uuid(), %s)", V1, who="operator").kind
        == "device_unknown"
    )
    assert (
        fleet.refused("select public.pin_device(%s, gen_random_uuid())", DEVICE, who="operator").kind
        == "release_unknown"
    )
    fleet.sql("update public.releases set state = 'withdrawn' where id = %s", V1)
    assert (
        fleet.refused("select public.pin_device(%s, %s)", DEVICE, V1, who="operator").kind
        == "release_not_available"
    )


def test_every_change_is_in_the_audit_log_with_who_and_what(fleet: Fleet) -> None:
    fleet.sql("update public.devices set segment = 'early' where id = %s", DEVICE, who="operator")
    fleet.sql("select public.halt_fleet('x')", who="operator")
    fleet.sql("update public.fleet_settings set default_poll_interval_s = 60 where id", who="admin")
    with fleet.connect("postgres") as editor:
        editor.execute("update public.releases set notes = 'by hand' where version = 'v1'")
    rows = fleet.sql(
        "select actor, actor_id, action, table_name, row_id, before, after from public.audit_log order by id",
        who="viewer",
    )
    assert rows[0] == (
        "operator@example.com",
        OPERATOR,
        "update",
        "devices",
        str(DEVICE),
        {"segment": "canary"},
        {"segment": "early"},
    )
    assert (rows[1][2], rows[1][3], rows[1][6]["reason"]) == ("insert", "halts", "x")
    assert rows[2][5:] == ({"default_poll_interval_s": 900}, {"default_poll_interval_s": 60})
    assert rows[3] == ("postgres", None, "update", "releases", str(V1), {"notes": ""}, {"notes": "by hand"})
    assert len(rows) == 4


def test_an_edit_of_many_rows_writes_for_each_what_changed_in_it(fleet: Fleet) -> None:
    fleet.sql("update public.devices set poll_interval_s = 60 where name = 'other'", who="operator")
    fleet.sql(
        "update public.devices set segment = 'stable', labels = case when name = 'device' then '{\"lab\": \"1\"}'::jsonb else labels end, "
        "poll_interval_s = case when name = 'other' then null::int end where name in ('device', 'other', 'suspended')",
        who="operator",
    )
    written = fleet.sql(
        "select d.name, a.action, a.before, a.after from public.audit_log a join public.devices d on d.id::text = a.row_id "
        "where a.at > (select min(at) from public.audit_log) order by d.name"
    )
    assert written == [
        (
            "device",
            "update",
            {"labels": {}, "segment": "canary"},
            {"labels": {"lab": "1"}, "segment": "stable"},
        ),
        ("other", "update", {"poll_interval_s": 60}, {"poll_interval_s": None}),
    ]


def test_an_update_that_changes_nothing_leaves_no_trace(fleet: Fleet) -> None:
    fleet.sql("update public.devices set segment = segment where true", who="operator")
    assert fleet.one("select count(*) from public.audit_log") == 0


def test_the_audit_log_cannot_be_written_or_cleared_through_the_api(fleet: Fleet) -> None:
    fleet.sql("update public.devices set segment = 'early' where id = %s", DEVICE, who="operator")
    for who in ("admin", "service"):
        for statement in (
            "insert into public.audit_log (actor, action, table_name, row_id) values ('x', 'insert', 'y', 'z')",
            "update public.audit_log set actor = 'x' where true",
            "delete from public.audit_log where true",
            "truncate public.audit_log",
        ):
            assert fleet.refused(statement, who=who).code == "42501", f"{who}: {statement}"


def test_a_provisioning_token_is_shown_once_and_kept_as_a_hash(fleet: Fleet) -> None:
    made = fleet.one(
        "select public.create_provisioning_token('beacon', 'canary', max_uses => 5)", who="admin"
    )
    assert made["token"].startswith("fpt_")
    assert (made["segment"], made["branch"], made["max_uses"]) == ("canary", "main", 5)
    assert fleet.one(
        "select token_hash = sha256(convert_to(%s, 'UTF8')) from private.provisioning_tokens", made["token"]
    )
    listed = fleet.sql("select * from public.provisioning_tokens()", who="admin")
    assert made["token"] not in str(listed)
    trace = fleet.one("select after::text from public.audit_log where table_name = 'provisioning_tokens'")
    assert "token_hash" not in trace
    assert made["token"] not in trace
    fleet.sql("select public.revoke_provisioning_token(%s)", made["id"], who="admin")
    assert fleet.one("select revoked_at is not null from private.provisioning_tokens")


@pytest.mark.parametrize(
    ("arguments", "kind"),
    [
        ("'nothing'", "unknown_role"),
        ("'beacon', 'nowhere'", "unknown_segment"),
        ("'beacon', 'canary', 'nix'", "unknown_branch"),
        ("'beacon', max_uses => 0", "bad_max_uses"),
        ("'beacon', valid_for_s => 59", "bad_validity"),
    ],
)
def test_a_provisioning_token_for_nothing_is_refused(fleet: Fleet, arguments: str, kind: str) -> None:
    refusal = fleet.refused(f"select public.create_provisioning_token({arguments})", who="admin")
    assert (refusal.code, refusal.kind) == ("PT400", kind)
