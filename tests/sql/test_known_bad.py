"""Known bad by pattern: a release is kept from devices with certain attributes, by a person or by the halt rule."""

from __future__ import annotations

import json
from typing import Any
from uuid import UUID

import pytest

from tests.support.identities import DEVICE, OPERATOR, OTHER, V1, V2, Fleet, detail, gates
from tests.support.profiles import OLDER_SERVER_IN_FULL
from tests.support.rollout_builders import ask, device_id, finish, make_devices, opened, roll_out, state, tick

pytestmark = OLDER_SERVER_IN_FULL

PI_3 = {"hardware_model": "Pi 3"}
# Every attribute that failures are searched for; a site is a label.
ATTRIBUTES: list[tuple[str, str, dict[str, Any]]] = [
    ("hardware_model", "Pi 3", PI_3),
    ("os", "Debian 11", {"os": "Debian 11"}),
    ("agent_version", "0.9", {"agent_version": "0.9"}),
    ("role", "kiosk", {"role": "kiosk"}),
    ("segment", "early", {"segment": "early"}),
    ("label site", "rome", {"labels": {"site": "rome"}}),
    ("label power", "solar", {"labels": {"power": "solar"}}),
]


def give(fleet: Fleet, device: UUID, attribute: str, value: str) -> None:
    """The device has this attribute, whoever says so in real life."""
    if attribute == "agent_version":
        fleet.sql(
            "insert into public.device_status (device_id, agent_version) values (%s, %s) "
            "on conflict (device_id) do update set agent_version = excluded.agent_version",
            device, value,
        )  # fmt: skip
    elif attribute.startswith("label "):
        fleet.sql(
            "update public.devices set labels = labels || jsonb_build_object(%s::text, %s::text) where id = %s",
            attribute.removeprefix("label "), value, device,
        )  # fmt: skip
    else:
        fleet.sql("insert into public.device_roles (name) values ('kiosk') on conflict do nothing")
        fleet.sql(f"update public.devices set {attribute} = %s where id = %s", value, device)


def mark(
    fleet: Fleet, selector: dict[str, Any] = PI_3, reason: str = "its disk fills", release: UUID = V2
) -> UUID:
    made = fleet.one(
        "select (public.mark_known_bad(%s, %s, %s, allow_empty => true)).id",
        release,
        json.dumps(selector),
        reason,
        who="operator",
    )
    assert isinstance(made, UUID)
    return made


def lift(fleet: Fleet, pattern: UUID) -> None:
    fleet.sql("select public.lift_known_bad(%s, 'fixed in the image')", pattern, who="operator")


def woken(fleet: Fleet) -> set[str]:
    return {topic.removeprefix("device:") for topic, event, _ in fleet.messages() if event == "wake"}


# The gate


@pytest.mark.parametrize(("attribute", "value", "selector"), ATTRIBUTES, ids=[a for a, _, _ in ATTRIBUTES])
def test_a_device_that_matches_is_kept_from_the_release_until_the_pattern_is_lifted(
    fleet: Fleet, attribute: str, value: str, selector: dict[str, Any]
) -> None:
    give(fleet, DEVICE, attribute, value)
    roll_out(fleet)
    pattern = mark(fleet, selector)
    refused = ask(fleet)
    assert (refused["action"], gates(refused)["known_bad"]) == ("run", "refuse")
    assert (
        detail(refused, "known_bad")
        == f"v2 is known bad for devices with {attribute} {value}: its disk fills"
    )
    told = fleet.one("select public.explain_device(%s)", DEVICE, who="viewer")
    assert [gate["hint"] for gate in told["gates"] if gate["gate"] == "known_bad"] == [
        f'Allow it again: fleetctl known-bad lift {pattern} "why". To try it on this device only, pin the device.'
    ]
    assert ask(fleet, OTHER)["action"] == "update", "it does not match"
    lift(fleet, pattern)
    assert ask(fleet)["action"] == "update"


def test_all_attributes_of_a_pattern_have_to_match(fleet: Fleet) -> None:
    for device in (DEVICE, OTHER):
        give(fleet, device, "hardware_model", "Pi 3")
    give(fleet, DEVICE, "label site", "rome")
    roll_out(fleet)
    mark(fleet, PI_3 | {"labels": {"site": "rome"}})
    assert "hardware_model Pi 3 and label site rome" in detail(ask(fleet), "known_bad")
    assert ask(fleet, OTHER)["action"] == "update"


def test_a_pattern_holds_without_a_rollout_and_for_pins_made_before_it(fleet: Fleet) -> None:
    give(fleet, DEVICE, "hardware_model", "Pi 3")
    mark(fleet)
    assert ask(fleet)["action"] == "run"
    fleet.sql("select public.pin_device(%s, %s)", DEVICE, V2, who="operator")
    assert ask(fleet)["action"] == "update", "a pin made afterwards says to try it there"
    # The same pin is older than the next pattern.
    mark(fleet, {"segment": "canary"}, "smoke")
    assert detail(ask(fleet), "known_bad") == "v2 is known bad for devices with segment canary: smoke"


def test_who_has_a_slot_but_has_not_changed_over_stops(fleet: Fleet) -> None:
    give(fleet, DEVICE, "hardware_model", "Pi 3")
    give(fleet, OTHER, "hardware_model", "Pi 3")
    roll_out(fleet, {"segment": "canary"}, {})
    assert ask(fleet)["action"] == "update"
    fleet.messages()
    mark(fleet)
    assert woken(fleet) == {str(DEVICE)}, "only who is on the way to it"
    assert ask(fleet)["action"] == "run"


def test_who_is_taken_back_does_not_go_to_what_is_known_bad_for_it(fleet: Fleet) -> None:
    give(fleet, DEVICE, "hardware_model", "Pi 3")
    fleet.report(V1)
    rollout = roll_out(fleet)
    assert ask(fleet)["action"] == "update"
    finish(fleet, rollout)
    fleet.sql(
        "insert into public.halts (scope, target, reason, roll_back) values ('release', %s, 'bad', true)", str(V2)
    )  # fmt: skip
    assert ask(fleet)["action"] == "rollback"
    pattern = mark(fleet, release=V1)
    assert detail(ask(fleet), "roll_back").endswith("but no release to go back to is known.")
    lift(fleet, pattern)
    assert ask(fleet)["action"] == "rollback"


# What an operator sees


def test_preview_and_progress_count_who_it_is_known_bad_for(fleet: Fleet) -> None:
    make_devices(fleet, 3, hardware_model="Pi 3")
    make_devices(fleet, 2, prefix="good")
    rollout = roll_out(fleet, {"segment": "stable"})
    pattern = mark(fleet)
    rows = fleet.sql(
        "select name, known_bad, earliest is null from public.preview_rollout(%s) order by name", rollout, who="viewer"
    )  # fmt: skip
    assert rows == [
        ("bulk1", True, True), ("bulk2", True, True), ("bulk3", True, True),
        ("good1", False, False), ("good2", False, False), ("other", False, False),
    ]  # fmt: skip
    ask(fleet, device_id(fleet, "good1"))
    progress = fleet.one("select public.rollout_progress(%s)", rollout, who="viewer")
    (stage,) = progress["stages"]
    assert (progress["known_bad"], progress["devices"]) == (3, 6)
    # good2 and other were never heard of.
    assert [stage[key] for key in ("devices", "in_flight", "known_bad", "waiting", "offline")] == [
        6,
        1,
        3,
        0,
        2,
    ]
    assert progress["summary"] == "Running: 0 of 6 devices on v2; 1 in flight, 0 failed, known bad for 3."
    (listed,) = progress["known_bad_patterns"]
    assert (listed["id"], listed["selector"], listed["reason"]) == (str(pattern), PI_3, "its disk fills")
    lift(fleet, pattern)
    progress = fleet.one("select public.rollout_progress(%s)", rollout, who="viewer")
    assert (progress["known_bad"], progress["known_bad_patterns"]) == (0, [])


def test_a_stage_does_not_wait_for_devices_that_may_not_try(fleet: Fleet) -> None:
    make_devices(fleet, 3, hardware_model="Pi 3")
    stages = [{"segment": "stable", "min_attempted": 100}, {}]
    rollout = roll_out(fleet, *stages)
    assert ask(fleet, OTHER)["action"] == "update"
    finish(fleet, rollout, OTHER)
    assert opened(fleet, rollout) == [1]
    mark(fleet)
    assert opened(fleet, rollout) == [1, 2], "the three that are left may not try"
    # And the other way round: what is known when a stage opens.
    second = roll_out(fleet, *stages)
    assert fleet.one("select size_at_opening from public.rollout_stages where rollout_id = %s and position = 1", second) == 1  # fmt: skip


def test_slots_are_offered_to_devices_that_may_have_them(fleet: Fleet) -> None:
    make_devices(fleet, 4, hardware_model="Pi 3")
    rollout = roll_out(fleet, {"segment": "stable", "min_attempted": 100}, max_in_flight=1)
    holder, waiting = device_id(fleet, "bulk1"), device_id(fleet, "bulk2")
    assert ask(fleet, holder)["action"] == "update"
    assert ask(fleet, waiting)["action"] == "run"
    assert fleet.one("select count(*) from private.rollout_queue") == 1
    pattern = mark(fleet)
    assert fleet.one("select count(*) from private.rollout_queue") == 0
    fleet.messages()
    finish(fleet, rollout, holder)
    fleet.sql("select public.pause_rollout(%s)", rollout, who="operator")
    fleet.messages()
    fleet.sql("select public.resume_rollout(%s)", rollout, who="operator")
    assert woken(fleet) == {str(OTHER)}
    lift(fleet, pattern)
    assert len(woken(fleet)) == 1, "as many as there are slots"


def test_a_pattern_opens_an_alert_that_names_it_and_lifting_resolves_it(fleet: Fleet) -> None:
    pattern = mark(fleet)
    assert fleet.sql("select kind, severity::text, summary, subject, resolved_at from public.alerts") == [
        ("known_bad_pattern", "info", "v2 is known bad for devices with hardware_model Pi 3: its disk fills", str(pattern), None)
    ]  # fmt: skip
    lift(fleet, pattern)
    assert fleet.one("select resolved_at is not null from public.alerts")


def test_matching_devices_are_those_that_the_pattern_holds(fleet: Fleet) -> None:
    give(fleet, DEVICE, "agent_version", "0.9")
    give(fleet, OTHER, "hardware_model", "Pi 3")
    asked = "select name from public.matching_devices(%s)"
    assert fleet.sql(asked, json.dumps({"agent_version": "0.9"}), who="viewer") == [("device",)]
    assert fleet.sql(asked, json.dumps(PI_3), who="viewer") == [("other",)]
    assert fleet.sql(asked, json.dumps(PI_3 | {"agent_version": "0.9"}), who="viewer") == []


# The row


@pytest.mark.parametrize(
    ("selector", "kind"),
    [
        ({}, "selector_empty"),
        ({"labels": {}}, "selector_empty"),
        ([], "selector_malformed"),
        ({"hardware": "Pi 3"}, "selector_unknown"),
        ({"hardware_model": 3}, "selector_malformed"),
        ({"hardware_model": None}, "selector_malformed"),
        ({"labels": "rome"}, "selector_malformed"),
        ({"labels": {"site": 1}}, "selector_malformed"),
    ],
)
def test_what_is_no_pattern_is_refused(fleet: Fleet, selector: object, kind: str) -> None:
    refusal = fleet.refused(
        "insert into public.known_bad_patterns (release_id, selector, reason) values (%s, %s, 'x')",
        V2, json.dumps(selector), who="operator",
    )  # fmt: skip
    assert (refusal.code, refusal.kind) == ("PT400", kind)
    assert refusal.hint


def test_a_dry_run_refuses_what_would_be_refused_and_marks_nothing(fleet: Fleet) -> None:
    dry = "select (public.mark_known_bad(%s, %s, %s, dry_run => true)).id"
    nobody = '{"hardware_model": "Pi 33"}'
    assert fleet.refused(dry, V2, nobody, "why", who="operator").kind == "pattern_concerns_nobody"
    assert fleet.refused(dry, V2, '{"segment": "canary"}', " ", who="operator").kind == "reason_missing"
    assert fleet.refused(dry, V2, "{}", "why", who="operator").kind == "selector_empty"
    fleet.messages()
    assert fleet.one(dry, V2, '{"segment": "canary"}', "why", who="operator")
    assert fleet.sql("select 1 from public.known_bad_patterns") == []
    assert fleet.messages() == []
    mark(fleet, {"segment": "canary"})
    assert fleet.refused(dry, V2, '{"segment": "canary"}', "x", who="operator").kind == "known_bad_already"


def test_the_longest_reason_may_be_given(fleet: Fleet) -> None:
    mark(fleet, reason="x" * 4000)
    assert fleet.one("select length(summary) from public.alerts where kind = 'known_bad_pattern'") == 4000


def test_a_pattern_can_only_be_lifted_and_stays(fleet: Fleet) -> None:
    pattern = mark(fleet)
    again = fleet.refused(
        "select public.mark_known_bad(%s, %s, 'again')", V2, json.dumps(PI_3), who="operator"
    )
    assert (again.kind, again.message) == (
        "known_bad_already", "v2 is already known bad for devices with hardware_model Pi 3.",
    )  # fmt: skip
    by_hand = "insert into public.known_bad_patterns (release_id, selector, reason) values (%s, %s, 'again')"
    assert fleet.refused(by_hand, V2, json.dumps(PI_3 | {"labels": {}}), who="operator").code == "23505"
    for change in ("reason = 'else'", 'selector = \'{"os": "x"}\'', f"release_id = '{V1}'"):
        refusal = fleet.refused(f"update public.known_bad_patterns set {change} where true", who="operator")
        assert refusal.kind == "known_bad_is_fixed", change
    assert fleet.refused("delete from public.known_bad_patterns where true", who="admin").code == "42501"
    assert fleet.refused("delete from public.known_bad_patterns where true").kind == "known_bad_stays"
    assert fleet.refused("truncate public.known_bad_patterns").kind == "append_only"
    for missing in ("lifted_at = now()", "lift_reason = ' '", f"lifted_by = '{OPERATOR}'"):
        refusal = fleet.refused(f"update public.known_bad_patterns set {missing} where true", who="operator")
        assert refusal.kind == "reason_missing", missing
    lift(fleet, pattern)
    assert fleet.sql(
        "select opened_by, lifted_by, lift_reason, lifted_at is not null from public.known_bad_patterns"
    ) == [(OPERATOR, OPERATOR, "fixed in the image", True)]
    refusal = fleet.refused("select public.lift_known_bad(%s, 'twice')", pattern, who="operator")
    assert refusal.kind == "known_bad_is_lifted"
    refusal = fleet.refused(
        "update public.known_bad_patterns set lift_reason = 'no' where true", who="operator"
    )
    assert refusal.kind == "known_bad_is_lifted"
    assert (
        fleet.refused("select public.lift_known_bad(%s, 'x')", V1, who="operator").kind == "known_bad_unknown"
    )
    mark(fleet)
    assert fleet.one("select count(*) from public.known_bad_patterns") == 2
    assert fleet.one("select count(*) from public.audit_log where table_name = 'known_bad_patterns'") == 3


# The halt rule


def _bad_for_pi_3(fleet: Fleet, *, failing: int = 3, **options: Any) -> UUID:
    """Three of other models succeed, then `failing` Pi 3 roll back: the third in a row halts."""
    make_devices(fleet, 6, prefix="pi", hardware_model="Pi 3")
    make_devices(fleet, 6, prefix="nuc", hardware_model="NUC")
    rollout = roll_out(fleet, halt_failure_ratio=None, **options)
    names = [*(f"nuc{n}" for n in range(1, 4)), *(f"pi{n}" for n in range(1, failing + 1))]
    for name in names:
        assert ask(fleet, device_id(fleet, name))["action"] == "update"
    for name in names:
        finish(
            fleet, rollout, device_id(fleet, name), "rolled_back" if name.startswith("pi") else "succeeded"
        )
    return rollout


def test_the_halt_rule_remembers_the_pattern_where_the_rollout_says_so(fleet: Fleet) -> None:
    rollout = _bad_for_pi_3(fleet, remember_patterns=True)
    ((selector, cause, reason, evidence, by),) = fleet.sql(
        "select selector, cause, reason, evidence, opened_by from public.known_bad_patterns"
    )
    assert (selector, cause, by) == (PI_3, "failure_pattern", None)
    assert (
        reason
        == "3 of 3 attempted devices with hardware_model Pi 3 failed (100 %), of the other 3 it is 0 (0 %)."
    )
    assert evidence == {
        "rollout_id": str(rollout), "failed": 3, "attempted": 3, "other_failed": 0, "other_attempted": 3, "lift": 2.0,
    }  # fmt: skip
    assert sorted(fleet.sql("select kind, severity::text, rollout_id from public.alerts")) == [
        ("known_bad_pattern", "warning", rollout), ("rollout_halted", "critical", rollout),
    ]  # fmt: skip
    # The halt stops everybody; what was learned outlives it.
    assert ask(fleet, device_id(fleet, "nuc4"))["action"] == "run"
    fleet.sql("update public.halts set lift_reason = 'not on a Pi 3' where true", who="operator")
    assert ask(fleet, device_id(fleet, "nuc4"))["action"] == "update"
    kept = ask(fleet, device_id(fleet, "pi5"))
    assert (kept["action"], gates(kept)["known_bad"]) == ("run", "refuse")
    assert state(fleet, rollout) in ("running", "completed"), "policy itself is never overwritten"


def test_without_the_choice_of_the_rollout_nothing_is_remembered(fleet: Fleet) -> None:
    rollout = _bad_for_pi_3(fleet)
    tick(fleet)
    assert fleet.one("select count(*) from public.halts where target = %s", str(rollout)) == 1
    assert fleet.one("select count(*) from public.failure_patterns where value = 'Pi 3'") == 1
    assert fleet.one("select count(*) from public.known_bad_patterns") == 0


def test_a_template_may_choose_it_for_every_push(fleet: Fleet) -> None:
    fleet.sql(
        "update public.rollout_templates set remember_patterns = true where name = 'staged'", who="operator"
    )
    chosen = "select remember_patterns from public.rollouts where id = %s"
    made = fleet.one("select (public.create_rollout(%s)).id", V2, who="operator")
    assert fleet.one(chosen, made) is True
    assert fleet.one(chosen, fleet.one("select private.rollout_from_template(%s, 'staged')", V2)) is True
    assert fleet.one(chosen, fleet.one("select private.rollout_from_template(%s, 'at-once')", V2)) is False


@pytest.mark.parametrize(
    ("failures", "of", "others_failed", "others", "telling"),
    [
        (3, 3, 0, 3, True),
        (2, 2, 0, 3, False),  # too few to act on
        (3, 3, 1, 4, False),  # a quarter of the failures have another cause
        (9, 9, 1, 20, True),  # one in ten may
        (3, 3, 0, 1, False),  # nearly everybody has it: 1.33 times
        (3, 12, 0, 6, True),  # 1.5 times
        (3, 12, 0, 5, False),  # 1.42 times
    ],
)
def test_only_patterns_that_explain_the_failures_are_acted_on(
    fleet: Fleet, failures: int, of: int, others_failed: int, others: int, *, telling: bool
) -> None:
    make_devices(fleet, of, prefix="pi", hardware_model="Pi 3")
    make_devices(fleet, others, prefix="nuc", hardware_model="NUC")
    fleet.admin.execute("set session_replication_role = replica")
    for prefix, count, failed in (("pi", of, failures), ("nuc", others, others_failed)):
        fleet.sql(
            "insert into public.update_history (id, device_id, release_id, to_commit, outcome, started_at, finished_at) "
            "select gen_random_uuid(), d.id, %s, repeat('2', 40), case when n <= %s then 'failed' else 'succeeded' end::public.update_outcome, now(), now() "
            "from generate_series(1, %s) n join public.devices d on d.name = %s || n",
            V2, failed, count, prefix,
        )  # fmt: skip
    fleet.admin.execute("set session_replication_role = origin")
    found = "select value from private.telling_patterns(%s, %s)"
    assert fleet.sql(found, V2, True) == ([("Pi 3",)] if telling else [])
    fleet.sql("select private.look_for_patterns(now())")
    assert fleet.sql(found, V2, False) == ([("Pi 3",)] if telling else [])


def test_failures_that_arrive_after_the_halt_add_to_what_is_remembered(fleet: Fleet) -> None:
    """Three Pi 3 and one NUC fail before it: too little to act on. Then the other Pi 3 that were under way fail."""
    make_devices(fleet, 12, prefix="pi", hardware_model="Pi 3")
    make_devices(fleet, 20, prefix="nuc", hardware_model="NUC")
    rollout = roll_out(
        fleet, halt_max_failures=4, halt_failure_ratio=None, halt_consecutive_failures=None, remember_patterns=True
    )  # fmt: skip
    pis, nucs = [f"pi{n}" for n in range(1, 10)], [f"nuc{n}" for n in range(1, 21)]
    for name in [*pis, *nucs]:
        assert ask(fleet, device_id(fleet, name))["action"] == "update"
    for name in nucs[1:]:
        finish(fleet, rollout, device_id(fleet, name))
    for name in [nucs[0], *pis]:
        finish(fleet, rollout, device_id(fleet, name), "rolled_back")
    marked = "select selector from public.known_bad_patterns"
    assert fleet.sql(marked) == []
    tick(fleet)
    assert fleet.sql(marked) == [(PI_3,)]
    # A person's word is newer than the rule's: it is not marked again.
    lift(fleet, fleet.one("select id from public.known_bad_patterns"))
    finish(fleet, rollout, device_id(fleet, nucs[1]), "failed")
    tick(fleet)
    assert fleet.one("select count(*) from public.known_bad_patterns") == 1


def test_the_view_of_patterns_says_which_are_known_bad(fleet: Fleet) -> None:
    _bad_for_pi_3(fleet)
    tick(fleet)
    seen = (
        "select selector, known_bad_pattern from public.failure_patterns where attribute = 'hardware_model'"
    )
    assert fleet.sql(seen, who="viewer") == [(PI_3, None)]
    pattern = fleet.one(
        "select (public.mark_known_bad(release_id, selector, sentence)).id from public.failure_patterns where value = 'Pi 3'",
        who="operator",
    )
    assert fleet.sql(seen, who="viewer") == [(PI_3, pattern)]


@pytest.mark.parametrize(("attribute", "value", "selector"), ATTRIBUTES, ids=[a for a, _, _ in ATTRIBUTES])
def test_failures_are_searched_for_every_attribute_that_a_pattern_can_hold(
    fleet: Fleet, attribute: str, value: str, selector: dict[str, Any]
) -> None:
    make_devices(fleet, 4, prefix="bad")
    make_devices(fleet, 8, prefix="good")
    for n in range(1, 5):
        give(fleet, device_id(fleet, f"bad{n}"), attribute, value)
    fleet.admin.execute("set session_replication_role = replica")
    fleet.sql(
        "insert into public.update_history (id, device_id, release_id, to_commit, outcome, started_at, finished_at, agent_version) "
        "select gen_random_uuid(), d.id, %s, repeat('2', 40), case when starts_with(d.name, 'bad') then 'failed' else 'succeeded' end::public.update_outcome, "
        "now(), now(), coalesce(s.agent_version, '1.0') from public.devices d left join public.device_status s on s.device_id = d.id "
        "where d.name ~ '^(bad|good)'",
        V2,
    )
    fleet.admin.execute("set session_replication_role = origin")
    fleet.sql("select private.look_for_patterns(now())")
    found = fleet.sql(
        "select attribute, value, selector, failed, other_failed, lift::float from public.failure_patterns"
    )
    assert found == [(attribute, value, selector, 4, 0, 3.0)]
