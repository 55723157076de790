"""Read from the catalog, so that a new table or function without a decision fails here.

On databases that Lite never touched: Lite grants everything to the API roles and would hide a missing grant.
"""

from __future__ import annotations

import re

import pytest

from tests.support.cluster import ROOT
from tests.support.identities import Fleet

ROLES = ("anon", "authenticated", "service_role", "fleet_device")
READ = "select"
EDIT = "select insert update delete"

# Table -> role -> what it may do, before row-level security. A verb with () is allowed on some columns only.
GRANTS: dict[str, dict[str, str]] = {
    "public.alerts": {"authenticated": "select update()", "service_role": "select insert update"},
    "public.maintenance_openings": {"authenticated": EDIT, "service_role": EDIT},
    "public.roll_back_slots": {"authenticated": READ, "service_role": READ},
    "public.rollout_claims": {"authenticated": READ, "service_role": READ},
    "public.rollout_stages": {"authenticated": EDIT, "service_role": EDIT},
    "public.rollout_template_stages": {"authenticated": EDIT, "service_role": EDIT},
    "public.rollout_templates": {"authenticated": EDIT, "service_role": EDIT},
    "public.rollouts": {"authenticated": "select insert update", "service_role": "select insert update"},
    "private.baseline": {},
    "private.reporter_ids": {},
    "private.rollout_counters": {},
    "private.rollout_queue": {},
    "private.tick_state": {},
    "private.timezones": {},
    # What report views read with the rights of their reader; not reachable through the API.
    "private.adoption_days": {"authenticated": READ, "service_role": READ},
    "private.last_outcomes": {"authenticated": READ, "service_role": READ},
    "private.pattern_looks": {"authenticated": READ, "service_role": READ},
    "private.release_patterns": {"authenticated": READ, "service_role": READ},
    "private.report_state": {"authenticated": READ, "service_role": READ},
    "private.signer_counts": {"authenticated": READ, "service_role": READ},
    "private.update_days": {"authenticated": READ, "service_role": READ},
    "private.update_days_now": {"authenticated": READ, "service_role": READ},
    "public.devices_by_state": {"authenticated": READ, "service_role": READ},
    "public.drifted_clocks": {"authenticated": READ, "service_role": READ},
    "public.failure_patterns": {"authenticated": READ, "service_role": READ},
    "public.fleet_last_day": {"authenticated": READ, "service_role": READ},
    "public.fleet_overview": {"authenticated": READ, "service_role": READ},
    "public.offline_devices": {"authenticated": READ, "service_role": READ},
    "public.release_signers": {"authenticated": READ, "service_role": READ},
    "public.slo": {"authenticated": READ, "service_role": READ},
    "public.slo_targets": {"authenticated": "select update", "service_role": "select update"},
    "public.update_durations": {"authenticated": READ, "service_role": READ},
    "public.update_outcomes_per_day": {"authenticated": READ, "service_role": READ},
    "public.version_adoption": {"authenticated": READ, "service_role": READ},
    "public.audit_log": {"authenticated": READ, "service_role": READ},
    "public.branches": {"authenticated": EDIT, "service_role": EDIT},
    "public.device_commands": {
        "authenticated": "select insert update()",
        "service_role": "select insert update",
        "fleet_device": "select update()",
    },
    "public.device_roles": {"authenticated": EDIT, "service_role": EDIT},
    "public.device_status": {
        "authenticated": READ,
        "service_role": "select insert update",
        "fleet_device": "select insert update",
    },
    "public.devices": {"authenticated": EDIT, "service_role": EDIT},
    "public.fleet_settings": {"authenticated": "select update", "service_role": "select update"},
    "public.halts": {"authenticated": "select insert update", "service_role": "select insert update"},
    "public.known_bad_patterns": {
        "authenticated": "select insert update",
        "service_role": "select insert update",
    },
    "public.known_bad_releases": {"authenticated": "select delete", "service_role": "select delete"},
    "public.maintenance_windows": {"authenticated": EDIT, "service_role": EDIT},
    "public.operators": {"authenticated": EDIT, "service_role": EDIT},
    "public.releases": {"authenticated": "select insert update", "service_role": "select insert update"},
    "public.segments": {"authenticated": EDIT, "service_role": EDIT},
    "public.update_history": {
        "authenticated": READ,
        "service_role": "select insert",
        "fleet_device": "select insert",
    },
    "private.provisioning_tokens": {"service_role": "select update"},
}
# Role -> functions it may call, trigger functions aside.
CALLABLE: dict[str, set[str]] = {
    "anon": set(),
    "fleet_device": {"public.desired_state"},
    "authenticated": {
        "public.accept_device",
        "public.adoption_over_time",
        "public.change_devices",
        "public.device_timeline",
        "public.halt_reach",
        "public.list_devices",
        "public.open_halts",
        "public.open_rollouts",
        "public.approve_stage",
        "public.cancel_rollout",
        "public.add_release",
        "public.create_rollout",
        "public.pause_rollout",
        "public.preview_going_back",
        "public.preview_rollout",
        "public.replay_halt_rule",
        "public.resume_rollout",
        "public.rollout_progress",
        "public.start_rollout",
        "public.create_provisioning_token",
        "public.explain_device",
        "public.halt_fleet",
        "public.lift_halt",
        "public.lift_known_bad",
        "public.mark_known_bad",
        "public.matching_devices",
        "public.count_devices",
        "public.pin_device",
        "public.provisioning_tokens",
        "public.replace_device",
        "public.revoke_provisioning_token",
        "public.undo_changes",
        "public.unpin_device",
    },
}
# Helpers of policies and functions: they tell a caller only about itself.
HELPERS: dict[str, set[str]] = {
    "anon": set(),
    "fleet_device": {
        "private.caller_role", "private.claimed_id", "private.claims", "private.device_id",
        "private.device_is_active", "private.device_segment", "private.is_one_line", "private.is_plain_text",
        "private.key_number", "private.operator_is", "private.operator_rank",
    },
    "authenticated": {
        "private.actor_id", "private.actor_name", "private.caller_role", "private.claimed_id", "private.claims",
        "private.device_id", "private.device_is_active", "private.device_segment", "private.key_number", "private.is_trusted",
        "private.is_one_line", "private.is_plain_text",
        "private.operator_is", "private.operator_rank", "private.refuse", "private.refuse_unknown", "private.require_rank",
        "private.copy_template_stages", "private.next_segment_position", "private.outlook", "private.set_rollout_state",
        # Of reports: under the reader's row-level security, or of their arguments alone.
        "private.clock_offset", "private.counted", "private.failure_patterns", "private.is_offline", "private.is_passing", "private.two_digits",
        # Of selectors, likewise.
        "private.attributes_match", "private.checked_selector", "private.checked_values", "private.describe_selector",
        "private.device_matches", "private.devices_of", "private.has_labels", "private.label_choices", "private.one_or_many",
        "private.refuse_selector", "private.releases_named", "private.report_matches", "private.reported_by",
        "private.selector_of", "private.values_of", "private.searched_text", "private.shown_state", "private.shown_states",
        "private.text_matches",
        # Of undoing, which is an edit by the caller.
        "private.still_has", "private.undo_statement", "private.writable_columns",
        # Of the list of devices and its bulk changes, likewise; note_bulk_change writes to the audit log who asked.
        "private.changed_device", "private.checked_change", "private.meant_by", "private.natural_order",
        "private.note_bulk_change", "private.put_change", "private.to_uuid", "private.version_order",
    },
}  # fmt: skip
OURS = "n.nspname in ('public', 'private')"
# The tables and functions of enrollment are the functions part's own, reachable by the service key only.
PARTITION = re.compile(r"^private\.update_history_(default|\d{4}_\d{2})$")


def _tables(fleet: Fleet) -> list[str]:
    rows = fleet.sql(
        f"select n.nspname || '.' || c.relname from pg_class c join pg_namespace n on n.oid = c.relnamespace "
        f"where {OURS} and c.relkind in ('r', 'p', 'v', 'm', 'f') order by 1"
    )
    return [row[0] for row in rows]


def _may(fleet: Fleet, role: str, table: str) -> str:
    found = []
    for verb in ("select", "insert", "update", "delete"):
        if fleet.one("select has_table_privilege(%s, %s, %s)", role, table, verb):
            found.append(verb)
        elif verb != "delete" and fleet.one("select has_any_column_privilege(%s, %s, %s)", role, table, verb):
            found.append(f"{verb}()")
    for verb in ("truncate", "references", "trigger"):
        if fleet.one("select has_table_privilege(%s, %s, %s)", role, table, verb):
            found.append(verb)
    return " ".join(found)


def test_every_table_is_granted_exactly_what_was_decided(bare: Fleet) -> None:
    for table in _tables(bare):
        decided = GRANTS.get(table, {})
        roles: tuple[str, ...] = ROLES
        if table not in GRANTS:
            assert table.startswith("private."), f"no decision about {table}: add it to GRANTS"
            # Private tables of other parts: nothing for anybody but the service key.
            roles = ("anon", "authenticated", "fleet_device")
        for role in roles:
            assert _may(bare, role, table) == decided.get(role, ""), f"{role} on {table}"


def test_row_level_security_is_on_for_every_table(bare: Fleet) -> None:
    rows = bare.sql(
        f"select c.oid::regclass::text from pg_class c join pg_namespace n on n.oid = c.relnamespace "
        f"where {OURS} and c.relkind in ('r', 'p') and not c.relrowsecurity"
    )
    assert rows == []


def test_policies_name_their_roles_and_never_public_or_anon(bare: Fleet) -> None:
    rows = bare.sql(
        "select tablename, policyname, roles::text[] from pg_policies where schemaname in ('public', 'private', 'realtime')"
    )
    assert rows
    for table, policy, roles in rows:
        assert set(roles) <= {"authenticated", "fleet_device"}, f"{policy} on {table}"
        assert len(roles) == 1, f"{policy} on {table}: one policy per role"


def test_views_run_with_the_rights_of_their_reader(bare: Fleet) -> None:
    rows = bare.sql(
        f"select c.oid::regclass::text from pg_class c join pg_namespace n on n.oid = c.relnamespace "
        f"where {OURS} and c.relkind = 'v' and not coalesce(c.reloptions @> array['security_invoker=true'], false)"
    )
    assert rows == []


@pytest.mark.parametrize("role", sorted(CALLABLE))
def test_each_role_may_call_exactly_what_was_decided(bare: Fleet, role: str) -> None:
    rows = bare.sql(
        f"select distinct n.nspname || '.' || p.proname from pg_proc p join pg_namespace n on n.oid = p.pronamespace "
        f"where {OURS} and p.prorettype <> 'trigger'::regtype and has_function_privilege(%s, p.oid, 'execute')",
        role,
    )
    assert {row[0] for row in rows} == CALLABLE[role] | HELPERS[role]


def test_no_function_is_open_to_public(bare: Fleet) -> None:
    rows = bare.sql(
        f"select p.oid::regprocedure::text from pg_proc p join pg_namespace n on n.oid = p.pronamespace "
        f"where {OURS} and (p.proacl is null or p.proacl::text like '%%{{=X/%%' or p.proacl::text like '%%,=X/%%')",
    )
    assert rows == []


def test_every_function_fixes_its_search_path(bare: Fleet) -> None:
    """Or has a body that was bound when it was created, which no search_path can change."""
    rows = bare.sql(
        f"select p.oid::regprocedure::text from pg_proc p join pg_namespace n on n.oid = p.pronamespace "
        f"where {OURS} and p.prosqlbody is null and not coalesce(p.proconfig @> array['search_path=\"\"'], false)"
    )
    assert rows == []


def test_every_definer_function_says_why_it_is_one_and_is_owned_by_postgres(bare: Fleet) -> None:
    rows = bare.sql(
        f"select p.oid::regprocedure::text, p.prosrc, r.rolname, p.prorettype = 'trigger'::regtype "
        f"from pg_proc p join pg_namespace n on n.oid = p.pronamespace join pg_roles r on r.oid = p.proowner "
        f"where {OURS} and p.prosecdef"
    )
    assert len(rows) > 10
    for name, source, owner, is_trigger in rows:
        assert owner == "postgres", name
        assert is_trigger or re.search(r"-- .*definer", source, re.IGNORECASE), f"{name} does not say why"


def test_every_table_and_every_function_has_a_comment(bare: Fleet) -> None:
    uncommented = bare.sql(
        f"select c.oid::regclass::text from pg_class c join pg_namespace n on n.oid = c.relnamespace "
        f"where {OURS} and c.relkind in ('r', 'p', 'v') and obj_description(c.oid, 'pg_class') is null"
    )
    assert uncommented == []
    silent = bare.sql(
        "select p.oid::regprocedure::text from pg_proc p where p.pronamespace = 'public'::regnamespace and obj_description(p.oid, 'pg_proc') is null"
    )
    assert silent == []


#: Says everything by its name, in whatever table.
OBVIOUS = {
    "id", "at", "name", "email", "description", "notes", "version", "summary", "action", "table_name", "error", "unit",
    "device_id", "release_id", "rollout_id", "from_commit", "to_commit", "branch", "template", "maintenance_window",
    "hardware_model", "os", "agent_version", "booted_at", "created_at", "created_by", "updated_at",
    "opened_at", "opened_by", "lifted_at", "lifted_by", "resolved_at", "acknowledged_by", "approved_by",
    "requested_at", "requested_by", "answered_at", "started_at", "started_by", "ended_at", "finished_at", "claimed_at",
}  # fmt: skip


def test_every_column_that_its_name_does_not_explain_has_a_comment(bare: Fleet) -> None:
    bare_names = bare.sql(
        "select c.relname || '.' || a.attname, a.attname from pg_class c "
        "join pg_attribute a on a.attrelid = c.oid and a.attnum > 0 and not a.attisdropped "
        "where c.relnamespace = 'public'::regnamespace and c.relkind in ('r', 'p') and not c.relispartition "
        "and col_description(c.oid, a.attnum) is null"
    )
    assert [full for full, name in bare_names if name not in OBVIOUS] == []


#: Columns of text or ids that people may write and that no list of choices can be for.
FREE_TEXT = {
    "branches.description", "device_roles.description", "maintenance_windows.description", "segments.description",
    "rollout_templates.description", "devices.name", "rollouts.name", "rollouts.notes", "releases.notes",
    "releases.version", "releases.commit_sha", "devices.hold_reason", "halts.reason",
    "halts.lift_reason", "known_bad_patterns.reason", "known_bad_patterns.lift_reason", "operators.email", "slo_targets.description", "slo_targets.unit",
    # What the device says, until somebody knows better.
    "devices.hardware_model", "devices.os", "devices.public_key",
    # A trigger refuses what does not exist, in words: more than 400 zones; one column for six kinds of target.
    "devices.timezone", "halts.target",
    # Policy's word; a person leaves it at its default.
    "halts.cause", "known_bad_patterns.cause",
    # Stamped by triggers with who it was.
    "device_commands.requested_by", "halts.opened_by", "halts.lifted_by", "known_bad_patterns.opened_by",
    "known_bad_patterns.lifted_by", "releases.created_by",
    "rollout_stages.approved_by", "rollouts.created_by", "rollouts.started_by",
}  # fmt: skip


def test_what_a_person_chooses_is_chosen_from_a_list(bare: Fleet) -> None:
    """An enum or a foreign key is a dropdown in the table editor."""
    typed = bare.sql(
        "select c.relname || '.' || a.attname from pg_class c "
        "join pg_attribute a on a.attrelid = c.oid and a.attnum > 0 and not a.attisdropped "
        "where c.relnamespace = 'public'::regnamespace and c.relkind in ('r', 'p') and not c.relispartition "
        "and a.atttypid in ('text'::regtype, 'uuid'::regtype) "
        "and (has_table_privilege('authenticated', c.oid, 'insert') "
        "or has_column_privilege('authenticated', c.oid, a.attnum, 'update')) "
        "and not exists (select from pg_constraint k where k.conrelid = c.oid and k.contype in ('f', 'p') "
        "and a.attnum = any(k.conkey))"
    )
    assert {name for (name,) in typed} == FREE_TEXT


def test_checks_of_public_tables_are_named_as_sentences(bare: Fleet) -> None:
    """The name is what a person in the table editor reads when the check says no."""
    rows = bare.sql(
        "select conrelid::regclass::text, conname from pg_constraint "
        "where contype = 'c' and connamespace = 'public'::regnamespace"
    )
    assert rows
    for table, name in rows:
        assert name.count(" ") >= 2, f"{table}: {name}"


def test_no_function_updates_or_deletes_without_where(bare: Fleet) -> None:
    """Hosted preloads safeupdate for API roles: such a statement fails there, in functions too."""
    rows = bare.sql(
        f"select p.oid::regprocedure::text, p.prosrc from pg_proc p join pg_namespace n on n.oid = p.pronamespace where {OURS}"
    )
    for name, source in rows:
        code = re.sub(r"--[^\n]*", "", source)
        for statement in re.findall(r"\b(?:update\s+[a-z_.]+\s+\w*\s*set|delete\s+from)\b[^;]*", code):
            assert re.search(r"\bwhere\b", statement), f"{name}: {statement}"


def test_arguments_of_exposed_functions_need_no_quotes(bare: Fleet) -> None:
    """Lite writes `name := value` as the caller sent the name. A word of the grammar, or capitals, break there."""
    rows = bare.sql(
        "select p.oid::regprocedure::text, a.name from pg_proc p, "
        "unnest(p.proargnames[1:p.pronargs]) as a(name) where p.pronamespace = 'public'::regnamespace"
    )
    assert ("approve_stage(uuid,integer)", "stage") in rows
    # C may name a column but no argument; R is reserved.
    words = {row[0] for row in bare.sql("select word from pg_get_keywords() where catcode in ('C', 'R')")}
    assert "position" in words
    for function, name in rows:
        assert re.fullmatch(r"[a-z_][a-z0-9_]*", name), f"{function}: {name}"
        assert name not in words, f"{function}: {name}"


def test_triggers_only_run_functions_nobody_may_call(bare: Fleet) -> None:
    rows = bare.sql(
        f"select p.oid::regprocedure::text, r.rolname from pg_proc p join pg_namespace n on n.oid = p.pronamespace, "
        f"pg_roles r where {OURS} and p.prorettype = 'trigger'::regtype and r.rolname = any(%s) "
        f"and has_function_privilege(r.oid, p.oid, 'execute')",
        list(ROLES),
    )
    assert rows == []


def test_what_reads_a_whole_audience_has_the_settings_for_it(bare: Fleet) -> None:
    """On a server that has it (Debian's), jit made each of them ten times as slow on a small fleet."""
    wrong = bare.sql(
        "select p.proname from pg_proc p where p.prosrc ~ 'private[.]rollout_devices[(]' "
        "except select p.proname from pg_proc p "
        "where p.proconfig @> array['jit=off', 'work_mem=64MB', 'plan_cache_mode=force_custom_plan']"
    )
    assert wrong == []


def test_page_for_integrators_names_everything_that_the_api_serves(bare: Fleet) -> None:
    """docs/usage/integrators.md, from "What there is" on; and each topic that a policy lets somebody listen to."""
    page = (ROOT / "docs" / "usage" / "integrators.md").read_text(encoding="utf-8")
    lists = page[page.index("## What there is") :]
    served = bare.sql(
        "select relname from pg_class "
        "where relnamespace = 'public'::regnamespace and relkind in ('r', 'p', 'v') "
        "union select proname from pg_proc p "
        "where pronamespace = 'public'::regnamespace and exists (select from pg_roles r "
        "  where rolname in ('authenticated', 'service_role', 'fleet_device') "
        "    and has_function_privilege(r.oid, p.oid, 'execute'))"
    )
    named = set(re.findall(r"`(\w+)`", lists))
    assert {name for (name,) in served} - named == set()
    topics = {
        name.partition(":")[0] for name in re.findall(r"^\| `([a-z]+(?::<\w+>)?)` \|", lists, re.MULTILINE)
    }
    policies = bare.sql("select qual from pg_policies where schemaname = 'realtime'")
    allowed = set(re.findall(r"'(fleet|[a-z]+:)%?'", " ".join(qual for (qual,) in policies)))
    assert topics == {name.rstrip(":") for name in allowed}
