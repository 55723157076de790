"""Run steps until the engine rests, and look after what runs at rest."""

from __future__ import annotations

import errno

from loguru import logger

from fleet_agent.engine import failure_policy as failures
from fleet_agent.engine import health_watch as watch
from fleet_agent.engine import links, prefetch, recovery, retention
from fleet_agent.engine import repair as mend
from fleet_agent.engine import safe_mode as safe
from fleet_agent.engine.core import Engine
from fleet_agent.engine.journal import AttemptKind, SafeMode
from fleet_agent.engine.phases import RESTING, UNTOUCHED, Phase
from fleet_agent.engine.stack_store import StackRecord
from fleet_agent.engine.steps import STEPS
from fleet_agent.errors import FleetError, HealthError, Kind, ReleaseError, StateError
from fleet_agent.health.base import Answer
from fleet_agent.model import Action, Directive, ReportState

#: Kinds that no further try will mend.
CRITICAL = frozenset(
    {Kind.STATE_CORRUPT, Kind.ROLE_MISSING, Kind.ROLE_INVALID, Kind.COMPOSE_INVALID, Kind.COMMIT_MISSING}
)


def work(engine: Engine) -> None:
    """Bring the attempt in hand to its end. Raises FleetError where only another start can."""
    busy = engine.journal.phase not in RESTING
    while engine.journal.phase not in RESTING:
        try:
            _step(engine)
        except FleetError as error:
            failures.follow(engine, engine.cleaned(error))
    if busy:
        retention.clean(engine)
        # Last: leaving safe mode ends the ssh session that this may be running in.
        safe.mark(engine)


def finish(engine: Engine) -> None:
    """Go on from where the last run ended, then see that what was committed runs."""
    recovery.resume(engine)
    work(engine)
    heal(engine)


def heal(engine: Engine) -> None:
    """At rest: links as the journal says, and the committed release running.

    Only what has stopped is started; a release that runs and fails its checks is reported, not touched.
    """
    links.agree(engine)
    prefetch.look_after(engine)
    retention.clean_up_again(engine)
    _mind_the_disk(engine)
    safe.mark(engine)
    journal = engine.journal
    if journal.phase is Phase.SAFE_MODE:
        safe.bring_up(engine)
        if journal.safe_mode is not None and not journal.safe_mode.release_runs:
            return
    if journal.current is None:
        return
    mend.folder(engine, journal.current)
    try:
        record = mend.stack(engine, journal.current)
        answer = watch.once(engine, record)
    except FleetError as error:
        _cannot_start(engine, error)
        return
    if answer.readings is None:
        _note(engine, ReportState.DEGRADED, Kind.DOCKER_UNAVAILABLE, "Docker does not answer.")
        return
    running = _running(engine)
    worst = answer.worst
    if worst is None or (worst.answer is Answer.WAIT and running >= set(record.services)):
        _well(engine)
    elif running >= set(record.services):
        _note(engine, ReportState.DEGRADED, worst.kind, f"{worst.detail}.")
    else:
        _start_again(engine, record, worst.detail)


def _running(engine: Engine) -> set[str]:
    return {c.service for c in engine.runtime.services(engine.config.project) if c.state == "running"}


def _cannot_start(engine: Engine, error: FleetError) -> None:
    """What starting needs is missing. With nothing running and no way to mend it, that is safe mode."""
    critical = error.kind in CRITICAL and engine.journal.safe_mode is None
    # What has ended is still listed, after a boot for one, and nobody will start it again.
    if critical and not _running(engine):
        enter_safe_mode(engine, f"Safe mode: the release cannot be started. {error.message}", error.kind)
        return
    _note(engine, ReportState.DEGRADED, error.kind, error.message)


def _mind_the_disk(engine: Engine) -> None:
    """A disk that is full, after cleaning up, is safe mode beside the release; it ends when space is back."""
    if retention.free_bytes(engine) < engine.config.critical_free_bytes:
        if engine.journal.safe_mode is None:
            retention.clean(engine)
            free = retention.free_bytes(engine)
            if free < engine.config.critical_free_bytes:
                reason = f"Safe mode: the disk is full, {free // retention.MIB} MiB are free."
                enter_safe_mode(
                    engine, reason, Kind.DISK_FULL, release_runs=engine.journal.current is not None
                )
        return
    mode = engine.journal.safe_mode
    if mode is None or mode.kind != Kind.DISK_FULL or not mode.release_runs:
        return
    if retention.free_bytes(engine) >= engine.config.min_free_bytes:
        safe.take_down(engine)
        engine.move(
            Phase.STEADY,
            safe_mode=None,
            state=ReportState.HEALTHY,
            reason="There is space on the disk again.",
            error=None,
            error_kind=None,
        )


def _start_again(engine: Engine, record: StackRecord, why: str) -> None:
    current = record.deployed
    logger.warning("{why}: starting {version} again", why=why, version=current.release.version)
    try:
        mend.start(engine, record)
        watch.until_proven(engine, current, since=engine.seams.clock.now(), briefly=True)
    except HealthError as error:
        _sick(engine, error)
    except FleetError as error:
        if error.kind is Kind.DOCKER_UNAVAILABLE:
            _note(engine, ReportState.DEGRADED, error.kind, error.message)
        else:
            _sick(engine, error)
    else:
        _well(engine)


def _sick(engine: Engine, error: FleetError) -> None:
    """The committed release did not come up. After some tries: safe mode."""
    tries = engine.journal.heals_in_a_row + 1
    logger.error("{tries} tries to start the release failed: {error}", tries=tries, error=error.message)
    if tries < engine.config.safe_mode_after or engine.journal.safe_mode is not None:
        engine.save(heals_in_a_row=tries)
        _note(engine, ReportState.DEGRADED, error.kind, error.message)
        return
    reason = f"Safe mode: the release could not be started {tries} times in a row. {error.message}"
    enter_safe_mode(engine, reason, error.kind)


def enter_safe_mode(engine: Engine, reason: str, kind: str, *, release_runs: bool = False) -> None:
    """From rest: show why, and stop the release unless it is said to keep running."""
    mode = SafeMode(reason=reason, kind=kind, release_runs=release_runs, since=engine.seams.clock.corrected())
    engine.move(
        Phase.ENTERING_SAFE_MODE,
        safe_mode=mode,
        state=ReportState.SAFE_MODE,
        reason=reason,
        error_kind=kind,
        error=reason,
        heals_in_a_row=0,
    )
    work(engine)


def _well(engine: Engine) -> None:
    """An earlier rollback stays visible until something newer works."""
    journal = engine.journal
    if journal.heals_in_a_row or journal.state is ReportState.DEGRADED:
        engine.save(
            heals_in_a_row=0, state=ReportState.HEALTHY, reason="running", error=None, error_kind=None
        )


def _note(engine: Engine, state: ReportState, kind: str, message: str) -> None:
    """Write a changed report; the same one again costs no write."""
    journal = engine.journal
    if journal.safe_mode is not None:
        state = ReportState.SAFE_MODE
    if (journal.state, journal.error_kind, journal.error) != (state, kind, message):
        engine.save(state=state, error_kind=kind, error=message, reason=message)


def _step(engine: Engine) -> None:
    """One step, with whatever the system throws translated."""
    phase = engine.journal.phase
    try:
        if phase in UNTOUCHED:
            _refuse_if_superseded(engine)
        STEPS[phase](engine)
    except FleetError:
        raise
    except OSError as error:
        full = error.errno in (errno.ENOSPC, errno.EDQUOT)
        raise StateError(
            Kind.DISK_FULL if full else Kind.STATE_UNWRITABLE,
            f"The device's disk refused while {phase}: {error.strerror or error}.",
            retryable=True,
        ) from error
    except Exception as error:
        # A bug must end like any other failure: with the old release running and a row that says so.
        logger.opt(exception=error).error("unexpected failure while {phase}", phase=phase)
        raise StateError(
            Kind.INTERNAL, f"Unexpected failure while {phase}: {type(error).__name__}."
        ) from error


def _refuse_if_superseded(engine: Engine) -> None:
    newest, attempt = engine.seams.newest(), engine.attempt
    if newest is None or wants(newest, attempt.target.key):
        return
    if attempt.kind is AttemptKind.PREFETCH and wants_ahead(newest, attempt.target.key):
        return
    what = (
        newest.release.version if newest.action is Action.UPDATE and newest.release else newest.action.value
    )
    raise ReleaseError(
        Kind.SUPERSEDED,
        f"The control plane asks for something else by now ({what}); nothing had been changed.",
    )


def wants(directive: Directive, key: str) -> bool:
    """Whether `directive` still asks for the deployment `key`."""
    return (
        directive.action in (Action.UPDATE, Action.ROLLBACK)
        and directive.release is not None
        and f"{directive.release.commit_sha}.{directive.device.role}" == key
    )


def wants_ahead(directive: Directive, key: str) -> bool:
    """Whether `directive` asks to have the deployment `key` prefetched."""
    return (
        directive.action is Action.RUN
        and directive.prefetch is not None
        and f"{directive.prefetch.commit_sha}.{directive.device.role}" == key
    )
