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
from tests.sql import test_edits as edits
from tests.sql import test_halt_rule as halt_rule
from tests.sql import test_known_bad as known_bad
from tests.sql import test_slots as slots
from tests.sql import test_stages as stages
from tests.sql import test_targets as targets
from tests.sql import test_waiting_in_line as waiting
from tests.support.cluster import ROOT
from tests.support.identities import DEVICE, V2, Fleet

DOCS = Path(ROOT) / "docs" / "usage" / "policy.md"
# The rules as docs/usage/policy.md words them.
RULES = {
    1: "Concurrent claims never put more devices in flight than the stage, the rollout or the fleet allows.",
    2: "A percentage is a stable, nested set: raising it only adds devices.",
    3: "A halt stops new claims at once, whatever races it.",
    4: "Never offered, offered while offline, offline after claiming a slot: only the last, after its lease, is a failure.",
    5: "The halt rule counts failed over attempted, with a minimum sample and an absolute cap, as outcomes arrive.",
    6: "A device that rolled back from a release, or that matches an open pattern of it, is not offered it unless an operator says so.",
    7: "What happened stays: halts and known-bad patterns are lifted and attempts kept, never rewritten.",
    8: "A release reaches nobody unless somebody said so: by a rollout, by a pin, or because its branch was made immediate.",
}


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
    Broken(1, "the rate per minute is forgotten",
           Edit(r"minute_count \+ 1 else 1", "minute_count + 0 else 0"),
           slots.test_a_rate_lets_so_many_start_within_a_minute),
    # 2: percentages
    Broken(2, "raising the percentage draws another set",
           Edit(r"m\.bucket < s\.below", "(m.bucket + s.share * 7) % 100000 < s.below", "rollout_devices"),
           stages.test_a_percentage_is_nested_stable_and_about_its_size),
    Broken(2, "the set is drawn anew on every call",
           Edit(r"private\.bucket\(r\.release_id, d\.id\)", "(random() * 99999)::int", "rollout_devices"),
           stages.test_a_percentage_is_nested_stable_and_about_its_size),
    Broken(2, "the same devices are always first",
           Edit(r"private\.bucket\(r\.release_id, d\.id\)", "private.bucket(d.id, d.id)", "rollout_devices"),
           stages.test_each_release_has_another_order),
    Broken(2, "a device is judged by another order than its stage",
           Edit(r"private\.bucket\(r\.release_id, d\.id\)", "private.bucket(d.id, r.release_id)", "rollout_devices"),
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
    Broken(3, "a claim does not wait for a halt under way",
           Edit(r"perform private\.lock_policy_shared\(\);", ""),
           waiting.test_who_asks_while_policy_gets_stricter_waits_and_obeys, {"restriction": "halt of the fleet"}),
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
           Edit(r"'expired'", "'released'", "expire_leases"),
           slots.test_three_ways_to_be_out_of_touch_differ),
    Broken(4, "a device that still reports is taken for dark",
           Edit(r"heard \+ lease > at", "false", "expire_leases"),
           slots.test_a_device_that_still_reports_keeps_its_slot),
    Broken(4, "a suspended device is blamed for its silence",
           Edit(r"device_state <> 'active'", "false", "expire_leases"),
           slots.test_a_suspended_device_gives_its_slot_back_without_blame),
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
           Edit(r"c\.consecutive_failures \+ 1", "0", "end_claim"),
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
