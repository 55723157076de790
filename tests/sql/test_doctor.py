"""`fleetctl doctor` finds what is wrong with a database, whoever runs it, and changes nothing."""

from __future__ import annotations

import pytest

from fleetctl.doctor import ControlPlane, Finding, Kind, State, examine
from tests.support.cluster import MIGRATIONS
from tests.support.identities import Fleet

IN_DATABASE = ("migrations", "baseline", "roles", "grants", "jobs", "admin")
#: What a project has when it is set up: an admin, and a scheduler that runs.
SET_UP = """
insert into public.operators (user_id, email, rank)
  values ('a0000000-0000-4000-8000-000000000001', 'ada@example.com', 'admin');
select private.tick(now());
"""


def found(fleet: Fleet, *only: str, kind: Kind = Kind.EMBEDDED) -> dict[str, Finding]:
    url = fleet.cluster.url(fleet.database, "postgres")
    plane = ControlPlane("http://127.0.0.1:1", kind, MIGRATIONS, key="sb_secret_x", db_url=url)
    findings = list(examine(plane, only or IN_DATABASE))
    assert all(bool(finding.todo) != (finding.state is State.OK) for finding in findings)
    return {finding.check: finding for finding in findings}


def test_database_that_is_set_up_has_nothing_to_fix(bare: Fleet) -> None:
    bare.admin.execute(SET_UP.encode())
    findings = found(bare)
    assert [finding.sentence for finding in findings.values() if finding.state is not State.OK] == []
    assert tuple(findings) == IN_DATABASE


@pytest.mark.parametrize(
    ("damage", "check", "sentence"),
    [
        ("grant select on public.devices to anon", "grants", "anon may select devices"),
        ("grant insert on public.halts to fleet_device", "grants", "fleet_device may insert halts"),
        ("grant select on public.halts to public", "grants", "PUBLIC may select halts"),
        ("grant execute on function public.pin_device to anon", "grants", "anon may call pin_device(uuid,uuid)"),
        ("revoke select on public.devices from authenticated", "grants",
         "authenticated lacks select on public.devices"),
        ("revoke execute on function public.desired_state from fleet_device", "grants",
         "fleet_device lacks execute on public.desired_state("),
        ("revoke usage on schema private from authenticated", "grants", "authenticated lacks usage on private"),
        ("set role postgres; revoke select on realtime.messages from fleet_device; reset role", "grants",
         "fleet_device lacks select on realtime.messages"),
        ("alter table public.devices disable row level security", "grants", "devices has no row-level security"),
        ("alter table private.tick_state disable row level security", "grants",
         "private.tick_state has no row-level security"),
        ("delete from supabase_migrations.schema_migrations where version in "
         "(select max(version) from supabase_migrations.schema_migrations)", "migrations",
         "1 of"),
        ("insert into supabase_migrations.schema_migrations (version) values ('20990101000000')", "migrations",
         "not in this checkout: 20990101000000"),
        ("update private.baseline set text_hash = repeat('0', 64)", "baseline", "another text"),
        ("delete from public.operators", "admin", "Nobody is admin."),
        ("update private.tick_state set last_run = now() - interval '2 hours'", "jobs", "120 minutes ago"),
        ("delete from private.tick_state", "jobs", "The scheduler ran last never."),
        ("select private.open_alert('tick_failing', 'critical', 'The scheduler cannot do \"leases\": x.', now())",
         "jobs", 'The scheduler cannot do "leases": x.'),
    ],
)  # fmt: skip
def test_damage_is_named_with_what_to_do(bare: Fleet, damage: str, check: str, sentence: str) -> None:
    bare.admin.execute(SET_UP.encode())
    bare.admin.execute("alter table public.operators disable trigger user")
    bare.admin.execute(damage.encode())
    finding = found(bare, check)[check]
    assert finding.state is State.FIX
    assert sentence in finding.sentence
    assert finding.todo


@pytest.mark.parametrize(
    ("change", "back", "sentence"),
    [
        ("alter role fleet_device createrole", "alter role fleet_device nocreaterole", "may make roles"),
        ("alter role fleet_device login", "alter role fleet_device nologin", "may log in"),
        ("revoke fleet_device from authenticator", "grant fleet_device to authenticator", "is not granted"),
    ],
)
def test_role_of_devices_that_was_changed_is_named(
    bare: Fleet, change: str, back: str, sentence: str
) -> None:
    bare.admin.execute(f"set role postgres; {change}; reset role".encode())
    try:
        finding = found(bare, "roles")["roles"]
    finally:
        bare.admin.execute(f"set role postgres; {back}; reset role".encode())
    assert finding.state is State.FIX
    assert sentence in finding.sentence


def test_without_pg_cron_nothing_calls_the_scheduler_of_a_project(bare: Fleet) -> None:
    bare.admin.execute(SET_UP.encode())
    finding = found(bare, "jobs", kind=Kind.HOSTED)["jobs"]
    assert (finding.state, finding.sentence) == (
        State.FIX,
        "pg_cron is not on, so nothing happens by the clock.",
    )
    assert "select private.schedule_tick()" in finding.todo


def test_empty_database_is_told_what_to_do_first(bare: Fleet) -> None:
    """Before `supabase db push`: each check says so, none fails."""
    with bare.cluster.connect(bare.database) as admin:
        admin.execute("drop schema public cascade; create schema public")
        admin.execute("drop schema private cascade")
        admin.execute("truncate supabase_migrations.schema_migrations")
    findings = found(bare)
    assert "migrations are missing, the first is " in findings["migrations"].sentence
    assert {finding.check for finding in findings.values() if finding.state is State.OK} == {"roles"}
