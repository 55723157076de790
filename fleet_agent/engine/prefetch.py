"""A release that is brought here ahead of its update, and applied only when the action says `update`.

Prefetching is fetching, verifying, validating and pulling, in the phases of an update. It touches nothing
that runs, makes no row if it works, and never brings safe mode. What it finds wrong with the release is
recorded once, as a `skipped` row, and binds only prefetching: the update itself is tried all the same, so
that its failure counts where failures of updates count.
"""

from __future__ import annotations

from datetime import datetime

from loguru import logger

from fleet_agent.engine import disk_space, retention
from fleet_agent.engine.core import Engine
from fleet_agent.engine.failure_memory import BadRelease, Memory, Trouble
from fleet_agent.engine.journal import AttemptInHand, AttemptKind, Deployed, Journal, PrefetchRecord
from fleet_agent.engine.phases import Phase
from fleet_agent.errors import ContainerError, FleetError, Kind
from fleet_agent.model import DeviceAssignment, Outcome

#: Ends that tell nothing about the release or the device.
_SILENT = (Kind.SUPERSEDED, Kind.INTERRUPTED)


def is_here(journal: Journal, target: Deployed) -> bool:
    """Whether there is nothing left to do about it before the window opens."""
    found = journal.prefetch
    return (journal.current is not None and journal.current.key == target.key) or (
        found is not None and found.ready and found.target.key == target.key
    )


def rename(engine: Engine, target: Deployed) -> None:
    """The same commit under another row or version: only what it is called changes."""
    found = engine.journal.prefetch
    if found is not None and found.target.key == target.key and found.target != target:
        engine.save(prefetch=found.model_copy(update={"target": target}))


def objection(memory: Memory, target: Deployed, env: str, now: datetime) -> BadRelease | Trouble | None:
    """Why it is not prefetched now: it failed here, as an update or ahead of one, or has to wait."""
    return (
        memory.known_bad(target.key, env)
        or memory.known_bad(target.prefetch_key, env)
        or memory.wait_for(target.prefetch_key, now)
    )


def begin(engine: Engine, target: Deployed, assignment: DeviceAssignment) -> None:
    """Begin the attempt. It supersedes what was prefetched before."""
    engine.begin(
        AttemptKind.PREFETCH,
        target,
        first=Phase.FETCHING,
        assignment=assignment,
        prefetch=PrefetchRecord(target=target, at=engine.clock.corrected()),
    )


def succeed(engine: Engine) -> None:
    """All of it is here. Raises ReleaseError (`disk_full`) if too little space is left."""
    disk_space.need_space(engine)
    attempt = engine.attempt
    engine.move(
        Phase.RECORDING,
        attempt=attempt.model_copy(update={"outcome": Outcome.SUCCEEDED}),
        prefetch=PrefetchRecord(
            target=attempt.target,
            at=engine.clock.corrected(),
            ready=True,
            bytes_fetched=attempt.bytes_fetched,
        ),
    )


def fail(engine: Engine) -> None:
    """End with the failure of the attempt. The device's own state and error stay as they were."""
    attempt, failure = engine.attempt, engine.attempt.failure
    recorded = failure is not None and failure.kind not in _SILENT
    engine.move(
        Phase.RECORDING,
        attempt=attempt.model_copy(update={"outcome": Outcome.SKIPPED}),
        prefetch=PrefetchRecord(
            target=attempt.target,
            at=engine.clock.corrected(),
            error_kind=failure.kind if failure is not None and recorded else None,
            error=failure.message if failure is not None and recorded else None,
        ),
    )


def kept_for(journal: Journal, target: Deployed) -> PrefetchRecord | None:
    """What stays prefetched when an update to `target` begins: only that one."""
    found = journal.prefetch
    return found if found is not None and found.target.key == target.key else None


def left(journal: Journal, attempt: AttemptInHand) -> PrefetchRecord | None:
    """What stays prefetched when `attempt` is recorded: its own update ends it, unless that is retried."""
    found = journal.prefetch
    if found is None or attempt.kind is AttemptKind.PREFETCH or found.target.key != attempt.target.key:
        return found
    again = attempt.outcome is Outcome.SKIPPED or (attempt.failure is not None and attempt.failure.passes)
    return found if again else None


def makes_row(attempt: AttemptInHand) -> bool:
    """Whether the attempt makes a row: a prefetch only if it found the release bad for this device."""
    if attempt.kind is not AttemptKind.PREFETCH:
        return True
    failure = attempt.failure
    return failure is not None and failure.kind not in _SILENT and not failure.retryable


def learned(engine: Engine, attempt: AttemptInHand) -> Memory:
    """What this device knows about prefetching the release now."""
    memory, key, failure = engine.memory, attempt.memory_key, attempt.failure
    now = engine.clock.corrected()
    if attempt.outcome is Outcome.SUCCEEDED:
        return memory.without(key)
    if failure is None or failure.kind in _SILENT:
        return memory
    too_large = failure.kind == Kind.DISK_FULL and failure.phase is not Phase.FETCHING
    if failure.retryable and not too_large:
        return memory.with_trouble(key, failure.kind, failure.message, now, engine.random)
    return memory.with_bad(key, engine.bad_release(failure.kind, failure.message))


def check(engine: Engine) -> None:
    """At rest: what is marked ready is ready; drop it when its time is over, or when space is short."""
    found = engine.journal.prefetch
    if found is None or not found.ready:
        return
    version = found.target.release.version
    now = engine.clock.corrected()
    if not found.at <= now <= found.at + retention.KEPT_FOR:
        # A clock that jumped costs one more download, and only if it is still requested.
        logger.info(
            "{version} was prefetched at {at} and never applied; removing it", version=version, at=found.at
        )
        _drop(engine, None)
    elif disk_space.free_bytes(engine) < engine.config.min_free_bytes:
        drop_for_space(engine)
    elif not _is_here(engine, found.target):
        logger.warning("the prefetched {version} is no longer complete", version=version)
        _drop(engine, None)


def drop_for_space(engine: Engine) -> None:
    """The minimum of free space wins. It is not prefetched again: that would fetch it again and again."""
    found = engine.journal.prefetch
    if found is None or not found.ready:
        return
    message = f"Not enough disk space to keep {found.target.release.version} before its update."
    logger.warning("{message} Removing it; the update will fetch it again.", message=message)
    bad = engine.bad_release(Kind.DISK_FULL, message)
    engine.remember(engine.memory.with_bad(found.target.prefetch_key, bad))
    said = {"ready": False, "error_kind": Kind.DISK_FULL, "error": message}
    _drop(engine, found.model_copy(update=said))


def _drop(engine: Engine, left: PrefetchRecord | None) -> None:
    engine.save(prefetch=left)
    retention.clean(engine)


def _is_here(engine: Engine, target: Deployed) -> bool:
    if not engine.role_folder(target).is_dir():
        return False
    try:
        record = engine.stacks.load(target)
        return engine.stacks.has_content(target.key) and not engine.runtime.missing_images(record.images)
    except ContainerError:
        # Docker does not answer: unknown.
        return True
    except FleetError:
        return False
