"""The judge, on its own: rules, rounds and seconds in, a verdict out."""

from __future__ import annotations

import pytest

from fleet_agent.errors import Kind
from fleet_agent.health.base import CheckOutcome, CheckResult
from fleet_agent.health.judge import CheckRound, Healthy, Seen, Undecided, Unhealthy, Verdict, judge, observe
from fleet_agent.roles.schema import ProbationSettings

RULES = ProbationSettings(grace_s=5, successes=3, interval_s=1, watch_s=4, deadline_s=20, failure_budget=2)


def result(answer: CheckOutcome) -> CheckResult:
    return CheckResult("http", answer, f"it says {answer.value}")


def watch(answers: str, rules: ProbationSettings = RULES) -> list[Verdict]:
    """Verdicts after each second's round: p pass, f fail, x fatal, w wait, ? no answer from the runtime."""
    kinds = {"p": CheckOutcome.PASS, "f": CheckOutcome.FAIL, "x": CheckOutcome.FATAL, "w": CheckOutcome.WAIT}
    seen, verdicts = Seen(), []
    for second, letter in enumerate(answers):
        results = None if letter == "?" else (result(kinds[letter]),)
        seen = observe(rules, seen, CheckRound(float(second), results))
        verdicts.append(judge(rules, seen, float(second)))
    return verdicts


def final(answers: str, rules: ProbationSettings = RULES) -> Verdict:
    return watch(answers, rules)[-1]


def test_healthy_needs_successes_in_a_row_and_the_least_watch() -> None:
    assert watch("ppppp")[:4] == [Undecided()] * 4
    assert isinstance(final("ppppp"), Healthy)
    assert final("wwwwwpp") == Undecided()
    assert isinstance(final("wwwwwppp"), Healthy)


@pytest.mark.parametrize(("answers", "verdict"), [("fffffff", Undecided), ("ffffffff", Unhealthy)])
def test_failures_count_only_after_the_grace(answers: str, verdict: type) -> None:
    """Seconds 5, 6 and 7 count; the budget is two."""
    assert isinstance(final(answers), verdict)


def test_fatal_ends_it_even_within_the_grace() -> None:
    assert final("x") == Unhealthy("It says fatal.", Kind.UNHEALTHY, {"check": "http"})


def test_falling_counts_within_the_grace_and_is_called_flapping() -> None:
    verdict = final("pfpfpf")
    assert isinstance(verdict, Unhealthy)
    assert "flapping: it became unhealthy 3 times" in verdict.reason


def test_successes_are_counted_from_the_last_failure() -> None:
    assert final("wwwwwppfp") == Undecided()
    assert isinstance(final("wwwwwppfppp"), Healthy)


def test_one_slip_within_the_budget_is_forgiven() -> None:
    assert isinstance(final("wwwwwwpfppp"), Healthy)


def test_waiting_ends_at_the_deadline() -> None:
    assert final("w" * 20) == Undecided()
    assert final("w" * 21) == Unhealthy(
        "It says wait (not healthy within 20 s).", Kind.UNHEALTHY, {"check": "http"}
    )


def test_runtime_that_does_not_answer_is_no_failure_of_the_release() -> None:
    assert final("ppp??" + "w" * 5) == Undecided()
    # Its containers come back one by one after a restart of Docker.
    assert final("ppp??xx") == Undecided()
    assert isinstance(final("ppp??xxwppp"), Healthy)


def test_runtime_away_until_the_deadline_is_named() -> None:
    verdict = final("?" * 21)
    assert isinstance(verdict, Unhealthy)
    assert verdict.kind is Kind.DOCKER_UNAVAILABLE


def test_no_declared_checks_is_called_weaker_evidence() -> None:
    verdict = final("ppppp")
    assert verdict == Healthy("running, which is weaker evidence: the role declares no health checks")
