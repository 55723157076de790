"""Rollouts: stages, percentages, places, the halt rule, silence, and what a person can ask. Time is passed in."""

from __future__ import annotations

import json
from typing import Any
from uuid import UUID, uuid4

import pytest

from tests.sql.cast import DEVICE, OTHER, V1, V2, Fleet, detail, gates

V3 = UUID("00000000-0000-4000-8000-000000000009")


def make_devices(
    fleet: Fleet, count: int, segment: str = "stable", prefix: str = "bulk", **columns: str
) -> None:
    names = "".join(f", {name}" for name in columns)
    values = "".join(f", '{value}'" for value in columns.values())
    fleet.sql(
        f"insert into public.devices (id, name, role, segment, state, public_key{names}) "
        f"select md5(%s || n)::uuid, %s || n, 'beacon', %s, 'active', left(md5(%s || n) || md5('x' || n), 43){values} "
        f"from generate_series(1, %s) n",
        prefix, prefix, segment, prefix, count,
    )  # fmt: skip


def device_id(fleet: Fleet, name: str) -> UUID:
    found = fleet.one("select id from public.devices where name = %s", name)
    assert isinstance(found, UUID)
    return found


def roll_out(
    fleet: Fleet, *stages: dict[str, Any], release: UUID = V2, start: bool = True, **options: Any
) -> UUID:
    """A rollout made, and started, through the functions that operators use."""
    role = options.pop("role", None)
    made = fleet.one(
        "select (public.create_rollout(%s, role => %s, stages => %s, options => %s)).id",
        release, role, json.dumps(list(stages) or [{}]), json.dumps(options), who="operator",
    )  # fmt: skip
    if start:
        fleet.sql("select public.start_rollout(%s)", made, who="operator")
    assert isinstance(made, UUID)
    return made


def ask(fleet: Fleet, device: UUID = DEVICE) -> dict[str, Any]:
    """desired_state() as this device."""
    with fleet.api.transaction():
        fleet.api.execute(
            "select set_config('request.jwt.claims', %s, true), set_config('role', 'fleet_device', true)",
            (json.dumps({"role": "fleet_device", "sub": str(device)}),),
        )
        row = fleet.api.execute("select public.desired_state()").fetchone()
    assert row is not None
    answer = row[0]
    assert isinstance(answer, dict)
    return answer


def finish(
    fleet: Fleet, rollout: UUID | None, device: UUID = DEVICE, outcome: str = "succeeded", release: UUID = V2
) -> None:
    """The device records its attempt and reports what it runs."""
    commit = fleet.one("select commit_sha from public.releases where id = %s", release)
    with fleet.api.transaction():
        fleet.api.execute(
            "select set_config('request.jwt.claims', %s, true), set_config('role', 'fleet_device', true)",
            (json.dumps({"role": "fleet_device", "sub": str(device)}),),
        )
        fleet.api.execute(
            "insert into public.update_history (id, device_id, release_id, rollout_id, to_commit, outcome, error_kind, started_at, finished_at) "
            "values (%s, %s, %s, %s, %s, %s, %s, now(), now())",
            (
                uuid4(),
                device,
                release,
                rollout,
                commit,
                outcome,
                None if outcome == "succeeded" else "health_failed",
            ),
        )
        if outcome == "succeeded":
            fleet.api.execute(
                "insert into public.device_status (device_id, current_release) values (%s, %s) "
                "on conflict (device_id) do update set current_release = excluded.current_release, state = 'healthy'",
                (device, release),
            )


def opened(fleet: Fleet, rollout: UUID) -> list[int]:
    rows = fleet.sql(
        "select position from public.rollout_stages where rollout_id = %s and opened_at is not null order by 1",
        rollout,
    )
    return [row[0] for row in rows]


def state(fleet: Fleet, rollout: UUID) -> str:
    return str(fleet.one("select state::text from public.rollouts where id = %s", rollout))


def tick(fleet: Fleet, at: str = "now()") -> dict[str, Any]:
    done = fleet.one(f"select private.tick({at})", who="service")
    assert isinstance(done, dict)
    return done


def check_counters(fleet: Fleet) -> None:
    """The counters are what counting the claims gives."""
    wrong = fleet.sql(
        "select c.rollout_id, c.position, c.in_flight, c.succeeded, c.failed, n.* from private.rollout_counters c "
        "cross join lateral (select count(*) filter (where state = 'claimed'), count(*) filter (where state = 'succeeded'), "
        "count(*) filter (where state in ('failed', 'rolled_back', 'expired', 'regressed')) from public.rollout_claims k "
        "where k.rollout_id = c.rollout_id and c.position in (0, k.stage)) n (f, s, b) "
        "where (c.in_flight, c.succeeded, c.failed) <> (n.f, n.s, n.b)"
    )
    assert wrong == []


# Stages


def test_only_the_open_stage_is_served(fleet: Fleet) -> None:
    rollout = roll_out(fleet, {"segment": "canary"}, {})
    answer = ask(fleet)
    assert (answer["action"], answer["rollout_id"], answer["release"]["id"]) == (
        "update",
        str(rollout),
        str(V2),
    )
    waiting = ask(fleet, OTHER)
    assert (waiting["release"]["id"], waiting["rollout_id"]) == (str(V1), None)
    assert detail(waiting, "stage") == "v2 is being rolled out, but stage 2 is not open yet."


def test_a_proved_stage_opens_the_next_at_once_when_nothing_soaks(fleet: Fleet) -> None:
    rollout = roll_out(fleet, {"segment": "canary"}, {})
    ask(fleet)
    assert opened(fleet, rollout) == [1]
    finish(fleet, rollout)
    assert opened(fleet, rollout) == [1, 2]
    assert ask(fleet, OTHER)["action"] == "update"
    finish(fleet, rollout, OTHER)
    assert state(fleet, rollout) == "completed"
    check_counters(fleet)


@pytest.mark.parametrize(("seconds", "stages"), [(599, [1]), (601, [1, 2])])
def test_a_stage_soaks_before_the_next_opens(fleet: Fleet, seconds: int, stages: list[int]) -> None:
    rollout = roll_out(fleet, {"segment": "canary", "soak_s": 600}, {})
    ask(fleet)
    finish(fleet, rollout)
    assert opened(fleet, rollout) == [1]
    tick(fleet, f"now() + interval '{seconds} seconds'")
    assert opened(fleet, rollout) == stages


@pytest.mark.parametrize(("succeeded", "stages"), [(8, [1]), (9, [1, 2])])
def test_a_stage_needs_its_success_ratio(fleet: Fleet, succeeded: int, stages: list[int]) -> None:
    make_devices(fleet, 10, "early")
    rollout = roll_out(
        fleet, {"segment": "early", "min_attempted": 10, "min_success_ratio": 0.9}, {},
        halt_failure_ratio=None, halt_consecutive_failures=None,
    )  # fmt: skip
    for n in range(1, 11):
        device = device_id(fleet, f"bulk{n}")
        ask(fleet, device)
        finish(fleet, rollout, device, "succeeded" if n <= succeeded else "rolled_back")
    assert opened(fleet, rollout) == stages


def test_a_stage_needs_its_minimum_sample_or_all_it_has(fleet: Fleet) -> None:
    make_devices(fleet, 3, "early")
    rollout = roll_out(
        fleet, {"segment": "early", "min_attempted": 2}, {"segment": "canary", "min_attempted": 50}, {}
    )
    ask(fleet, device_id(fleet, "bulk1"))
    finish(fleet, rollout, device_id(fleet, "bulk1"))
    assert opened(fleet, rollout) == [1]
    ask(fleet, device_id(fleet, "bulk2"))
    finish(fleet, rollout, device_id(fleet, "bulk2"))
    assert opened(fleet, rollout) == [1, 2]
    # The canary is one device: 50 cannot be asked of it.
    ask(fleet)
    finish(fleet, rollout)
    assert opened(fleet, rollout) == [1, 2, 3]


def test_a_stage_without_devices_holds_nobody_up(fleet: Fleet) -> None:
    rollout = roll_out(fleet, {"segment": "early"}, {"segment": "canary"})
    assert opened(fleet, rollout) == [1, 2]


def test_one_silent_device_does_not_hold_a_stage_up(fleet: Fleet) -> None:
    make_devices(fleet, 2, "early")
    rollout = roll_out(fleet, {"segment": "early"}, {})
    ask(fleet, device_id(fleet, "bulk1"))
    finish(fleet, rollout, device_id(fleet, "bulk1"))
    assert opened(fleet, rollout) == [1, 2]


def test_a_stage_waits_for_its_approval(fleet: Fleet) -> None:
    rollout = roll_out(fleet, {"segment": "canary"}, {"needs_approval": True})
    ask(fleet)
    finish(fleet, rollout)
    assert opened(fleet, rollout) == [1]
    refusal = fleet.refused("select public.approve_stage(%s, stage => 9)", rollout, who="operator")
    assert (refusal.code, refusal.kind) == ("PT404", "stage_unknown")
    assert fleet.one("select (public.approve_stage(%s, stage => 2)).position", rollout, who="operator") == 2
    assert opened(fleet, rollout) == [1, 2]


def test_an_open_halt_keeps_the_next_stage_shut(fleet: Fleet) -> None:
    rollout = roll_out(fleet, {"segment": "canary", "soak_s": 60}, {})
    ask(fleet)
    finish(fleet, rollout)
    fleet.sql(
        "insert into public.halts (scope, target, reason) values ('rollout', %s, 'look')",
        str(rollout),
        who="operator",
    )
    tick(fleet, "now() + interval '2 minutes'")
    assert opened(fleet, rollout) == [1]
    fleet.sql("update public.halts set lift_reason = 'looked' where true", who="operator")
    tick(fleet, "now() + interval '2 minutes'")
    assert opened(fleet, rollout) == [1, 2]


def test_named_devices_are_a_stage(fleet: Fleet) -> None:
    rollout = roll_out(fleet, {"device_ids": [str(OTHER)]}, {})
    assert ask(fleet, OTHER)["rollout_id"] == str(rollout)
    assert ask(fleet)["rollout_id"] is None


def test_a_device_that_joins_or_changes_segment_gets_its_place_at_once(fleet: Fleet) -> None:
    rollout = roll_out(fleet, {"segment": "canary"}, {})
    assert ask(fleet, OTHER)["rollout_id"] is None
    fleet.sql("update public.devices set segment = 'canary' where id = %s", OTHER, who="operator")
    assert ask(fleet, OTHER)["rollout_id"] == str(rollout)
    make_devices(fleet, 1, "canary", "newcomer")
    assert ask(fleet, device_id(fleet, "newcomer1"))["rollout_id"] == str(rollout)


# Percentages


def _members(fleet: Fleet, release: UUID, percent: float) -> set[UUID]:
    rollout = roll_out(fleet, {"percent": percent}, release=release, start=False)
    rows = fleet.sql("select device_id from private.rollout_places(%s) where stage = 1", rollout)
    return {row[0] for row in rows}


def test_a_percentage_is_nested_stable_and_about_its_size(fleet: Fleet) -> None:
    make_devices(fleet, 1000)
    smaller: set[UUID] = set()
    for percent in (0, 1, 10, 33.3, 50, 99, 100):
        members = _members(fleet, V2, percent)
        assert smaller <= members, f"raising to {percent} took devices away"
        assert abs(len(members) - 10.02 * percent) < 60
        assert members == _members(fleet, V2, percent)
        smaller = members
    assert len(smaller) == 1002


def test_each_release_has_another_order(fleet: Fleet) -> None:
    make_devices(fleet, 300)
    first, second = _members(fleet, V1, 20), _members(fleet, V2, 20)
    assert first != second
    assert len(first & second) < 0.5 * len(first)


def test_a_small_percentage_of_a_small_fleet_is_somebody(fleet: Fleet) -> None:
    make_devices(fleet, 4, "early")
    rollout = roll_out(fleet, {"segment": "early", "percent": 0.001}, {})
    served = [
        n for n in range(1, 5) if ask(fleet, device_id(fleet, f"bulk{n}"))["rollout_id"] == str(rollout)
    ]
    assert len(served) == 1


def test_the_audience_and_the_single_device_are_judged_alike(fleet: Fleet) -> None:
    """The set-based query and stage_holds() are two writings of one rule."""
    make_devices(fleet, 120)
    make_devices(fleet, 60, "early", "e")
    rollout = roll_out(
        fleet, {"segment": "early", "percent": 30}, {"percent": 50}, {"device_ids": [str(OTHER)]}, start=False
    )
    assert fleet.sql(
        "select p.device_id from private.rollout_places(%s) p where p.stage is distinct from ("
        "select min(s.position) from public.rollout_stages s where s.rollout_id = %s and private.stage_holds(s, p.device_id, "
        "p.segment, private.bucket(%s, p.device_id))) and p.bucket >= 1000",
        rollout, rollout, V2,
    ) == []  # fmt: skip


# Selectors, supersession, what is outside a rollout


def test_role_and_labels_select(fleet: Fleet) -> None:
    fleet.sql('update public.devices set labels = \'{"site": "rome", "floor": "1"}\' where id = %s', DEVICE)
    rollout = roll_out(fleet, label_selector={"site": "rome"})
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
    # Who holds a place in the old one may finish it; the newer one is for everybody.
    assert ask(fleet, OTHER)["rollout_id"] == str(second)
    finish(fleet, first, release=V1)
    assert (
        fleet.one("select state::text from public.rollout_claims where rollout_id = %s", first) == "succeeded"
    )


def test_a_rollout_with_another_selector_runs_beside(fleet: Fleet) -> None:
    first = roll_out(fleet, release=V1)
    roll_out(fleet, release=V2, label_selector={"site": "rome"})
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
    assert gates(answer)["downgrade"] == "refuse"


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
    fleet.sql("update public.branches set requires_rollout = true where name = 'main'", who="operator")
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


def test_a_paused_rollout_gives_no_new_places_and_lets_holders_finish(fleet: Fleet) -> None:
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
        "insert into public.rollout_stages (rollout_id, position, segment) values (%s, 1, 'canary')",
        rollout,
        who="operator",
    )
    fleet.sql("update public.rollouts set state = 'running' where id = %s", rollout, who="operator")
    assert fleet.sql("select name, branch, started_by is not null from public.rollouts") == [
        ("v2", "main", True)
    ]
    assert ask(fleet)["rollout_id"] == str(rollout)


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
            "update public.rollouts set label_selector = '{{\"a\": \"b\"}}' where id = '{r}'",
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


# Places


@pytest.mark.parametrize(("limit", "where"), [(2, "rollout"), (2, "stage"), (2, "fleet")])
def test_no_more_devices_are_in_flight_than_allowed(fleet: Fleet, limit: int, where: str) -> None:
    make_devices(fleet, 4)
    stage: dict[str, Any] = {"max_in_flight": limit} if where == "stage" else {}
    options: dict[str, Any] = {"max_in_flight": limit} if where == "rollout" else {}
    if where == "fleet":
        fleet.sql("update public.fleet_settings set max_in_flight = %s where id", limit, who="admin")
    rollout = roll_out(fleet, stage, **options)
    devices = [device_id(fleet, f"bulk{n}") for n in range(1, 5)]
    answers = [ask(fleet, device) for device in devices]
    assert [a["action"] for a in answers] == ["update", "update", "run", "run"]
    assert gates(answers[2])["place"] == "wait"
    # Asking again keeps the place.
    assert ask(fleet, devices[0])["action"] == "update"
    assert fleet.one("select count(*) from public.rollout_claims") == limit
    finish(fleet, rollout, devices[0])
    assert ask(fleet, devices[2])["action"] == "update"
    assert ask(fleet, devices[3])["action"] == "run"
    check_counters(fleet)


def test_the_first_in_line_is_woken_when_a_place_is_free(fleet: Fleet) -> None:
    make_devices(fleet, 3)
    rollout = roll_out(fleet, max_in_flight=1)
    devices = [device_id(fleet, f"bulk{n}") for n in range(1, 4)]
    for device in devices:
        ask(fleet, device)
    fleet.messages()
    finish(fleet, rollout, devices[0])
    assert fleet.woken() == {f"device:{devices[1]}": "place_free"}


def test_starting_wakes_only_as_many_as_could_get_a_place(fleet: Fleet) -> None:
    make_devices(fleet, 30)
    fleet.messages()
    rollout = roll_out(fleet, max_in_flight=3)
    woken = fleet.woken()
    assert len(woken) == 3
    assert set(woken.values()) == {"stage_opened"}
    rows = fleet.sql("select device_id from private.rollout_places(%s) order by bucket limit 3", rollout)
    assert set(woken) == {f"device:{row[0]}" for row in rows}


def test_starting_without_a_limit_wakes_everybody_in_the_stage(fleet: Fleet) -> None:
    make_devices(fleet, 30)
    fleet.messages()
    roll_out(fleet, {"segment": "stable"}, {})
    assert len(fleet.woken()) == 31


def test_a_rate_lets_so_many_start_within_a_minute(fleet: Fleet) -> None:
    make_devices(fleet, 4)
    rollout = roll_out(fleet, max_per_minute=2)
    answers = [ask(fleet, device_id(fleet, f"bulk{n}")) for n in range(1, 5)]
    assert [a["action"] for a in answers] == ["update", "update", "run", "run"]
    assert 1 <= answers[2]["poll_after_s"] <= 61
    fleet.sql(
        "update private.rollout_counters set minute_start = minute_start - interval '1 minute' where rollout_id = %s",
        rollout,
    )
    assert [ask(fleet, device_id(fleet, f"bulk{n}"))["action"] for n in (3, 4)] == ["update", "update"]


def test_a_device_asks_no_more_often_than_its_attempts(fleet: Fleet) -> None:
    rollout = roll_out(fleet, max_attempts=2, halt_consecutive_failures=None)
    for _ in range(2):
        assert ask(fleet)["action"] == "update"
        finish(fleet, rollout, outcome="failed")
    answer = ask(fleet)
    assert (answer["action"], gates(answer)["place"]) == ("run", "refuse")
    check_counters(fleet)


def test_a_pinned_device_takes_no_place(fleet: Fleet) -> None:
    roll_out(fleet, max_in_flight=1)
    fleet.sql("select public.pin_device(%s, %s)", DEVICE, V2, who="operator")
    assert ask(fleet)["action"] == "update"
    assert fleet.one("select count(*) from public.rollout_claims") == 0


# The halt rule


def _fail(fleet: Fleet, rollout: UUID, numbers: range, outcome: str = "rolled_back") -> None:
    for n in numbers:
        device = device_id(fleet, f"bulk{n}")
        assert ask(fleet, device)["action"] == "update", f"bulk{n}"
        finish(fleet, rollout, device, outcome)


@pytest.mark.parametrize(
    ("rule", "failures", "cause"),
    [
        ({"halt_max_failures": 3}, 2, None),
        ({"halt_max_failures": 3}, 3, "failure_cap"),
        ({"halt_consecutive_failures": 3}, 2, None),
        ({"halt_consecutive_failures": 3}, 3, "consecutive_failures"),
        # Five succeeded before: 1 of 6 is above a tenth, and 6 is the least sample or just too few.
        ({"halt_failure_ratio": 0.1, "halt_min_attempted": 6}, 1, "failure_ratio"),
        ({"halt_failure_ratio": 0.1, "halt_min_attempted": 7}, 1, None),
        ({"halt_failure_ratio": 0.17, "halt_min_attempted": 6}, 1, None),
    ],
)
def test_a_rollout_that_goes_bad_halts_as_the_outcome_arrives(
    fleet: Fleet, rule: dict[str, Any], failures: int, cause: str | None
) -> None:
    make_devices(fleet, 10)
    off = {"halt_failure_ratio": None, "halt_consecutive_failures": None}
    rollout = roll_out(fleet, {"min_success_ratio": 1, "min_attempted": 10}, **{**off, **rule})
    _fail(fleet, rollout, range(1, 6), "succeeded")
    _fail(fleet, rollout, range(6, 6 + failures))
    halts = fleet.sql("select scope::text, target, cause, opened_by from public.halts")
    assert halts == ([("rollout", str(rollout), cause, None)] if cause else [])
    answer = ask(fleet, device_id(fleet, "bulk10"))
    assert answer["action"] == ("run" if cause else "update")
    assert state(fleet, rollout) == "running", "policy is never overwritten by an automatic halt"
    check_counters(fleet)


def test_an_automatic_halt_says_what_it_saw(fleet: Fleet) -> None:
    make_devices(fleet, 3)
    rollout = roll_out(fleet, halt_max_failures=2)
    _fail(fleet, rollout, range(1, 3))
    reason, evidence = fleet.sql("select reason, evidence from public.halts")[0]
    assert reason == "2 of 2 devices failed; 1 are allowed."
    assert evidence["error_kinds"] == {"health_failed": 2}
    alerts = fleet.sql("select kind, severity::text, rollout_id from public.alerts")
    assert alerts == [("rollout_halted", "critical", rollout)]
    fleet.sql("update public.halts set lift_reason = 'fixed' where true", who="operator")
    assert fleet.one("select resolved_at is not null from public.alerts")


def test_lifting_a_halt_starts_the_count_afresh(fleet: Fleet) -> None:
    make_devices(fleet, 6)
    rollout = roll_out(fleet, halt_max_failures=2)
    _fail(fleet, rollout, range(1, 3))
    fleet.sql("update public.halts set lift_reason = 'bad site' where true", who="operator")
    _fail(fleet, rollout, range(3, 4))
    assert fleet.one("select count(*) from public.halts where lifted_at is null") == 0
    _fail(fleet, rollout, range(4, 5))
    assert fleet.one("select count(*) from public.halts where lifted_at is null") == 1


@pytest.mark.parametrize("on_bad", ["halt_release", "roll_back"])
def test_what_follows_is_the_rollouts_choice(fleet: Fleet, on_bad: str) -> None:
    make_devices(fleet, 3)
    good = device_id(fleet, "bulk1")
    fleet.sql("insert into public.device_status (device_id, current_release) values (%s, %s)", good, V1)
    rollout = roll_out(fleet, {"min_success_ratio": 1}, halt_max_failures=1, on_bad=on_bad)
    _fail(fleet, rollout, range(1, 2), "succeeded")
    _fail(fleet, rollout, range(2, 3))
    assert fleet.sql("select scope::text, target, roll_back from public.halts") == [
        ("release", str(V2), on_bad == "roll_back")
    ]
    answer = ask(fleet, good)
    if on_bad == "roll_back":
        assert (answer["action"], answer["release"]["id"]) == ("rollback", str(V1))
        assert detail(answer, "roll_back").endswith("back to v1.")
    else:
        assert (answer["action"], answer["release"]["id"]) == ("run", str(V2))


def test_losing_health_after_a_success_is_a_failure(fleet: Fleet) -> None:
    rollout = roll_out(fleet, halt_max_failures=1)
    ask(fleet)
    finish(fleet, rollout)
    fleet.report(V2, state="degraded")
    assert fleet.one("select state::text from public.rollout_claims") == "regressed"
    assert fleet.one("select cause from public.halts") == "failure_cap"
    check_counters(fleet)


def test_losing_health_long_after_is_not_the_rollouts_fault(fleet: Fleet) -> None:
    rollout = roll_out(fleet, halt_max_failures=1, regression_s=0)
    ask(fleet)
    finish(fleet, rollout)
    fleet.report(V2, state="degraded")
    assert fleet.one("select state::text from public.rollout_claims") == "succeeded"


# Silence


def test_three_kinds_of_silence_differ(fleet: Fleet) -> None:
    """Never asked, asked and waiting, claimed and dark: only the last is a failure, and only after its lease."""
    rollout = roll_out(fleet, {"max_in_flight": 1}, lease_s=600)
    ask(fleet)
    ask(fleet, OTHER)
    tick(fleet, "now() + interval '599 seconds'")
    assert fleet.sql("select device_id, state::text from public.rollout_claims") == [(DEVICE, "claimed")]
    assert tick(fleet, "now() + interval '601 seconds'")["leases_expired"] == 1
    assert fleet.sql("select device_id, state::text from public.rollout_claims") == [(DEVICE, "expired")]
    progress = fleet.one("select public.rollout_progress(%s)", rollout, who="viewer")
    assert (progress["failed"], progress["in_flight"]) == (1, 0)
    check_counters(fleet)


def test_a_device_that_still_reports_keeps_its_place(fleet: Fleet) -> None:
    roll_out(fleet, lease_s=600)
    ask(fleet)
    fleet.report(V1, state="updating")
    fleet.sql("alter table public.device_status disable trigger user")
    fleet.sql("update public.device_status set reported_at = now() + interval '500 seconds' where true")
    assert tick(fleet, "now() + interval '601 seconds'")["leases_expired"] == 0
    assert fleet.one("select state::text from public.rollout_claims") == "claimed"
    assert tick(fleet, "now() + interval '1101 seconds'")["leases_expired"] == 1


def test_a_suspended_device_gives_its_place_back_without_blame(fleet: Fleet) -> None:
    roll_out(fleet, lease_s=600)
    ask(fleet)
    fleet.sql("update public.devices set state = 'suspended' where id = %s", DEVICE, who="operator")
    tick(fleet, "now() + interval '601 seconds'")
    assert fleet.one("select state::text from public.rollout_claims") == "released"
    check_counters(fleet)


def test_a_device_that_comes_back_after_its_lease_is_counted_by_what_it_says(fleet: Fleet) -> None:
    rollout = roll_out(fleet, lease_s=600)
    ask(fleet)
    tick(fleet, "now() + interval '601 seconds'")
    finish(fleet, rollout)
    assert fleet.one("select state::text from public.rollout_claims") == "succeeded"
    check_counters(fleet)


def test_an_outcome_for_another_commit_ends_no_claim(fleet: Fleet) -> None:
    rollout = roll_out(fleet)
    ask(fleet)
    finish(fleet, rollout, release=V1)
    assert fleet.one("select state::text from public.rollout_claims") == "claimed"


# Maintenance windows


def _window(fleet: Fleet, days: str, starts: str, minutes: int, timezone: str = "Europe/Rome") -> None:
    fleet.sql("insert into public.maintenance_windows (name) values ('w') on conflict do nothing")
    fleet.sql(
        "insert into public.maintenance_openings (maintenance_window, days, starts_at, minutes) values ('w', %s, %s, %s)",
        days,
        starts,
        minutes,
    )
    fleet.sql(
        "update public.devices set maintenance_window = 'w', timezone = %s where id = %s", timezone, DEVICE
    )


@pytest.mark.parametrize(
    ("at", "verdict"),
    [
        ("2026-06-10 23:59:59Z", "wait"),
        ("2026-06-11 00:00:00Z", "pass"),  # 02:00 in Rome
        ("2026-06-11 01:59:59Z", "pass"),
        ("2026-06-11 02:00:00Z", "wait"),
    ],
)
def test_an_update_starts_only_inside_the_window(fleet: Fleet, at: str, verdict: str) -> None:
    _window(fleet, "daily", "02:00", 120)
    answer = fleet.explain(at=at)
    assert gates(answer)["window"] == verdict
    assert answer["action"] == ("update" if verdict == "pass" else "run")


def test_the_window_gate_says_when_it_opens_in_the_devices_own_time(fleet: Fleet) -> None:
    _window(fleet, "saturday", "22:30", 60)
    answer = fleet.explain(at="2026-06-10 12:00Z")
    assert detail(answer, "window") == "Window w opens 2026-06-13 22:30 Europe/Rome."


def test_a_poll_falls_inside_the_window_by_construction(fleet: Fleet) -> None:
    _window(fleet, "daily", "02:00", 5)
    fleet.sql("update public.devices set update_interval_s = 86400 where id = %s", DEVICE)
    poll = fleet.explain(at="2026-06-10 20:00Z")["poll_after_s"]
    assert 4 * 3600 < poll <= 4 * 3600 + 5 * 60


@pytest.mark.parametrize(
    ("days", "at", "opens"),
    [
        ("weekdays", "2026-06-12 12:00Z", "2026-06-15 02:00"),
        ("weekends", "2026-06-12 12:00Z", "2026-06-13 02:00"),
        ("sunday", "2026-06-14 00:00Z", None),
        # Spring: 02:00 is skipped on 2026-03-29; it opens at 03:00 summer time.
        ("daily", "2026-03-28 12:00Z", "2026-03-29 03:00"),
        # Autumn: 02:00 comes twice on 2026-10-25; the second one counts.
        ("daily", "2026-10-25 00:30Z", "2026-10-25 02:00"),
    ],
)
def test_days_and_the_two_odd_nights_follow_the_written_rules(
    fleet: Fleet, days: str, at: str, opens: str | None
) -> None:
    _window(fleet, days, "02:00", 60)
    answer = fleet.explain(at=at)
    if opens is None:
        assert gates(answer)["window"] == "pass"
    else:
        assert detail(answer, "window") == f"Window w opens {opens} Europe/Rome."


def test_autumns_window_is_open_once_not_twice(fleet: Fleet) -> None:
    _window(fleet, "daily", "02:00", 60)
    verdicts = [gates(fleet.explain(at=f"2026-10-25 {hour}:30Z"))["window"] for hour in ("00", "01", "02")]
    assert verdicts == ["wait", "pass", "wait"]


def test_a_window_may_reach_past_midnight_and_a_device_may_have_several(fleet: Fleet) -> None:
    _window(fleet, "friday", "23:00", 180, "UTC")
    _window(fleet, "monday", "05:00", 60, "UTC")
    assert gates(fleet.explain(at="2026-06-13 01:59Z"))["window"] == "pass"
    assert gates(fleet.explain(at="2026-06-13 02:00Z"))["window"] == "wait"
    assert gates(fleet.explain(at="2026-06-15 05:30Z"))["window"] == "pass"


def test_the_segments_window_holds_where_the_device_has_none(fleet: Fleet) -> None:
    _window(fleet, "daily", "02:00", 60, "UTC")
    fleet.sql("update public.devices set maintenance_window = null where id = %s", DEVICE)
    fleet.messages()
    fleet.sql("update public.segments set maintenance_window = 'w' where name = 'canary'", who="operator")
    assert fleet.woken() == {"segment:canary": "window_changed"}
    assert gates(fleet.explain(at="2026-06-13 12:00Z"))["window"] == "wait"


def test_a_window_without_openings_never_opens(fleet: Fleet) -> None:
    fleet.sql("insert into public.maintenance_windows (name) values ('empty')")
    fleet.sql("update public.devices set maintenance_window = 'empty' where id = %s", DEVICE)
    assert (
        detail(fleet.explain(), "window")
        == "Window empty never opens: it has no row in maintenance_openings."
    )


def test_an_update_under_way_is_not_stopped_by_a_window_that_closes(fleet: Fleet) -> None:
    roll_out(fleet)
    ask(fleet)
    _window(fleet, "daily", "02:00", 60, "UTC")
    answer = fleet.explain(at="2026-06-13 12:00Z")
    assert (answer["action"], gates(answer)["window"]) == ("update", "pass")


# Asking


def test_a_preview_says_who_and_when_and_starts_nothing(fleet: Fleet) -> None:
    make_devices(fleet, 2)
    fleet.report(V2)
    _window(fleet, "daily", "02:00", 60, "UTC")
    fleet.sql("update public.devices set maintenance_window = 'w', timezone = 'UTC' where id = %s", OTHER)
    draft = roll_out(fleet, {"segment": "canary", "soak_s": 3600}, {}, start=False)
    rows = fleet.sql(
        "select stage, name, already_there, to_char(earliest at time zone 'UTC', 'YYYY-MM-DD HH24:MI') "
        "from public.preview_rollout(%s, '2026-06-10 12:00Z') order by stage, name",
        draft, who="viewer",
    )  # fmt: skip
    assert rows == [
        (1, "device", True, None),
        (2, "bulk1", False, "2026-06-10 13:00"),
        (2, "bulk2", False, "2026-06-10 13:00"),
        (2, "other", False, "2026-06-11 02:00"),
    ]
    assert (state(fleet, draft), fleet.one("select count(*) from public.rollout_claims")) == ("draft", 0)


def test_progress_counts_what_is_there(fleet: Fleet) -> None:
    make_devices(fleet, 4)
    rollout = roll_out(fleet, {"segment": "canary"}, {"min_attempted": 5, "max_in_flight": 2})
    ask(fleet)
    finish(fleet, rollout)
    for n in range(1, 4):
        ask(fleet, device_id(fleet, f"bulk{n}"))
    finish(fleet, rollout, device_id(fleet, "bulk1"))
    progress = fleet.one("select public.rollout_progress(%s)", rollout, who="viewer")
    assert (progress["devices"], progress["on_release"], progress["in_flight"], progress["succeeded"]) == (
        6,
        2,
        1,
        2,
    )
    assert [s["devices"] for s in progress["stages"]] == [1, 5]
    assert progress["stages"][1]["silent"] == 3
    assert progress["summary"] == "Running: 2 of 6 devices run v2; 1 in flight, 0 failed."


def test_operators_see_a_rollout_move_live(fleet: Fleet) -> None:
    fleet.messages()
    roll_out(fleet)
    events = {event for _, event, _ in fleet.messages("fleet")}
    assert {"rollouts", "rollout_stages"} <= events


# Alerts


def test_a_silent_device_raises_one_alert_until_it_is_back(fleet: Fleet) -> None:
    fleet.report(V1)
    assert tick(fleet, "now() + interval '2699 seconds'")["offline_opened"] == 0
    assert tick(fleet, "now() + interval '2800 seconds'")["offline_opened"] == 1
    assert tick(fleet, "now() + interval '2900 seconds'")["offline_opened"] == 0
    assert fleet.sql("select kind, device_id from public.alerts where resolved_at is null") == [
        ("device_offline", DEVICE)
    ]
    fleet.sql("update public.alerts set acknowledged_at = now() where true", who="operator")
    assert fleet.one("select acknowledged_by is not null from public.alerts")
    fleet.sql("alter table public.device_status disable trigger user")
    fleet.sql("update public.device_status set reported_at = now() + interval '3000 seconds' where true")
    assert tick(fleet, "now() + interval '3000 seconds'")["offline_resolved"] == 1


def test_a_tick_run_twice_or_late_does_the_work_once(fleet: Fleet) -> None:
    rollout = roll_out(fleet, {"segment": "canary", "soak_s": 60}, {}, lease_s=600)
    ask(fleet)
    finish(fleet, rollout)
    late = "now() + interval '30 days'"
    assert tick(fleet, late)["stages_opened"] == 1
    assert tick(fleet, late)["stages_opened"] == 0


# Trying a rule out


@pytest.mark.parametrize(
    ("rule", "cause", "after"),
    [
        ({"halt_max_failures": 2}, "failure_cap", 5),
        ({"halt_consecutive_failures": 3}, "consecutive_failures", 6),
        ({"halt_failure_ratio": 0.2, "halt_min_attempted": 4}, "failure_ratio", 4),
        ({"halt_failure_ratio": 0.9}, None, None),
    ],
)
def test_a_replay_says_where_a_rule_would_have_stopped_a_rollout(
    fleet: Fleet, rule: dict[str, Any], cause: str | None, after: int | None
) -> None:
    """Three successes, three failures, one more success."""
    make_devices(fleet, 7)
    off: dict[str, Any] = {
        "halt_failure_ratio": None,
        "halt_consecutive_failures": None,
        "halt_max_failures": None,
    }
    rollout = roll_out(fleet, {"min_attempted": 10}, **off)
    for n, outcome in enumerate(["succeeded"] * 3 + ["rolled_back"] * 3 + ["succeeded"], 1):
        ask(fleet, device_id(fleet, f"bulk{n}"))
        finish(fleet, rollout, device_id(fleet, f"bulk{n}"), outcome)
    answer = fleet.one("select public.replay_halt_rule(%s, %s)", rollout, json.dumps(rule), who="viewer")
    assert (answer["outcomes"], answer["attempted"], answer["failed"]) == (7, 7, 3)
    assert answer["would_halt"] is (cause is not None)
    if cause is not None:
        assert after is not None
        assert (answer["halt"]["cause"], answer["halt"]["after_outcomes"]) == (cause, after)
        assert answer["spared"] == 7 - after


def test_a_replay_of_the_rollouts_own_rule_stops_where_it_stopped(fleet: Fleet) -> None:
    make_devices(fleet, 4)
    rollout = roll_out(fleet, halt_max_failures=2)
    _fail(fleet, rollout, range(1, 3))
    answer = fleet.one("select public.replay_halt_rule(%s)", rollout, who="viewer")
    cause, evidence = fleet.sql("select cause, evidence from public.halts")[0]
    assert (answer["halt"]["cause"], answer["halt"]["failed"]) == (cause, evidence["failed"])
    refusal = fleet.refused("select public.replay_halt_rule(%s, '{\"mood\": 1}')", rollout, who="viewer")
    assert (refusal.code, refusal.kind) == ("PT400", "unknown_option")


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
