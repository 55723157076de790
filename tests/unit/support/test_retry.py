"""Retry policies: which failures are retried, how long, and what is said about it."""

from __future__ import annotations

from collections.abc import Callable, Iterator

import pytest
from loguru import logger

from fleet_agent.errors import ControlPlaneError, FleetError, Kind
from fleet_agent.support import retry

POLICY = retry.Policy("a call", attempts=4, base_s=1, cap_s=5, budget_s=60)


class Sleeper:
    def __init__(self) -> None:
        self.waits: list[float] = []

    async def __call__(self, seconds: float) -> None:
        self.waits.append(seconds)


class Failing:
    """Fails with `error` the first `times`, then answers."""

    def __init__(self, error: Exception, times: int) -> None:
        self.error, self.left, self.calls = error, times, 0

    async def __call__(self) -> str:
        self.calls += 1
        if self.left:
            self.left -= 1
            raise self.error
        return "answer"


def passing(**more: float) -> ControlPlaneError:
    return ControlPlaneError(Kind.SERVER_ERROR, "It broke.", retryable=True, **more)


@pytest.fixture
def lines() -> Iterator[list[str]]:
    said: list[str] = []
    handler = logger.add(lambda message: said.append(message.record["message"]), level="INFO")
    yield said
    logger.remove(handler)


async def test_a_passing_failure_is_retried_until_it_passes() -> None:
    sleeper, attempt = Sleeper(), Failing(passing(), 2)
    assert await retry.call(POLICY, attempt, sleep=sleeper) == "answer"
    assert attempt.calls == 3


async def test_a_lasting_failure_is_raised_at_once() -> None:
    attempt = Failing(ControlPlaneError(Kind.REFUSED, "No."), 1)
    with pytest.raises(ControlPlaneError) as caught:
        await retry.call(POLICY, attempt, sleep=Sleeper())
    assert caught.value.kind == Kind.REFUSED
    assert attempt.calls == 1


async def test_a_bug_is_not_retried() -> None:
    attempt = Failing(KeyError("x"), 1)
    with pytest.raises(KeyError):
        await retry.call(POLICY, attempt, sleep=Sleeper())
    assert attempt.calls == 1


async def test_the_last_error_is_raised_itself_after_the_last_attempt() -> None:
    attempt = Failing(passing(), 99)
    with pytest.raises(ControlPlaneError) as caught:
        await retry.call(POLICY, attempt, sleep=Sleeper())
    assert caught.value is attempt.error
    assert attempt.calls == POLICY.attempts


async def test_waits_stay_within_the_growing_ceiling_and_are_spread() -> None:
    ceilings = [1.0, 2.0, 4.0]
    firsts = set()
    for _ in range(30):
        sleeper = Sleeper()
        with pytest.raises(FleetError):
            await retry.call(POLICY, Failing(passing(), 99), sleep=sleeper)
        assert all(0 <= wait <= ceiling for wait, ceiling in zip(sleeper.waits, ceilings, strict=True))
        firsts.add(round(sleeper.waits[0], 6))
    assert len(firsts) > 20, "without jitter a fleet would retry in step"


async def test_the_servers_retry_after_is_a_floor_under_the_wait() -> None:
    sleeper = Sleeper()
    await retry.call(POLICY, Failing(passing(retry_after_s=7), 1), sleep=sleeper)
    assert 7 <= sleeper.waits[0] <= 8


async def test_a_wait_that_would_overrun_the_budget_ends_the_retrying() -> None:
    attempt = Failing(passing(retry_after_s=POLICY.budget_s + 1), 1)
    with pytest.raises(ControlPlaneError):
        await retry.call(POLICY, attempt, sleep=Sleeper())
    assert attempt.calls == 1


async def test_each_retry_is_logged_with_its_reason(lines: list[str]) -> None:
    await retry.call(POLICY, Failing(passing(), 2), sleep=Sleeper())
    assert len(lines) == 2
    assert "a call failed (server_error), try 1 of 4" in lines[0]
    assert "It broke." in lines[0]


@pytest.mark.parametrize("policy", retry.POLICIES, ids=lambda policy: policy.name)
def test_every_policy_is_bounded(policy: retry.Policy) -> None:
    assert 1 < policy.attempts <= 5
    assert 0 < policy.base_s <= policy.cap_s <= 30
    # The loop waits for its calls; a fetch runs in the engine's own process.
    assert policy.cap_s <= policy.budget_s <= (3600 if "git" in policy.name else 120)


@pytest.mark.parametrize(
    ("failures", "ceiling"), [(1, 5), (2, 10), (3, 20), (6, 160), (7, 300), (50, 300), (10_000, 300)]
)
def test_full_jitter_doubles_up_to_the_cap(failures: int, ceiling: float) -> None:
    asked: list[tuple[float, float]] = []

    def uniform(low: float, high: float) -> float:
        asked.append((low, high))
        return high

    wait: Callable[..., float] = retry.full_jitter
    assert wait(failures, base_s=5, cap_s=300, uniform=uniform) == ceiling
    assert asked == [(0.0, ceiling)]


def transfer_of(failures: int, error: FleetError | None = None) -> tuple[str, list[float]]:
    naps: list[float] = []
    left = [error or passing()] * failures

    def attempt() -> str:
        if left:
            raise left.pop()
        return "here"

    def nap(seconds: float) -> None:
        naps.append(seconds)

    return retry.transfer(retry.Policy("transfer", 4, 1, 20, 30), attempt, sleep=nap), naps


def test_a_transfer_is_retried_like_a_call_and_says_why(lines: list[str]) -> None:
    came, naps = transfer_of(3)
    assert came == "here"
    assert [nap <= most for nap, most in zip(naps, (1, 2, 4), strict=True)] == [True] * 3
    assert [line.partition(" failed (")[0] for line in lines] == ["transfer"] * 3
    assert all("It broke." in line for line in lines)


def test_a_transfer_that_fails_for_good_or_too_often_raises_the_error_itself() -> None:
    with pytest.raises(ControlPlaneError, match="It broke"):
        transfer_of(4)
    with pytest.raises(ControlPlaneError, match="No") as lasting:
        transfer_of(1, ControlPlaneError(Kind.REFUSED, "No."))
    assert lasting.value.kind == Kind.REFUSED


def test_the_budget_of_a_transfer_counts_its_waits_and_not_its_work() -> None:
    with pytest.raises(ControlPlaneError):
        transfer_of(2, passing(retry_after_s=16))
    came, naps = transfer_of(1, passing(retry_after_s=16))
    assert (came, len(naps)) == ("here", 1)
