"""Who may, and who may not, with the exact refusal."""

from __future__ import annotations

import pytest

from tests.support.identities import DEVICE, OPERATOR, OTHER, SUSPENDED, V1, V2, VIEWER, Fleet

TABLES = [
    "alerts", "audit_log", "branches", "device_commands", "device_roles", "device_status", "devices",
    "fleet_settings", "halts", "known_bad_patterns", "known_bad_releases", "maintenance_openings", "maintenance_windows", "operators",
    "releases", "roll_back_slots", "rollout_claims", "rollout_stages", "rollout_template_stages", "rollout_templates", "rollouts",
    "segments", "update_history",
]  # fmt: skip
DEVICE_TABLES = {"device_status", "device_commands", "update_history"}


def _fill(fleet: Fleet) -> None:
    """At least one row of each of two devices in every table."""
    for device in (DEVICE, OTHER):
        fleet.sql("insert into public.device_status (device_id) values (%s)", device)
        fleet.sql("insert into public.device_commands (device_id, kind) values (%s, 'restart')", device)
        fleet.sql(
            "insert into public.update_history (id, device_id, release_id, to_commit, outcome, started_at, finished_at) "
            "values (gen_random_uuid(), %s, %s, repeat('2', 40), 'rolled_back', now(), now())",
            device, V2,
        )  # fmt: skip
    fleet.sql("insert into public.maintenance_windows (name) values ('nights')")
    fleet.sql("insert into public.halts (reason) values ('test')")
    fleet.sql(
        "insert into public.known_bad_patterns (release_id, selector, reason, allow_empty) values (%s, '{\"os\": \"x\"}', 'test', true)", V1
    )  # fmt: skip
    fleet.sql(
        "insert into public.maintenance_openings (maintenance_window, starts_at) values ('nights', '02:00')"
    )
    fleet.sql(
        "with r as (insert into public.rollouts (release_id) values (%s) returning id) "
        "insert into public.rollout_stages (rollout_id, position) select id, 1 from r",
        V2,
    )
    fleet.sql(
        "insert into public.rollout_claims (rollout_id, device_id, stage, claimed_at, lease_until, to_release) "
        "select r.id, d.id, 1, now(), now(), %s from public.rollouts r, public.devices d where d.name in ('device', 'other')",
        V2,
    )  # fmt: skip
    fleet.sql(
        "insert into public.roll_back_slots (device_id, from_release, taken_at, lease_until) "
        "select d.id, %s, now(), now() from public.devices d where d.name in ('device', 'other')",
        V2,
    )


def test_each_member_of_the_cast_reads_exactly_what_is_theirs(fleet: Fleet) -> None:
    _fill(fleet)
    for table in TABLES:
        query = f"select count(*) from public.{table}"
        everything = fleet.one(query)
        assert everything >= 1, table
        for who in ("viewer", "operator", "admin", "service"):
            assert fleet.one(query, who=who) == everything, f"{who} reads {table}"
        assert fleet.one(query, who="stranger") == 0, table
        assert fleet.refused(query, who="anon").code == "42501", table
        for who in ("device", "suspended device", "retired device", "pending device", "odd device"):
            if table in DEVICE_TABLES:
                assert fleet.one(query, who=who) == (1 if who == "device" else 0), f"{who} reads {table}"
            else:
                assert fleet.refused(query, who=who).code == "42501", f"{who} reads {table}"


EDITS = {
    "devices": ("update public.devices set segment = 'early' where name = 'device' returning 1", "operator"),
    "new device": (
        "insert into public.devices (name, role) values ('new', 'beacon') returning 1",
        "operator",
    ),
    "pending device": ("delete from public.devices where name = 'pending' returning 1", "operator"),
    "releases": ("insert into public.releases (commit_sha) values (repeat('9', 40)) returning 1", "operator"),
    "withdrawal": (
        "update public.releases set state = 'withdrawn' where version = 'v2' returning 1",
        "operator",
    ),
    "halts": ("insert into public.halts (reason) values ('stop') returning 1", "operator"),
    "lift": ("update public.halts set lift_reason = 'fine' where lifted_at is null returning 1", "operator"),
    "known-bad pattern": (
        f"""insert into public.known_bad_patterns (release_id, selector, reason, allow_empty) values ('{V2}', '{{"os": "x"}}', 'r', true) returning 1""",
        "operator",
    ),
    "lift of a known-bad pattern": (
        "update public.known_bad_patterns set lift_reason = 'fine' where lifted_at is null returning 1",
        "operator",
    ),
    "commands": (
        f"insert into public.device_commands (device_id, kind) values ('{DEVICE}', 'restart') returning 1",
        "operator",
    ),
    "windows": ("insert into public.maintenance_windows (name) values ('days') returning 1", "operator"),
    "segments": ("insert into public.segments (name, position) values ('late', 40) returning 1", "operator"),
    "forgiveness": ("delete from public.known_bad_releases where true returning 1", "operator"),
    "operators": (
        f"update public.operators set rank = 'operator' where user_id = '{VIEWER}' returning 1",
        "admin",
    ),
    "new operator": (
        "insert into public.operators (user_id) values (gen_random_uuid()) returning 1",
        "admin",
    ),
    "settings": (
        "update public.fleet_settings set default_poll_interval_s = 60 where id returning 1",
        "admin",
    ),
}
RANKS = ["viewer", "operator", "admin"]


@pytest.mark.parametrize("edit", sorted(EDITS))
def test_an_edit_needs_its_rank(fleet: Fleet, edit: str) -> None:
    _fill(fleet)
    statement, least = EDITS[edit]
    for who in ["anon", "device", "suspended device", "stranger", *RANKS]:
        if who in RANKS and RANKS.index(who) >= RANKS.index(least):
            continue
        refusal = fleet.refused(statement, who=who)
        if who in ("anon", "device", "suspended device"):
            assert refusal.code == "42501", who
        else:
            kind = "not_an_operator" if who == "stranger" else "rank_too_low"
            assert (refusal.code, refusal.kind) == ("PT403", kind), who
    assert fleet.sql(statement, who=least)


def test_a_device_writes_its_own_rows_and_nobody_elses(fleet: Fleet) -> None:
    fleet.report(V1)
    status = "insert into public.device_status (device_id) values (%s) on conflict (device_id) do update set phase = 'x'"
    attempt = (
        "insert into public.update_history (id, device_id, to_commit, outcome, started_at, finished_at) "
        "values (gen_random_uuid(), %s, repeat('1', 40), 'succeeded', now(), now())"
    )
    for statement in (status, attempt):
        fleet.sql(statement, DEVICE, who="device")
        refusal = fleet.refused(statement, OTHER, who="device")
        assert refusal.code == "42501"
        assert "row-level security" in refusal.message
        assert fleet.refused(statement, SUSPENDED, who="suspended device").code == "42501"
    # An update without naming the device touches only its own row.
    fleet.report(V1, who="other device")
    assert fleet.sql(
        "update public.device_status set phase = 'mine' where true returning device_id", who="device"
    ) == [(DEVICE,)]
    for statement in (
        "update public.update_history set outcome = 'failed' where true",
        "delete from public.update_history where true",
        "delete from public.device_status where true",
        "truncate public.update_history",
    ):
        assert fleet.refused(statement, who="device").code == "42501"


def test_suspending_a_device_takes_effect_on_its_next_request(fleet: Fleet) -> None:
    fleet.report(V1)
    fleet.sql("update public.devices set state = 'suspended' where id = %s", DEVICE, who="operator")
    refusal = fleet.refused("select public.desired_state()", who="device")
    assert (refusal.code, refusal.kind) == ("PT403", "device_suspended")
    assert fleet.one("select count(*) from public.device_status", who="device") == 0
    fleet.sql("update public.devices set state = 'active' where id = %s", DEVICE, who="operator")
    assert fleet.desired()["action"] == "update"


@pytest.mark.parametrize(
    ("who", "kind"),
    [
        ("suspended device", "device_suspended"),
        ("pending device", "device_pending"),
        ("retired device", "device_retired"),
        ("unknown device", "device_unknown"),
        ("odd device", "device_unknown"),
    ],
)
def test_a_device_that_is_not_active_is_told_why(fleet: Fleet, who: str, kind: str) -> None:
    refusal = fleet.refused("select public.desired_state()", who=who)
    assert (refusal.code, refusal.kind) == ("PT403", kind)
    assert refusal.message.endswith(".")
    assert refusal.hint


@pytest.mark.parametrize("who", ["anon", "viewer", "admin", "stranger", "service"])
def test_desired_state_is_for_devices_only(fleet: Fleet, who: str) -> None:
    assert fleet.refused("select public.desired_state()", who=who).code == "42501"


CALLS = {
    "explain_device": (f"select public.explain_device('{DEVICE}')", "viewer"),
    "halt_fleet": ("select public.halt_fleet('stop')", "operator"),
    "lift_halt": ("select public.lift_halt((select id from public.halts limit 1), 'ok')", "operator"),
    "mark_known_bad": (
        f"""select public.mark_known_bad('{V2}', jsonb_build_object('os', gen_random_uuid()), 'stop', allow_empty => true)""",
        "operator",
    ),
    "lift_known_bad": (
        "select public.lift_known_bad((select id from public.known_bad_patterns limit 1), 'ok')",
        "operator",
    ),
    "matching_devices": ("""select public.matching_devices('{"os": "x"}')""", "viewer"),
    "count_devices": ("""select public.count_devices('{"os": "x"}')""", "viewer"),
    "pin_device": (f"select public.pin_device('{DEVICE}', '{V1}')", "operator"),
    "unpin_device": (f"select public.unpin_device('{DEVICE}')", "operator"),
    "accept_device": (
        "select public.accept_device((select id from public.devices where name = 'pending'))",
        "operator",
    ),
    "add_release": (
        "select public.add_release(md5(random()::text) || 'cafe0000', stages => '[{}]')",
        "operator",
    ),
    "create_rollout": (f"select public.create_rollout('{V2}')", "operator"),
    "start_rollout": ("select public.start_rollout((select id from public.rollouts limit 1))", "operator"),
    "cancel_rollout": ("select public.cancel_rollout((select id from public.rollouts limit 1))", "operator"),
    "approve_stage": ("select public.approve_stage((select id from public.rollouts limit 1), 1)", "operator"),
    "rollout_progress": (
        "select public.rollout_progress((select id from public.rollouts limit 1))",
        "viewer",
    ),
    "preview_rollout": ("select public.preview_rollout((select id from public.rollouts limit 1))", "viewer"),
    "create_provisioning_token": ("select public.create_provisioning_token('beacon')", "admin"),
    "replace_device": (f"select public.replace_device('{DEVICE}')", "admin"),
    "provisioning_tokens": ("select * from public.provisioning_tokens()", "admin"),
}


@pytest.mark.parametrize("call", sorted(CALLS))
def test_a_function_needs_its_rank(fleet: Fleet, call: str) -> None:
    _fill(fleet)
    statement, least = CALLS[call]
    assert fleet.refused(statement, who="anon").code == "42501"
    assert fleet.refused(statement, who="device").code == "42501"
    refusal = fleet.refused(statement, who="stranger")
    assert (refusal.code, refusal.kind) == ("PT403", "not_an_operator")
    for who in RANKS[: RANKS.index(least)]:
        refusal = fleet.refused(statement, who=who)
        assert (refusal.code, refusal.kind) == ("PT403", "rank_too_low"), who
    fleet.sql(statement, who=least)
    if call not in ("lift_halt", "lift_known_bad"):
        fleet.sql(statement, who="service")


def test_secrets_of_enrollment_are_out_of_reach(fleet: Fleet) -> None:
    for who in ("anon", "device", "viewer", "admin"):
        assert fleet.refused("select * from private.provisioning_tokens", who=who).code == "42501", who


def test_with_everything_granted_row_level_security_still_holds(fleet: Fleet) -> None:
    """Lite grants ALL on tables to the three API roles; the policies must not need the grants' help."""
    _fill(fleet)
    fleet.sql(
        "grant usage on schema private, public to anon, authenticated, fleet_device; "
        "grant all on all tables in schema public, private to anon, authenticated, fleet_device"
    )
    tables = fleet.sql(
        "select schemaname || '.' || tablename from pg_tables where schemaname in ('public', 'private')"
    )
    for (table,) in tables:
        for who in ("anon", "stranger", "suspended device", "retired device", "odd device"):
            assert fleet.one(f"select count(*) from {table}", who=who) == 0, f"{who} reads {table}"
        own = 1 if table.removeprefix("public.") in DEVICE_TABLES and table.startswith("public.") else 0
        assert fleet.one(f"select count(*) from {table}", who="device") == own, f"device reads {table}"
    assert fleet.sql("update public.devices set segment = 'early' where true returning 1", who="device") == []
    assert fleet.sql("delete from public.update_history where true returning 1", who="device") == []
    refusal = fleet.refused("insert into public.halts (reason) values ('x')", who="anon")
    assert refusal.code == "42501"


@pytest.mark.parametrize(
    ("who", "topic", "may"),
    [
        ("device", f"device:{DEVICE}", True),
        ("device", "segment:canary", True),
        ("device", "segment:stable", False),
        ("device", f"device:{OTHER}", False),
        ("device", "fleet", False),
        ("other device", "segment:stable", True),
        ("suspended device", f"device:{SUSPENDED}", False),
        ("suspended device", "segment:stable", False),
        ("odd device", "device:", False),
        ("viewer", "fleet", True),
        ("viewer", f"device:{DEVICE}", True),
        ("viewer", "segment:canary", True),
        ("viewer", "something else", False),
        ("stranger", "fleet", False),
        ("anon", "fleet", False),
    ],
)
def test_private_topics_are_for_those_they_concern(fleet: Fleet, who: str, topic: str, may: bool) -> None:
    assert fleet.may_listen(who, topic) is may


def test_a_device_has_no_presence(fleet: Fleet) -> None:
    assert not fleet.may_listen("device", f"device:{DEVICE}", extension="presence")


def test_nobody_but_the_database_sends(fleet: Fleet) -> None:
    for who in ("device", "viewer", "admin"):
        fleet.sql("select realtime.send('{}', 'wake', 'fleet')", who=who)
    assert fleet.messages() == []


def test_the_last_admin_stays(fleet: Fleet) -> None:
    refusal = fleet.refused("delete from public.operators where rank = 'admin'", who="admin")
    assert (refusal.code, refusal.kind) == ("PT409", "last_admin")
    fleet.sql("update public.operators set rank = 'admin' where user_id = %s", OPERATOR, who="admin")
    fleet.sql("delete from public.operators where email = 'admin@example.com'", who="admin")
