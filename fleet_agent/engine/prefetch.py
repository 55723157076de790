"""A release that is brought here ahead of its update, and applied only when the action says `update`.

Prefetching is fetching, verifying, validating and pulling, in the phases of an update. It touches nothing
that runs, makes no row if it works, and never brings safe mode. What it finds wrong with the release is
recorded once, as a `skipped` row, and binds only prefetching: the update itself is tried all the same, so
that its failure counts where failures of updates count.
"""

from __future__ import annotations

from datetime import datetime, timedelta

from loguru import logger

from fleet_agent.engine import disk_space, retention
from fleet_agent.engine.core import Engine
from fleet_agent.engine.failure_memory import BadRelease, Memory, Trouble
from fleet_agent.engine.journal import AttemptInHand, AttemptKind, Deployed, Journal, PrefetchRecord
from fleet_agent.engine.phases import Phase
from fleet_agent.errors import ContainerError, FleetError, Kind
from fleet_agent.model import DevicePlace, Outcome

#: What nobody applies is not kept for ever. Longer than the month that may lie between two windows.
KEPT_FOR = timedelta(days=40)
#: Ends that say nothing about the release or the device.
_SILENT = (Kind.SUPERSEDED, Kind.INTERRUPTED)


def is_here(journal: Journal, target: Deployed) -> bool:
    """Whether there is nothing left to do about it before the window opens."""
    found = journal.prefetch
    return (journal.current is not None and journal.current.key == target.key) or (
        found is not None and found.ready and found.target.key == target.key
    )


def rename(engine: Engine, target: Deployed) -> None:
    """The same commit under another row or version: the words change, nothing else."""
    found = engine.journal.prefetch
    if found is not None and found.target.key == target.key and found.target != target:
        engine.save(prefetch=found.model_copy(update={"target": target}))


def objection(memory: Memory, target: Deployed, env: str, now: datetime) -> BadRelease | Trouble | None:
    """Why it is not prefetched now: it failed here, as an update or ahead of one, or trouble has to pass."""
    return (
        memory.known_bad(target.key, env)
        or memory.known_bad(target.prefetch_key, env)
        or memory.wait_for(target.prefetch_key, now)
    )


def begin(engine: Engine, target: Deployed, place: DevicePlace) -> None:
    """Take it in hand. What was prefetched before is superseded by being asked for this."""
    engine.begin(
        AttemptKind.PREFETCH,
        target,
        first=Phase.FETCHING,
        place=place,
        prefetch=PrefetchRecord(target=target, at=engine.clock.corrected()),
    )


def succeed(engine: Engine) -> None:
    """All of it is here. Raises ReleaseError (`disk_full`) where too little space is left beside it."""
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
    """It ends with the failure that was noted. The device's own state and error stay what they were."""
    attempt, failure = engine.attempt, engine.attempt.failure
    told = failure is not None and failure.kind not in _SILENT
    engine.move(
        Phase.RECORDING,
        attempt=attempt.model_copy(update={"outcome": Outcome.SKIPPED}),
        prefetch=PrefetchRecord(
            target=attempt.target,
            at=engine.clock.corrected(),
            error_kind=failure.kind if failure is not None and told else None,
            error=failure.message if failure is not None and told else None,
        ),
    )


def kept_for(journal: Journal, target: Deployed) -> PrefetchRecord | None:
    """What stays prefetched when an update to `target` begins: only that. Another target supersedes it."""
    found = journal.prefetch
    return found if found is not None and found.target.key == target.key else None


def left(journal: Journal, attempt: AttemptInHand) -> PrefetchRecord | None:
    """What stays prefetched when `attempt` is recorded: its update ends it, unless that is tried again."""
    found = journal.prefetch
    if found is None or attempt.kind is AttemptKind.PREFETCH or found.target.key != attempt.target.key:
        return found
    again = attempt.outcome is Outcome.SKIPPED or (attempt.failure is not None and attempt.failure.passes)
    return found if again else None


def is_told(attempt: AttemptInHand) -> bool:
    """Whether the attempt makes a row: a prefetch only where it found the release bad for this device."""
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


def look_after(engine: Engine) -> None:
    """At rest: what is said to be ready is ready; it goes when its time is over, or when space is short."""
    found = engine.journal.prefetch
    if found is None or not found.ready:
        return
    version = found.target.release.version
    now = engine.clock.corrected()
    if not found.at <= now <= found.at + KEPT_FOR:
        # A clock that jumped costs one more download, and only where it is still asked for.
        logger.info(
            "{version} was prefetched at {at} and never applied: it goes", version=version, at=found.at
        )
        _drop(engine, None)
    elif disk_space.free_bytes(engine) < engine.config.min_free_bytes:
        drop_for_space(engine)
    elif not _is_here(engine, found.target):
        logger.warning("what was prefetched of {version} is no longer whole", version=version)
        _drop(engine, None)


def drop_for_space(engine: Engine) -> None:
    """The floor of free space wins. It is not prefetched again: that would fetch it again and again."""
    found = engine.journal.prefetch
    if found is None or not found.ready:
        return
    message = f"Too little space to keep {found.target.release.version} ahead of its update."
    logger.warning("{message} It is removed, and fetched again by the update.", message=message)
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
        if not all((engine.stacks.content / name).is_dir() for name in engine.stacks.content_of(target.key)):
            return False
        return not engine.runtime.missing_images(record.images)
    except ContainerError:
        # Docker does not say.
        return True
    except FleetError:
        return False
