"""Every retry in one place: one policy for each kind of call, full jitter, a cap, a budget, a log line.

A call is retried only when its error says that waiting alone may help (`FleetError.retryable`). What a server
asks for in Retry-After is the least wait. Retrying ends as soon as the budget would be exceeded: the poll
interval is the outermost retry, and always comes.
"""

from __future__ import annotations

import asyncio
import random
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from typing import Any, TypeVar

from loguru import logger
from tenacity import (
    AsyncRetrying,
    RetryCallState,
    Retrying,
    retry_if_exception,
    stop_after_attempt,
    stop_before_delay,
    wait_random_exponential,
)
from tenacity.stop import stop_base
from tenacity.wait import wait_base

from fleet_agent.errors import FleetError

Result = TypeVar("Result")


@dataclass(frozen=True)
class Policy:
    """How one kind of call is retried. Times in seconds; `budget_s` bounds the whole, waits included."""

    name: str
    attempts: int
    base_s: float
    cap_s: float
    budget_s: float


#: The question "what should I run": cheap, and asked again at the next poll anyway.
CHECK_IN = Policy("desired_state", attempts=4, base_s=1, cap_s=20, budget_s=60)
#: The upsert of `device_status`: superseded by the next one, so not worth a long wait.
REPORT = Policy("device_status", attempts=3, base_s=1, cap_s=10, budget_s=30)
#: One row of `update_history`: it stays in the outbox until it is uploaded.
HISTORY = Policy("update_history", attempts=3, base_s=1, cap_s=20, budget_s=60)
#: The answer to the command of an operator, who may be watching.
ANSWER = Policy("device_commands", attempts=4, base_s=0.5, cap_s=10, budget_s=30)
#: The device token: nothing works without it.
TOKEN = Policy("device-token", attempts=4, base_s=1, cap_s=30, budget_s=90)
#: Git, over connections that break: what arrived is kept. The budget is for the waits; transfers have limits
#: of their own (`release.limits`).
FETCH = Policy("git fetch", attempts=4, base_s=2, cap_s=30, budget_s=120)
#: One image; what arrived of it is kept, and the attempt as a whole is repeated later.
PULL = Policy("image pull", attempts=3, base_s=1, cap_s=20, budget_s=60)
#: A person or an installer is waiting for it.
ENROLL = Policy("enroll", attempts=5, base_s=1, cap_s=30, budget_s=120)

#: The Realtime subscription is retried forever; this is its backoff ( `U(0, min(300, 5·2^n))`).
WAKE_BASE_S = 5.0
WAKE_CAP_S = 300.0

#: While Docker is away in the middle of an update: `U(floor, min(cap, base·2^n))`, up to the engine's
#: `docker_patience_s`.
DOCKER_FLOOR_S, DOCKER_BASE_S, DOCKER_CAP_S = 0.2, 0.5, 10.0

#: Compose was killed, or Docker itself still held a port: so many more tries, `U(1/2, 1)·min(cap, base·2^n)`
#: after one another, before the engine goes back or gives up.
COMPOSE_TRIES, COMPOSE_BASE_S, COMPOSE_CAP_S = 4, 1.0, 8.0

#: After an attempt that failed for a passing cause: `U(0, min(cap, base·2^n))` until the next attempt.
AGAIN_BASE_S, AGAIN_CAP_S = 30.0, 3600.0

POLICIES = (CHECK_IN, REPORT, HISTORY, ANSWER, TOKEN, ENROLL, FETCH, PULL)


class _FullJitter(wait_base):
    """`U(0, min(cap, base·2^n))`, but never less than the server asked for."""

    def __init__(self, policy: Policy) -> None:
        self._jitter = wait_random_exponential(multiplier=policy.base_s, max=policy.cap_s)

    def __call__(self, retry_state: RetryCallState) -> float:
        wait = self._jitter(retry_state)
        error = retry_state.outcome.exception() if retry_state.outcome else None
        asked = getattr(error, "retry_after_s", None)
        return wait if asked is None else asked + wait


class _WaitsSpent(stop_base):
    """Stops before the waits together, without the work between them, would take `budget_s`."""

    def __init__(self, budget_s: float) -> None:
        self._budget_s = budget_s

    def __call__(self, retry_state: RetryCallState) -> bool:
        return retry_state.idle_for + retry_state.upcoming_sleep >= self._budget_s


def full_jitter(
    failures: int, *, base_s: float, cap_s: float, uniform: Callable[[float, float], float]
) -> float:
    """Seconds to wait after `failures` failures in a row (1 is the first): `U(0, min(cap, base·2^(n-1)))`."""
    return uniform(0.0, min(cap_s, base_s * 2 ** min(failures - 1, 32)))


async def call(
    policy: Policy,
    attempt: Callable[[], Awaitable[Result]],
    *,
    sleep: Callable[[float], Awaitable[Any]] = asyncio.sleep,
) -> Result:
    """Await `attempt()` under `policy`; the last error is raised as it is."""
    retrying = AsyncRetrying(
        retry=retry_if_exception(is_worth_it),
        wait=_FullJitter(policy),
        stop=stop_after_attempt(policy.attempts) | stop_before_delay(policy.budget_s),
        before_sleep=_say(policy),
        sleep=sleep,
        reraise=True,
    )
    return await retrying(attempt)


def is_worth_it(error: BaseException) -> bool:
    """Whether waiting alone may help."""
    return isinstance(error, FleetError) and error.retryable


def transfer(
    policy: Policy,
    attempt: Callable[[], Result],
    *,
    sleep: Callable[[float], None],
    worth_it: Callable[[BaseException], bool] = is_worth_it,
) -> Result:
    """Call `attempt()`, which may transfer data for a long time: `policy`'s budget is for the waits alone."""

    retrying = Retrying(
        retry=retry_if_exception(worth_it),
        wait=_FullJitter(policy),
        stop=stop_after_attempt(policy.attempts) | _WaitsSpent(policy.budget_s),
        before_sleep=_say(policy),
        sleep=sleep,
        reraise=True,
    )
    return retrying(attempt)


def _say(policy: Policy) -> Callable[[RetryCallState], None]:
    def say(state: RetryCallState) -> None:
        error = state.outcome.exception() if state.outcome else None
        logger.info(
            "{call} failed ({kind}), try {attempt} of {attempts}; retrying in {wait:.1f} s: {error}",
            call=policy.name, kind=getattr(error, "kind", "?"), attempt=state.attempt_number,
            attempts=policy.attempts, wait=state.upcoming_sleep, error=error,
        )  # fmt: skip

    return say


#: Not for secrets: it spreads the fleet over time.
uniform = random.SystemRandom().uniform
