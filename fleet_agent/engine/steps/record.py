"""Put the finished attempt into the outbox, exactly once by its id, and remember what it taught."""

from __future__ import annotations

from typing import Any

from fleet_agent import __version__
from fleet_agent.engine import prefetch, retention
from fleet_agent.engine.core import Engine
from fleet_agent.engine.failure_memory import HANGS_LIMIT, Memory
from fleet_agent.engine.journal import AttemptInHand, AttemptKind, Failure
from fleet_agent.engine.phases import Phase
from fleet_agent.errors import Kind, internal
from fleet_agent.model import Attempt, Outcome

LEFT = "An operator rolled it back."


def run(engine: Engine) -> None:
    attempt = engine.attempt
    if makes_row(attempt):
        row = as_row(attempt)
        engine.effects.perform("put attempt", lambda: engine.files.on_reserve(lambda: engine.outbox.put(row)))
    engine.remember(learned(engine, attempt))
    engine.move(
        Phase.SAFE_MODE if engine.journal.safe_mode else Phase.STEADY,
        attempt=None,
        prefetch=prefetch.left(engine.journal, attempt),
        pending=retention.pending(engine, attempt),
    )
    engine.files.remove(engine.attempt_file)


def makes_row(attempt: AttemptInHand) -> bool:
    """Whether it is told of: a device that tries each hour to come back tells of the try that works."""
    if attempt.kind is AttemptKind.COME_BACK:
        return attempt.outcome is Outcome.SUCCEEDED
    return prefetch.makes_row(attempt)


def as_row(attempt: AttemptInHand) -> Attempt:
    """The row of `update_history`: always the same for the same journal, so repeating it changes nothing."""
    if attempt.outcome is None or attempt.finished_at is None:
        raise internal("an attempt without an outcome cannot be recorded")
    failure = attempt.failure
    tried, before, outcome = attempt.target, attempt.origin, attempt.outcome
    error_kind = failure.kind if failure else None
    error = failure.message if failure else None
    if attempt.kind is AttemptKind.GO_BACK and outcome is Outcome.SUCCEEDED and before is not None:
        # The row is about the release that was left: policy must know, or it offers that one again.
        tried, before, outcome = before, tried, Outcome.ROLLED_BACK
        error_kind, error = Kind.LEFT, attempt.reason or LEFT
    return Attempt(
        id=attempt.id,
        release_id=tried.release.id,
        rollout_id=attempt.rollout_id,
        from_commit=before.release.commit_sha if before else None,
        to_commit=tried.release.commit_sha,
        outcome=outcome,
        failed_phase=failure.phase if failure else None,
        error_kind=error_kind,
        error=error,
        evidence=_evidence(attempt),
        started_at=attempt.started_at,
        finished_at=attempt.finished_at,
        phase_durations_ms=attempt.durations_ms,
        bytes_fetched=attempt.bytes_fetched,
        agent_version=__version__,
        signer=attempt.signer,
    )


def _evidence(attempt: AttemptInHand) -> dict[str, Any]:
    evidence = dict(attempt.failure.evidence) if attempt.failure else {}
    if attempt.failure and attempt.failure.passes and not _hung_itself(attempt, attempt.failure):
        evidence["passing"] = True
    if attempt.proof:
        evidence["proof"] = attempt.proof
    if attempt.kind is AttemptKind.PREFETCH:
        evidence["prefetching"] = True
    if attempt.prefetched_bytes is not None:
        evidence["prefetched_bytes"] = attempt.prefetched_bytes
    if attempt.interruptions:
        evidence["interruptions"] = attempt.interruptions
    return evidence


def learned(engine: Engine, attempt: AttemptInHand) -> Memory:
    """What this device knows about the release now."""
    memory, key = engine.memory, attempt.target.key
    failure = attempt.failure
    if attempt.kind is AttemptKind.PREFETCH:
        return prefetch.learned(engine, attempt)
    match attempt.outcome:
        case Outcome.SUCCEEDED:
            memory = memory.without(key).without(attempt.target.prefetch_key)
            if attempt.kind is AttemptKind.GO_BACK and attempt.origin is not None:
                left = engine.bad_release(Kind.LEFT, attempt.reason or LEFT)
                memory = memory.with_bad(attempt.origin.key, left)
            return memory
        case Outcome.SKIPPED:
            return memory
        case _ if failure is None or attempt.kind is AttemptKind.COME_BACK:
            return memory
        case _ if failure.passes:
            return _with_passing(engine, attempt, failure)
        case _:
            return memory.with_bad(key, engine.bad_release(failure.kind, failure.message))


def _with_passing(engine: Engine, attempt: AttemptInHand, failure: Failure) -> Memory:
    """A passing trouble; but one that may be the release's own fault is not retried without end."""
    memory, key, now = engine.memory, attempt.target.key, engine.clock.corrected()
    hung = _hung_itself(attempt, failure)
    if hung and memory.hangs(key) + 1 >= HANGS_LIMIT:
        message = f"{failure.message} That was so {HANGS_LIMIT} times."
        return memory.with_bad(key, engine.bad_release(failure.kind, message))
    return memory.with_trouble(key, failure.kind, failure.message, now, engine.random, hung=hung)


def _hung_itself(attempt: AttemptInHand, failure: Failure) -> bool:
    """Whether the release may be why something did not end.

    A Compose that hung is counted only if it started the release before a moment later: else it was Docker.
    """
    if failure.kind in (Kind.VALIDATE_ENDLESS, Kind.COMPOSE_TOO_COSTLY):
        return True
    return failure.kind == Kind.COMPOSE_HUNG and attempt.outcome is Outcome.ROLLED_BACK
