"""Rollouts: whom they select, what supersedes them, how they are paused, resumed, cancelled; mandatory releases."""

from __future__ import annotations

import pytest

from tests.support.identities import DEVICE, OTHER, V1, V2, Fleet, detail, gates
from tests.support.profiles import OLDER_SERVER_IN_FULL
from tests.support.rollout_builders import (
    V3,
    ask,
    finish,
    roll_out,
    state,
)

pytestmark = OLDER_SERVER_IN_FULL

# Selectors, supersession, what is outside a rollout


def test_role_and_labels_select(fleet: Fleet) -> None:
    fleet.sql('update public.devices set labels = \'{"site": "rome", "floor": "1"}\' where id = %s', DEVICE)
    rollout = roll_out(fleet, selector={"labels": {"site": "rome"}})
    assert ask(fleet)["rollout_id"] == str(rollout)
    assert ask(fleet, OTHER)["rollout_id"] is None
    fleet.sql("insert into public.device_roles (name) values ('kiosk')")
    roll_out(fleet, role="kiosk", release=V1)
    assert ask(fleet)["rollout_id"] == str(rollout)


def test_a_newer_rollout_for_the_same_devices_takes_over(fleet: Fleet) -> None:
    first = roll_out(fleet, release=V1)
    ask(fleet)
    second = roll_out(fleet, release=V2)
    assert (state(fleet, first), state(fleet, second)) == ("superseded", "running")
    # Who holds a slot in the old one may finish it; the newer one is for everybody.
    assert ask(fleet, OTHER)["rollout_id"] == str(second)
    finish(fleet, first, release=V1)
    assert (
        fleet.one("select state::text from public.rollout_claims where rollout_id = %s", first) == "succeeded"
    )


def test_a_rollout_with_another_selector_runs_beside(fleet: Fleet) -> None:
    first = roll_out(fleet, release=V1)
    roll_out(fleet, release=V2, selector={"labels": {"site": "rome"}})
    assert state(fleet, first) == "running"
    assert ask(fleet)["rollout_id"] == str(first)


def test_a_release_with_a_rollout_reaches_nobody_outside_of_it(fleet: Fleet) -> None:
    """A draft, a cancelled rollout, a stage not open: the release must not leak to the whole branch."""
    rollout = roll_out(fleet, {"segment": "canary"}, start=False)
    assert ask(fleet)["release"]["id"] == str(V1)
    fleet.sql("select public.start_rollout(%s)", rollout, who="operator")
    fleet.sql("select public.cancel_rollout(%s)", rollout, who="operator")
    assert ask(fleet)["release"]["id"] == str(V1)


def test_after_a_cancelled_rollout_nobody_goes_back_by_itself(fleet: Fleet) -> None:
    rollout = roll_out(fleet)
    ask(fleet)
    finish(fleet, rollout)
    fleet.sql("select public.cancel_rollout(%s)", rollout, who="operator")
    answer = ask(fleet)
    assert (answer["action"], answer["release"]["id"]) == ("run", str(V2))
    assert detail(answer, "rollout") == "v2 is kept here, though its rollout is cancelled."
    # A cancel gives it to nobody else.
    assert ask(fleet, OTHER)["release"]["id"] == str(V1)


@pytest.mark.parametrize("allowed", [False, True])
def test_a_downgrade_happens_only_when_said(fleet: Fleet, allowed: bool) -> None:
    fleet.report(V2)
    roll_out(fleet, release=V1, allow_downgrade=allowed)
    answer = ask(fleet)
    assert answer["action"] == ("update" if allowed else "run")
    assert gates(answer)["downgrade"] == ("pass" if allowed else "refuse")


def test_a_late_device_still_gets_a_completed_rollout(fleet: Fleet) -> None:
    rollout = roll_out(fleet)
    ask(fleet)
    finish(fleet, rollout)
    assert state(fleet, rollout) == "completed"
    assert ask(fleet, OTHER)["rollout_id"] == str(rollout)


def test_a_branch_may_require_rollouts(fleet: Fleet) -> None:
    fleet.sql("update public.branches set delivery = 'rollout_only' where name = 'main'", who="operator")
    answer = ask(fleet)
    assert (answer["action"], gates(answer)["release"]) == ("run", "wait")
    roll_out(fleet)
    assert ask(fleet)["action"] == "update"


def test_a_push_makes_the_usual_rollout_by_itself(fleet: Fleet) -> None:
    fleet.sql("update public.branches set rollout_template = 'staged' where name = 'main'", who="operator")
    fleet.sql(
        "update public.branches set rollout_template = 'at-once' where name = 'staging'", who="operator"
    )
    fleet.messages()
    fleet.sql("insert into public.releases (id, commit_sha) values (%s, repeat('9', 40))", V3, who="operator")
    assert fleet.woken() == {f"device:{DEVICE}": "stage_opened"}
    assert ask(fleet)["release"]["id"] == str(V3)
    assert ask(fleet, OTHER)["release"]["id"] == str(V2)
    rollout = fleet.one("select id from public.rollouts")
    assert len(fleet.sql("select 1 from public.rollout_stages where rollout_id = %s", rollout)) == 4


def test_a_withdrawn_release_is_rolled_out_to_nobody(fleet: Fleet) -> None:
    roll_out(fleet)
    fleet.sql("update public.releases set state = 'withdrawn' where id = %s", V2, who="operator")
    assert ask(fleet)["release"]["id"] == str(V1)


# Pause, resume, cancel, and their refusals


def test_a_paused_rollout_gives_no_new_slots_and_lets_holders_finish(fleet: Fleet) -> None:
    rollout = roll_out(fleet)
    ask(fleet)
    fleet.sql("select public.pause_rollout(%s)", rollout, who="operator")
    assert ask(fleet)["action"] == "update"
    waiting = ask(fleet, OTHER)
    assert (waiting["action"], gates(waiting)["rollout"]) == ("run", "wait")
    fleet.sql("select public.resume_rollout(%s)", rollout, who="operator")
    assert ask(fleet, OTHER)["action"] == "update"


def test_a_rollout_runs_with_row_edits_alone(fleet: Fleet) -> None:
    """Nothing but the table editor."""
    rollout = fleet.one(
        "insert into public.rollouts (release_id) values (%s) returning id", V2, who="operator"
    )
    fleet.sql(
        "insert into public.rollout_stages (rollout_id, position) values (%s, 1)",
        rollout,
        who="operator",
    )
    fleet.sql("update public.rollouts set state = 'running' where id = %s", rollout, who="operator")
    assert fleet.sql("select name, branch, started_by is not null from public.rollouts") == [
        ("v2", "main", True)
    ]
    assert ask(fleet)["rollout_id"] == str(rollout)
    halt = fleet.one(
        "insert into public.halts (scope, target, reason) values ('rollout', %s, 'smoke in the lab') returning id",
        str(rollout), who="operator",
    )  # fmt: skip
    assert gates(ask(fleet, OTHER))["release_halt"] == "wait"
    fleet.sql(
        "update public.halts set lift_reason = 'the toaster' where id = %s",
        halt,
        who="operator",
    )
    assert ask(fleet, OTHER)["action"] == "update"
    fleet.sql("update public.devices set pinned_release = %s where id = %s", V1, OTHER, who="operator")
    assert ask(fleet, OTHER)["release"]["id"] == str(V1)
    for left in ("paused", "running", "cancelled"):
        fleet.sql("update public.rollouts set state = %s where id = %s", left, rollout, who="operator")
        assert state(fleet, rollout) == left


@pytest.mark.parametrize(
    "edit",
    [
        "insert into public.rollouts (release_id) values ('{v2}') returning 1",
        "update public.rollouts set state = 'paused' where id = '{r}' returning 1",
        "update public.rollout_stages set max_in_flight = 1 where rollout_id = '{r}' returning 1",
        "insert into public.halts (reason) values ('a viewer tries') returning 1",
        "update public.devices set pinned_release = '{v2}' returning 1",
        "insert into public.rollout_templates (name) values ('mine') returning 1",
    ],
)
def test_a_viewer_reads_rollouts_and_edits_none(fleet: Fleet, edit: str) -> None:
    rollout = roll_out(fleet)
    assert fleet.one("select count(*) from public.rollouts", who="viewer") == 1
    tried = edit.format(v2=V2, r=rollout)
    refusal = fleet.refused(tried, who="viewer")
    assert (refusal.code, refusal.kind) == ("PT403", "rank_too_low")


@pytest.mark.parametrize(
    ("edit", "kind"),
    [
        (
            "insert into public.rollouts (release_id, state) values ('{v2}', 'running')",
            "rollout_starts_as_draft",
        ),
        ("insert into public.rollouts (release_id, branch) values ('{v2}', 'staging')", "branch_mismatch"),
        ("insert into public.rollouts (release_id) values (gen_random_uuid())", "release_unknown"),
        ("update public.rollouts set state = 'draft' where id = '{r}'", "rollout_state"),
        ("update public.rollouts set release_id = '{v1}' where id = '{r}'", "rollout_is_fixed"),
        (
            "update public.rollouts set selector = '{{\"os\": \"b\"}}' where id = '{r}'",
            "rollout_is_fixed",
        ),
        ("update public.rollout_stages set opened_at = null where rollout_id = '{r}'", "stage_is_open"),
        ("update public.rollout_stages set position = 7 where rollout_id = '{r}'", "stage_is_fixed"),
        ("delete from public.rollout_stages where rollout_id = '{r}'", "stage_is_open"),
        ("select public.start_rollout(gen_random_uuid())", "rollout_unknown"),
        ("select public.create_rollout('{v2}', stages => '[]')", "bad_stages"),
        ("select public.create_rollout('{v2}', template => 'nope')", "unknown_template"),
        ("select public.create_rollout('{v2}', options => '{{\"speed\": 1}}')", "unknown_option"),
        ("select public.create_rollout('{v2}', stages => '[{{\"ring\": 1}}]')", "unknown_option"),
        (
            "insert into public.halts (scope, target, reason) values ('rollout', gen_random_uuid()::text, 'x')",
            "unknown_target",
        ),
        (
            "insert into public.halts (scope, reason, roll_back) values ('fleet', 'x', true)",
            "roll_back_scope",
        ),
    ],
)
def test_nonsense_about_rollouts_is_refused_in_words(fleet: Fleet, edit: str, kind: str) -> None:
    rollout = roll_out(fleet)
    refusal = fleet.refused(edit.format(r=rollout, v1=V1, v2=V2), who="operator")
    assert (refusal.kind, refusal.code[:2]) == (kind, "PT")
    assert refusal.message.endswith(".")
    assert refusal.hint.endswith(".")


def test_a_rollout_without_stages_or_of_a_withdrawn_release_does_not_start(fleet: Fleet) -> None:
    bare = fleet.one("insert into public.rollouts (release_id) values (%s) returning id", V2)
    assert fleet.refused("select public.start_rollout(%s)", bare, who="operator").kind == "no_stages"
    draft = roll_out(fleet, start=False)
    assert fleet.refused("select public.resume_rollout(%s)", draft, who="operator").kind == "rollout_state"
    fleet.sql("update public.releases set state = 'withdrawn' where id = %s", V2)
    assert (
        fleet.refused("select public.start_rollout(%s)", draft, who="operator").kind
        == "release_not_available"
    )


@pytest.mark.parametrize("end", ["cancel_rollout"])
def test_an_ended_rollout_does_not_start_again(fleet: Fleet, end: str) -> None:
    rollout = roll_out(fleet)
    fleet.sql(f"select public.{end}(%s)", rollout, who="operator")
    for function in ("start_rollout", "pause_rollout", "resume_rollout"):
        assert fleet.refused(f"select public.{function}(%s)", rollout, who="operator").kind == "rollout_state"


# Releases that may not be skipped


def _three(fleet: Fleet) -> None:
    """v1, then v2, then v3, which needs v2."""
    fleet.sql(
        "insert into public.releases (id, commit_sha, version, requires_release) values (%s, repeat('9', 40), 'v3', %s)",
        V3, V2, who="operator",
    )  # fmt: skip


def test_a_device_goes_through_a_mandatory_release_first(fleet: Fleet) -> None:
    fleet.report(V1)
    second = roll_out(fleet)
    ask(fleet, OTHER)
    finish(fleet, second, OTHER)
    assert state(fleet, second) == "completed"
    _three(fleet)
    third = roll_out(fleet, release=V3)
    answer = ask(fleet)
    assert (answer["rollout_id"], answer["release"]["id"]) == (str(second), str(V2))
    assert detail(answer, "stepping_stone") == "v3 needs v2 first."
    finish(fleet, second)
    assert ask(fleet)["rollout_id"] == str(third)


def test_a_step_that_is_withdrawn_says_what_a_person_can_do(fleet: Fleet) -> None:
    fleet.report(V1)
    _three(fleet)
    roll_out(fleet, release=V3)
    fleet.sql("update public.releases set state = 'withdrawn' where id = %s", V2)
    answer = ask(fleet)
    assert answer["action"] == "run"
    (told,) = [gate for gate in answer["gates"] if gate["gate"] == "stepping_stone"]
    assert (told["detail"], told["hint"]) == (
        "v3 needs v2 first, which is withdrawn.", "Set v2 back to available, or empty requires_release of v3.",
    )  # fmt: skip


def test_without_rollouts_the_step_is_taken_too(fleet: Fleet) -> None:
    fleet.report(V1)
    _three(fleet)
    assert ask(fleet)["release"]["id"] == str(V2)
    fleet.report(V2)
    assert ask(fleet)["release"]["id"] == str(V3)


def test_a_device_that_runs_nothing_skips_the_step(fleet: Fleet) -> None:
    _three(fleet)
    assert ask(fleet)["release"]["id"] == str(V3)


def test_a_pin_does_not_jump_over_a_mandatory_release(fleet: Fleet) -> None:
    fleet.report(V1)
    _three(fleet)
    fleet.sql("select public.pin_device(%s, %s)", DEVICE, V3, who="operator")
    answer = ask(fleet)
    assert (answer["action"], gates(answer)["stepping_stone"]) == ("run", "refuse")


@pytest.mark.parametrize(
    "required",
    ["gen_random_uuid()", "id", f"'{V2}'", "(select id from public.releases where branch = 'staging')"],
)
def test_a_mandatory_release_is_an_older_one_of_the_branch(fleet: Fleet, required: str) -> None:
    refusal = fleet.refused(
        f"update public.releases set requires_release = {required} where id = '{V1}'", who="operator"
    )
    assert (refusal.code, refusal.kind) == ("PT400", "bad_stepping_stone")
