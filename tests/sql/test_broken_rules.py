"""Breaks each rule of the policy once, in a throwaway database, and shows that the test which holds it then fails.

docs/usage/policy.md has the same list as a table. A change whose text is not found any more fails too: write it anew.
"""

from __future__ import annotations

import re
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest

from tests.sql import test_access as access
from tests.sql import test_desired_state as desired
from tests.sql import test_devices_fail as devices_fail
from tests.sql import test_edits as edits
from tests.sql import test_going_back as going_back
from tests.sql import test_halt_rule as halt_rule
from tests.sql import test_known_bad as known_bad
from tests.sql import test_limits as limits
from tests.sql import test_proof as proof
from tests.sql import test_slots as slots
from tests.sql import test_stages as stages
from tests.sql import test_targets as targets
from tests.sql import test_told_to_stay as stay
from tests.sql import test_waiting_in_line as waiting
from tests.support.cluster import ROOT
from tests.support.identities import DEVICE, V2, Fleet

DOCS = Path(ROOT) / "docs" / "usage" / "policy.md"
# The rules as docs/usage/policy.md words them.
RULES = {
    1: "Concurrent claims never put more devices in flight than the stage, the rollout or the fleet allows.",
    2: "A percentage is a stable, nested set: raising it only adds devices.",
    3: "A halt stops new claims at once, whatever races it.",
    4: "Never offered, offered while offline, told to stay, offline after claiming a slot: only the last, after its lease, is a failure.",
    5: "The halt rule counts failed over attempted, with a minimum sample and an absolute cap, as outcomes arrive.",
    6: "A device that rolled back from a release, or that matches an open pattern of it, is not offered it unless an operator says so.",
    7: "What happened stays: halts and known-bad patterns are lifted and attempts kept, never rewritten.",
    8: "A release reaches nobody unless somebody said so: by a rollout, by a pin, or because its branch was made immediate.",
    9: "A stage is proved by the devices that are there and by who runs the release; one that cannot be proved says so.",
}


#: As PostgreSQL prints it of a body that it has parsed.
BUCKET = r"private\.bucket\(\(rollout_devices\.rollout\)\.release_id, m\.id\)"


@dataclass(frozen=True)
class Edit:
    """Replaces the last match of `find` in the one function of ours that has it (of those called `where`, if said)."""

    find: str
    put: str
    where: str = ""

    def apply(self, fleet: Fleet) -> None:
        found = fleet.sql(
            "select pg_get_functiondef(p.oid) from pg_proc p where p.pronamespace in ('public'::regnamespace, 'private'::regnamespace) "
            "and p.prokind = 'f' and (%s::text in ('', p.proname::text))",
            self.where,
        )
        texts = [text for (text,) in found if re.search(self.find, text)]
        assert len(texts) == 1, f"{len(texts)} functions have: {self.find}"
        last = list(re.finditer(self.find, texts[0]))[-1]
        fleet.sql((texts[0][: last.start()] + self.put + texts[0][last.end() :]).replace("%", "%%"))


@dataclass(frozen=True)
class Broken:
    """One way to break a rule, and the test that must notice."""

    rule: int
    how: str
    change: Edit | str
    test: Callable[..., None]
    arguments: dict[str, Any] = field(default_factory=dict)


def _rule(**changed: Any) -> dict[str, Any]:
    """Arguments of the halt rule's test."""
    return {"rule": changed.pop("rule"), "failures": changed.pop("failures"), "cause": changed.pop("cause")}


BROKEN = [
    # 1: caps
    Broken(1, "the rollout's cap is off by one",
           Edit(r"counters\.in_flight >= (?=\w+\.max_in_flight)", "counters.in_flight > "),
           slots.test_no_more_devices_are_in_flight_than_allowed, {"limit": 2, "where": "rollout"}),
    Broken(1, "the stage's cap is off by one",
           Edit(r"in_flight >= stage_limit", "in_flight > stage_limit"),
           slots.test_no_more_devices_are_in_flight_than_allowed, {"limit": 2, "where": "stage"}),
    Broken(1, "the fleet's cap is off by one",
           Edit(r">= fleet_limit", "> fleet_limit"),
           slots.test_no_more_devices_are_in_flight_than_allowed, {"limit": 2, "where": "fleet"}),
    Broken(1, "claims do not lock the rollout's counters",
           Edit(r"perform from private\.rollout_counters c where c\.rollout_id = [^;]* for update;", ""),
           waiting.test_who_asks_while_the_last_slot_is_given_waits_and_gets_none, {"where": "rollout"}),
    Broken(1, "claims do not lock the counters, with a cap of the stage",
           Edit(r"perform from private\.rollout_counters c where c\.rollout_id = [^;]* for update;", ""),
           waiting.test_who_asks_while_the_last_slot_is_given_waits_and_gets_none, {"where": "stage"}),
    Broken(1, "claims of two rollouts do not wait for each other under the fleet's cap",
           Edit(r"perform pg_advisory_xact_lock\(7305422303\);", "null;"),
           waiting.test_who_asks_while_the_last_slot_is_given_waits_and_gets_none, {"where": "fleet"}),
    Broken(1, "a slot that looked free is given without deciding again under the locks",
           Edit(r"decided := private\.decide_under_locks\([^;]*;", "perform private.claim_slot(device, decided, at);", "desired_state"),
           waiting.test_who_asks_while_the_last_slot_is_given_waits_and_gets_none, {"where": "rollout"}),
    Broken(1, "the counters do not follow the claims",
           "drop trigger count_claim on public.rollout_claims",
           slots.test_no_more_devices_are_in_flight_than_allowed, {"limit": 2, "where": "rollout"}),
    Broken(1, "the counters do not follow those who go back",
           "drop trigger count_slot on public.roll_back_slots",
           going_back.test_going_back_keeps_the_limits_of_the_rollout_that_brought_the_release, {"way": "withdrawal"}),
    Broken(1, "the rate per minute is forgotten",
           Edit(r"private\.starts_left\(rollout, at\) = 0", "false", "judge_slot"),
           slots.test_a_rate_lets_so_many_start_within_a_minute),
    Broken(1, "the rate is that of less than a minute",
           Edit(r"(?<=c\.claimed_at >= at - )interval '1 minute'", "interval '55 seconds'", "starts_left"),
           limits.test_no_sixty_seconds_see_more_starts_than_allowed, {"steps": [59, 0, 2, 59]}),
    Broken(1, "a device may start twice within the minute",
           Edit(r"at <= claim\.claimed_at \+ interval '1 minute'", "false", "judge_slot"),
           limits.test_who_tries_again_at_once_is_a_start_too),
    Broken(1, "stages that a person adds have no counters",
           "drop trigger give_counters on public.rollout_stages",
           limits.test_a_stage_that_was_opened_by_hand_has_its_limits, {"opened_by_hand": limits.added_when_completed}),
    Broken(1, "a late row of another attempt ends the slot",
           Edit(r"claim\.state = 'claimed'", "false", "is_late"),
           limits.test_a_late_row_of_another_attempt_frees_no_slot_in_use, {"outcome": "failed"}),
    # 2: percentages
    Broken(2, "raising the percentage draws another set",
           Edit(BUCKET, "(private.bucket((rollout_devices.rollout).release_id, m.id) + 7000 * (select count(*) from public.rollouts)::int) % 100000", "rollout_devices"),
           stages.test_a_percentage_is_nested_stable_and_about_its_size),
    Broken(2, "the set is drawn anew on every call",
           Edit(BUCKET, "(random() * 99999)::int", "rollout_devices"),
           stages.test_a_percentage_is_nested_stable_and_about_its_size),
    Broken(2, "the same devices are always first",
           Edit(BUCKET, "private.bucket(m.id, m.id)", "rollout_devices"),
           stages.test_each_release_has_another_order),
    Broken(2, "a device is judged by another order than its stage",
           Edit(BUCKET, "private.bucket(m.id, (rollout_devices.rollout).release_id)", "rollout_devices"),
           stages.test_the_audience_and_the_single_device_are_judged_alike),
    # 3: halts
    Broken(3, "nobody looks at halts of the fleet",
           Edit(r"\('fleet', ''\)", "('rollout', '')"),
           desired.test_a_halt_of_the_fleet_keeps_everybody_where_they_are, {"pinned": False}),
    Broken(3, "nobody looks at halts of a release",
           Edit(r"h\.scope = 'release' and", "false and", "judge_release_halt"),
           desired.test_a_halted_release_is_given_to_nobody, {"pinned": False}),
    Broken(3, "a halt does not wait for claims under way",
           "drop trigger a_lock_policy_first on public.halts",
           waiting.test_policy_that_gets_stricter_waits_for_who_is_being_given_a_slot, {"restriction": "halt of the fleet"}),
    Broken(3, "a claim does not wait for policy that gets stricter",
           Edit(r"perform private\.lock_policy_shared\(\);", ""),
           waiting.test_who_asks_while_policy_gets_stricter_waits_and_obeys, {"restriction": "pause"}),
    Broken(3, "a claim waits for a halt, and then does not look at it",
           Edit(r"decided := private\.decide_under_locks\([^;]*;", "perform private.claim_slot(device, decided, at);", "desired_state"),
           waiting.test_who_asks_while_policy_gets_stricter_waits_and_obeys, {"restriction": "halt by hand"}),
    Broken(3, "a pause does not wait for claims under way",
           "drop trigger a_lock_policy_first on public.rollouts",
           waiting.test_policy_that_gets_stricter_waits_for_who_is_being_given_a_slot, {"restriction": "pause"}),
    Broken(3, "a smaller stage does not wait for claims under way",
           "drop trigger a_lock_policy_first on public.rollout_stages",
           waiting.test_policy_that_gets_stricter_waits_for_who_is_being_given_a_slot, {"restriction": "smaller stage"}),
    Broken(3, "a withdrawal does not wait for claims under way",
           "drop trigger a_lock_policy_first on public.releases",
           waiting.test_policy_that_gets_stricter_waits_for_who_is_being_given_a_slot, {"restriction": "withdrawal"}),
    Broken(3, "the next stage opens under a halt",
           Edit(r"brake\.id is not null", "false", "shut_because"),
           stages.test_an_open_halt_keeps_the_next_stage_shut),
    # 4: silence
    Broken(4, "who was woken counts as having claimed",
           Edit(r"perform private\.wake_devices\(chosen, reason\);",
                "insert into public.rollout_claims (rollout_id, device_id, stage, claimed_at, lease_until, to_release) "
                "select wanted_id, id, 1, now(), now() + interval '10 minutes', rollout.release_id from unnest(chosen) id;",
                "wake_candidates"),
           slots.test_three_ways_to_be_out_of_touch_differ),
    Broken(4, "a claim without an answer fails before its lease is over",
           Edit(r"at \+ make_interval\(secs => r\.lease_s\)", "at", "claim_slot"),
           slots.test_three_ways_to_be_out_of_touch_differ),
    Broken(4, "a device that went dark gives its slot back without blame",
           Edit(r"else 'expired'", "else 'released'", "end_of_lease"),
           slots.test_three_ways_to_be_out_of_touch_differ),
    Broken(4, "a device that still reports is taken for dark",
           Edit(r"said\.reported_at \+ lease > at", "false", "end_of_lease"),
           slots.test_a_device_that_still_reports_keeps_its_slot),
    Broken(4, "a suspended device keeps its slot",
           Edit(r"device\.state <> 'active'", "false", "give_back_unused"),
           stay.test_who_has_begun_gives_it_back_when_it_is_told_to_stay, {"edit": "suspended"}),
    Broken(4, "an edit leaves the slot with who was told to stay",
           "drop trigger give_back on public.devices",
           stay.test_who_has_not_begun_gives_its_slot_back_at_the_edit, {"edit": "held"}),
    Broken(4, "who has begun gives its slot back before it is told to stay",
           Edit(r"not private\.has_begun\(claim, said\) and", "", "give_back_unused"),
           stay.test_who_has_begun_gives_it_back_when_it_is_told_to_stay, {"edit": "held"}),
    Broken(4, "who is told to stay keeps its slot",
           Edit(r"private\.leads_away\(claim, decided\)", "false", "give_back"),
           stay.test_who_has_begun_gives_it_back_when_it_is_told_to_stay, {"edit": "held"}),
    Broken(4, "what a device says after it gave its slot back is not heard",
           Edit(r"is_blameless and", "claim.state = 'released' or is_blameless and", "settle_claim"),
           stay.test_what_it_says_afterwards_counts, {"edit": "held", "outcome": "rolled_back"}),
    Broken(4, "a report of health proves nothing",
           "drop trigger notice_health_update on public.device_status",
           stay.test_a_report_of_health_is_proof_when_the_row_is_lost, {"how": "report"}),
    Broken(4, "a lost answer in a window is blamed",
           Edit(r"not private\.has_begun\(claim, said\) and", "false and", "end_of_lease"),
           stay.test_an_answer_that_was_lost_in_a_window_is_not_blamed),
    Broken(4, "what was promised in a window goes on outside of it",
           Edit(r"and private\.has_begun\(offer\.claim, s\)", "", "decide"),
           stay.test_an_update_goes_on_outside_its_window_only_if_it_has_begun, {"begun": False}),
    # 5: the halt rule
    Broken(5, "failed is counted over the whole audience",
           Edit(r"halt_failure_ratio \* attempted", "halt_failure_ratio * (select count(*) from public.devices)", "broken_rule"),
           halt_rule.test_a_rollout_that_goes_bad_halts_as_the_outcome_arrives,
           _rule(rule={"halt_failure_ratio": 0.1, "halt_min_attempted": 6}, failures=1, cause="failure_ratio")),
    Broken(5, "one device is a large enough sample",
           Edit(r"attempted >= rule\.halt_min_attempted", "attempted >= 1", "broken_rule"),
           halt_rule.test_a_rollout_that_goes_bad_halts_as_the_outcome_arrives,
           _rule(rule={"halt_failure_ratio": 0.1, "halt_min_attempted": 7}, failures=1, cause=None)),
    Broken(5, "the absolute cap is off by one",
           Edit(r"failed >= rule\.halt_max_failures", "failed > rule.halt_max_failures", "broken_rule"),
           halt_rule.test_a_rollout_that_goes_bad_halts_as_the_outcome_arrives,
           _rule(rule={"halt_max_failures": 3}, failures=3, cause="failure_cap")),
    Broken(5, "failures in a row are not counted",
           Edit(r"count\(\*\)", "count(*) - 100", "failed_in_a_row"),
           halt_rule.test_a_rollout_that_goes_bad_halts_as_the_outcome_arrives,
           _rule(rule={"halt_consecutive_failures": 3}, failures=3, cause="consecutive_failures")),
    Broken(5, "the rule is left to the next minute",
           Edit(r"perform private\.judge_rollout\(claim\.rollout_id, at\);", "null;", "end_claim"),
           halt_rule.test_a_rollout_that_goes_bad_halts_as_the_outcome_arrives,
           _rule(rule={"halt_max_failures": 3}, failures=3, cause="failure_cap")),
    Broken(5, "health that is lost after a success does not count",
           "drop trigger notice_regression on public.device_status",
           halt_rule.test_losing_health_after_a_success_is_a_failure),
    Broken(5, "a lifted halt is not a fresh start",
           "drop trigger start_afresh on public.halts",
           halt_rule.test_lifting_a_halt_starts_the_count_afresh),
    Broken(5, "a failure leaves the count while its device tries again",
           Edit(r"-- The slot is not ended by this", "new.last_outcome := null; return new; -- ", "note_outcome"),
           devices_fail.test_a_failure_stays_counted_while_its_device_tries_again, {"rule": devices_fail.CAP}),
    Broken(5, "each word of a device is another outcome",
           Edit(r"old\.last_outcome is null", "true", "note_outcome"),
           devices_fail.test_one_device_hides_no_bad_run),
    Broken(5, "what failed before a lift hides what fails after it",
           Edit(r"c\.base_attempted \+ case when claim\.outcome_number <= c\.outcomes_at_lift then times else 0 end,\n\s*base_failed = [^\n]*\n", "c.base_attempted\n", "add_claim"),
           devices_fail.test_after_a_lift_as_many_new_failures_halt_it_again,
           {"rule": devices_fail.CAP, "meanwhile": "succeeded"}),
    # 6: known bad
    Broken(6, "what a device rolled back from is not remembered",
           "drop trigger remember_outcome on public.update_history",
           desired.test_a_device_is_not_offered_again_what_it_rolled_back_from, {"release": None}),
    Broken(6, "what is remembered is not looked at",
           Edit(r"k\.release_id = target\.id", "false"),
           desired.test_a_device_is_not_offered_again_what_it_rolled_back_from, {"release": None}),
    Broken(6, "a pin from before the rollback repeats it for ever",
           Edit(r"device\.pinned_at > bad\.at", "device.pinned_at is not null"),
           desired.test_a_pin_made_before_the_rollback_does_not_repeat_it_for_ever),
    Broken(6, "a pin made afterwards does not help",
           Edit(r"device\.pinned_at > bad\.at", "false"),
           desired.test_an_operator_may_say_try_again, {"again": f"select public.pin_device('{DEVICE}', '{V2}')"}),
    Broken(6, "nobody looks at known-bad patterns",
           Edit(r"pattern\.id is not null", "false", "judge_known_bad"),
           known_bad.test_all_attributes_of_a_pattern_have_to_match),
    Broken(6, "a known-bad pattern does not wait for claims under way",
           # Its second line: counting the stages again takes the lock too, but only where a rollout runs.
           "drop trigger a_lock_policy_first on public.known_bad_patterns; drop trigger count_stages_again on public.known_bad_patterns",
           waiting.test_policy_that_gets_stricter_waits_for_who_is_being_given_a_slot, {"restriction": "known-bad pattern"}),
    Broken(6, "the rule marks though the rollout did not choose it",
           Edit(r"and r\.remember_patterns", "", "remember_patterns"),
           known_bad.test_without_the_choice_of_the_rollout_nothing_is_remembered),
    # 7: the record
    Broken(7, "a known-bad pattern can be rewritten",
           Edit(r"perform private\.refuse\('known_bad_is_fixed'[^;]*;", "null;"),
           known_bad.test_a_pattern_can_only_be_lifted_and_stays),
    Broken(7, "a halt can be rewritten",
           Edit(r"perform private\.refuse\('halt_is_fixed'[^;]*;", "null;"),
           edits.test_a_halt_can_only_be_lifted),
    Broken(7, "a device can rewrite its attempts",
           "grant update, delete on public.update_history to fleet_device",
           access.test_a_device_writes_its_own_rows_and_nobody_elses),
    # 8: nobody unless somebody said so
    Broken(8, "every branch gives each release at once",
           Edit(r"b\.delivery = 'immediate'", "true", "newest_at_once"),
           targets.test_a_release_reaches_nobody_until_somebody_says_so),
    Broken(8, "a release whose draft goes away goes to everybody",
           "drop trigger keep_to_rollouts on public.rollouts",
           targets.test_a_draft_that_goes_away_gives_the_release_to_nobody, {"delivery": "immediate"}),
    Broken(8, "a cancelled rollout goes on for everybody",
           Edit(r"and r\.release_id = current_release\.id", "", "offer_said_last"),
           targets.test_a_cancelled_rollout_is_kept_by_who_runs_it_and_given_to_nobody_else),
    Broken(8, "what has a template goes to everybody once it is made available",
           Edit(r"new\.by_rollout_only := true;", "null;", "check_release"),
           targets.test_what_has_a_template_is_never_given_outside_a_rollout, {"way": "made available"}),
    # 9: proof
    Broken(9, "who left the stage is waited for",
           Edit(r"c\.succeeded \+ n\.proved_otherwise \+ n\.failed \+ n\.untried,", "greatest(c.devices, c.succeeded + n.proved_otherwise + n.failed + n.untried),", "count_stage"),
           proof.test_who_leaves_the_stage_is_not_waited_for, {"leaves": "state = 'retired'"}),
    Broken(9, "who runs it already is no proof",
           Edit(r"p\.report_state = 'healthy', false", "false, false", "count_stage"),
           proof.test_who_runs_it_already_is_proof),
    Broken(9, "health is not asked for",
           Edit(r"and p\.report_state = 'healthy', false", ", false", "count_stage"),
           proof.test_who_runs_it_and_is_not_well_is_no_proof),
    Broken(9, "an offline device is waited for without end",
           Edit(r"and not e\.away(?= and not \()", "", "count_stage"),
           proof.test_an_offline_device_holds_up_nobody_longer_than_its_rollout_waits, {"patience": None, "days": 1}),
    Broken(9, "nobody says that a stage cannot be proved",
           Edit(r"lacking is not null and counters\.unprovable", "false", "look_at_proof"),
           proof.test_a_stage_that_cannot_be_proved_says_so),
]  # fmt: skip


# What is shown is about the tests, and one server is enough for that.
@pytest.mark.parametrize("cluster", ["postgres18"], indirect=True)
@pytest.mark.parametrize("broken", BROKEN, ids=lambda broken: f"{broken.rule}: {broken.how}")
def test_a_broken_rule_is_noticed(fleet: Fleet, broken: Broken) -> None:
    if isinstance(broken.change, Edit):
        broken.change.apply(fleet)
    else:
        fleet.sql(broken.change)
    with pytest.raises(AssertionError):
        broken.test(fleet, **broken.arguments)


def test_the_docs_name_every_rule_and_the_tests_that_hold_it() -> None:
    wanted = [
        f"| {number} | {rule} | {', '.join(sorted({f'`{b.test.__name__}`' for b in BROKEN if b.rule == number}))} |"
        for number, rule in RULES.items()
    ]
    written = [line for line in DOCS.read_text(encoding="utf-8").splitlines() if re.match(r"\| \d+ \|", line)]
    assert written == wanted
