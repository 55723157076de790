"""Judge a new release by its rounds of checks. Pure: time comes in as seconds since the start."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from typing import Any

from fleet_agent.errors import Kind
from fleet_agent.health.base import WORST_FIRST, CheckOutcome, CheckResult
from fleet_agent.roles.schema import ProbationSettings
from fleet_agent.support.words import counted, times


@dataclass(frozen=True)
class CheckRound:
    """All checks at one moment. `results` is None if the runtime did not answer: nothing is known."""

    at_s: float
    results: tuple[CheckResult, ...] | None

    @property
    def outcome(self) -> CheckOutcome | None:
        """The worst of all; None if nothing is known."""
        if self.results is None:
            return None
        return self.worst.outcome if self.worst is not None else CheckOutcome.PASS

    @property
    def complaints(self) -> str:
        """All results as bad as the worst, in one phrase."""
        worst = self.worst
        details = [r.detail for r in self.results or () if worst is not None and r.outcome is worst.outcome]
        return "; ".join(dict.fromkeys(details))

    @property
    def worst(self) -> CheckResult | None:
        """The result that stands for the round; None if all passed."""
        bad = [result for result in self.results or () if result.outcome is not CheckOutcome.PASS]
        return min(bad, key=lambda result: WORST_FIRST.index(result.outcome), default=None)


@dataclass(frozen=True)
class Seen:
    """The rounds so far, added up. `spent` is the part of the failure budget that is used."""

    successes: int = 0
    spent: int = 0
    flaps: int = 0
    was_passing: bool = False
    last: CheckRound | None = None
    first_failure_s: float | None = None
    #: After Docker was away its containers come back one by one: until then nothing is final.
    lenient_until_s: float = field(default=0.0)


@dataclass(frozen=True)
class Undecided:
    """Not decided yet."""


@dataclass(frozen=True)
class Healthy:
    """`proof` is a phrase: what this rests on."""

    proof: str


@dataclass(frozen=True)
class Unhealthy:
    """`reason` is one sentence for people."""

    reason: str
    kind: Kind
    evidence: dict[str, Any] = field(default_factory=dict)


Verdict = Undecided | Healthy | Unhealthy


def observe(rules: ProbationSettings, seen: Seen, now: CheckRound) -> Seen:
    """Add one round.

    A failed round after the grace uses one of the budget; one that follows a passing round uses one more,
    at any time: a service that was healthy and failed is worse than one that is not up yet.
    """
    seen = replace(seen, last=now)
    match now.outcome:
        case None:
            return replace(seen, successes=0, was_passing=False, lenient_until_s=now.at_s + rules.grace_s)
        case CheckOutcome.PASS:
            return replace(seen, successes=seen.successes + 1, was_passing=True)
        case CheckOutcome.WAIT:
            return replace(seen, successes=0, was_passing=False)
        case _:
            in_grace = now.at_s < max(rules.grace_s, seen.lenient_until_s)
            relapsed = seen.was_passing
            return replace(
                seen,
                successes=0,
                spent=seen.spent + (0 if in_grace else 1) + (1 if relapsed else 0),
                flaps=seen.flaps + (1 if relapsed else 0),
                was_passing=False,
                first_failure_s=now.at_s if seen.first_failure_s is None else seen.first_failure_s,
            )


def judge(rules: ProbationSettings, seen: Seen, at_s: float) -> Verdict:
    """Decide from what was seen, at `at_s` seconds after the start."""
    last = seen.last
    if last is not None and last.outcome is CheckOutcome.FATAL and last.at_s >= seen.lenient_until_s:
        return _unhealthy(last, "")
    if seen.spent > rules.failure_budget and last is not None and last.outcome is not CheckOutcome.PASS:
        how = f" (flapping: it became unhealthy {seen.flaps} times)" if seen.flaps > 1 else ""
        return _unhealthy(last, how)
    if seen.successes >= rules.successes and at_s >= rules.watch_s:
        return Healthy(_proof(rules.checks, seen))
    if at_s >= rules.deadline_s:
        return _unhealthy(last, f" (not healthy within {rules.deadline_s:g} s)")
    return Undecided()


def _proof(declared: Sequence[object], seen: Seen) -> str:
    if not declared:
        return "running, which is weaker evidence: the role declares no health checks"
    passed = len(seen.last.results or ()) if seen.last else 0
    in_a_row = " in a row" if seen.successes > 1 else ""
    return f"{counted(passed, 'check')} passed {times(seen.successes)}{in_a_row}"


def _unhealthy(last: CheckRound | None, how: str) -> Unhealthy:
    if last is None or last.results is None:
        return Unhealthy(f"Docker did not answer during probation{how}.", Kind.DOCKER_UNAVAILABLE)
    worst = last.worst
    if worst is None:
        return Unhealthy(f"It kept alternating between healthy and unhealthy{how}.", Kind.UNHEALTHY)
    return Unhealthy(
        f"{last.complaints[:1].upper()}{last.complaints[1:]}{how}.",
        worst.kind,
        {"check": worst.check, **worst.evidence},
    )
