"""Judge a fresh release by its rounds of checks. Pure: time comes in as seconds since the start."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from typing import Any

from fleet_agent.errors import Kind
from fleet_agent.health.base import Answer, Reading
from fleet_agent.roles.schema import Health


@dataclass(frozen=True)
class Round:
    """All checks at one moment. `readings` is None where the runtime did not answer: nothing is known."""

    at_s: float
    readings: tuple[Reading, ...] | None

    @property
    def answer(self) -> Answer | None:
        if self.readings is None:
            return None
        answers = {reading.answer for reading in self.readings}
        for answer in (Answer.FATAL, Answer.FAIL, Answer.WAIT):
            if answer in answers:
                return answer
        return Answer.PASS

    @property
    def complaints(self) -> str:
        """What all readings as bad as the worst say, as one phrase."""
        worst = self.worst
        said = [r.detail for r in self.readings or () if worst is not None and r.answer is worst.answer]
        return "; ".join(dict.fromkeys(said))

    @property
    def worst(self) -> Reading | None:
        """The reading that speaks for the round, where it did not pass."""
        for answer in (Answer.FATAL, Answer.FAIL, Answer.WAIT):
            for reading in self.readings or ():
                if reading.answer is answer:
                    return reading
        return None


@dataclass(frozen=True)
class Seen:
    """What the rounds so far came to. `spent` is the part of the failure budget that is gone."""

    successes: int = 0
    spent: int = 0
    flaps: int = 0
    was_passing: bool = False
    last: Round | None = None
    first_failure_s: float | None = None
    #: After the runtime was away its containers come back one by one: until then nothing is final.
    lenient_until_s: float = field(default=0.0)


@dataclass(frozen=True)
class Watch:
    """Not decided yet."""


@dataclass(frozen=True)
class Healthy:
    """`proof` says in a phrase what it rests on."""

    proof: str


@dataclass(frozen=True)
class Unhealthy:
    """`reason` is one sentence for people."""

    reason: str
    kind: Kind
    evidence: dict[str, Any] = field(default_factory=dict)


Verdict = Watch | Healthy | Unhealthy


def observe(rules: Health, seen: Seen, now: Round) -> Seen:
    """Add one round.

    A failed round after the grace spends one of the budget; one that follows a passing round spends one more,
    whenever it is: a service that was well and fell is worse than one that is not up yet.
    """
    seen = replace(seen, last=now)
    match now.answer:
        case None:
            return replace(seen, successes=0, was_passing=False, lenient_until_s=now.at_s + rules.grace_s)
        case Answer.PASS:
            return replace(seen, successes=seen.successes + 1, was_passing=True)
        case Answer.WAIT:
            return replace(seen, successes=0, was_passing=False)
        case _:
            in_grace = now.at_s < max(rules.grace_s, seen.lenient_until_s)
            fell = seen.was_passing
            return replace(
                seen,
                successes=0,
                spent=seen.spent + (0 if in_grace else 1) + (1 if fell else 0),
                flaps=seen.flaps + (1 if fell else 0),
                was_passing=False,
                first_failure_s=now.at_s if seen.first_failure_s is None else seen.first_failure_s,
            )


def judge(rules: Health, seen: Seen, at_s: float) -> Verdict:
    """Decide from what was seen, at `at_s` seconds after the start."""
    last = seen.last
    if last is not None and last.answer is Answer.FATAL and last.at_s >= seen.lenient_until_s:
        return _unhealthy(last, "")
    if seen.spent > rules.failure_budget and last is not None and last.answer is not Answer.PASS:
        how = f" (flapping: fell {seen.flaps} times)" if seen.flaps > 1 else ""
        return _unhealthy(last, how)
    if seen.successes >= rules.successes and at_s >= rules.watch_s:
        return Healthy(_proof(rules.checks, seen))
    if at_s >= rules.deadline_s:
        return _unhealthy(last, f" (not healthy within {rules.deadline_s:g} s)")
    return Watch()


def _proof(declared: Sequence[object], seen: Seen) -> str:
    if not declared:
        return "running, which is weaker evidence: the role declares no health checks"
    passed = len(seen.last.readings or ()) if seen.last else 0
    return f"{passed} checks passed {seen.successes} times in a row"


def _unhealthy(last: Round | None, how: str) -> Unhealthy:
    if last is None or last.readings is None:
        return Unhealthy(f"Docker did not answer during probation{how}.", Kind.DOCKER_UNAVAILABLE)
    worst = last.worst
    if worst is None:
        return Unhealthy(f"It kept flapping{how}.", Kind.UNHEALTHY)
    return Unhealthy(
        f"{last.complaints[:1].upper()}{last.complaints[1:]}{how}.",
        worst.kind,
        {"check": worst.check, **worst.evidence},
    )
