"""Keep running what was committed: links, disk, containers, between two updates."""

from __future__ import annotations

from loguru import logger

from fleet_agent.containers.comparison import Difference
from fleet_agent.engine import (
    come_back,
    disk_space,
    health_watch,
    links,
    prefetch,
    repair,
    retention,
    runner,
    running,
    safe_mode,
)
from fleet_agent.engine.core import Engine
from fleet_agent.engine.phases import Phase
from fleet_agent.engine.stack_store import StackRecord
from fleet_agent.errors import ContainerError, FleetError, HealthError, Kind, docker_unavailable
from fleet_agent.health.base import CheckOutcome
from fleet_agent.model import ReportState
from fleet_agent.support.sizes import MIB

#: Kinds that no further try will repair.
CRITICAL = frozenset(
    {Kind.STATE_CORRUPT, Kind.ROLE_MISSING, Kind.ROLE_INVALID, Kind.COMPOSE_INVALID, Kind.COMMIT_MISSING}
)


def keep_running(engine: Engine) -> None:
    """At rest: the links as in the journal, and the committed release running.

    Only what has stopped is started; a release that runs and fails its checks is reported, not touched.
    """
    links.sync(engine)
    prefetch.check(engine)
    retention.finish_cleaning(engine)
    _watch_disk(engine)
    safe_mode.mark(engine)
    if engine.journal.phase is Phase.SAFE_MODE and come_back.begin_if_due(engine):
        runner.work(engine)
    journal = engine.journal
    if journal.phase is Phase.SAFE_MODE:
        safe_mode.bring_up(engine)
        if journal.safe_mode is not None and not journal.safe_mode.release_runs:
            return
    if journal.current is None:
        return
    repair.restore_folder(engine, journal.current)
    try:
        record = repair.restore_stack(engine, journal.current)
        answer = health_watch.once(engine, record)
    except FleetError as error:
        _cannot_start(engine, error)
        return
    if answer.results is None:
        away = docker_unavailable()
        _note(engine, ReportState.DEGRADED, away.kind, away.message)
        return
    try:
        found = _differences(engine, record)
    except ContainerError as error:
        _note(engine, ReportState.DEGRADED, error.kind, error.message)
        return
    worst = answer.worst
    if found:
        _restart_stopped(engine, record, worst.detail if worst is not None else found[0].phrase)
    elif worst is not None and worst.outcome is not CheckOutcome.WAIT:
        _note(engine, ReportState.DEGRADED, worst.kind, f"{worst.detail}.")
    elif engine.journal.unrepaired:
        _note(engine, ReportState.DEGRADED, Kind.COMPOSE_FAILED, _sentence(engine.journal.unrepaired[0]))
    else:
        _note_well(engine)


def _differences(engine: Engine, record: StackRecord) -> list[Difference]:
    """What to repair: all that differs, except what recreating did not help."""
    found = running.compare(engine, record)
    phrases = {one.phrase for one in found}
    known = tuple(phrase for phrase in engine.journal.unrepaired if phrase in phrases)
    if known != engine.journal.unrepaired:
        engine.save(unrepaired=known)
    return [one for one in found if one.phrase not in known]


def _running(engine: Engine) -> set[str]:
    return {c.service for c in engine.runtime.services(engine.config.project) if c.state == "running"}


def _cannot_start(engine: Engine, error: FleetError) -> None:
    """What starting needs is missing. With nothing running and no way to repair it, that is safe mode."""
    critical = error.kind in CRITICAL and engine.journal.safe_mode is None
    # What has ended is still listed, after a boot for example, and nothing will start it again.
    if critical and not _running(engine):
        runner.enter_safe_mode(
            engine,
            f"Safe mode: the release cannot be started. {error.message}",
            error.kind,
            comes_back=True,
        )
        return
    _note(engine, ReportState.DEGRADED, error.kind, error.message)


def _watch_disk(engine: Engine) -> None:
    """A disk that is still full after cleaning up means safe mode beside the release, until space is back."""
    if disk_space.free_bytes(engine) < engine.config.critical_free_bytes:
        if engine.journal.safe_mode is None:
            retention.drop_pending(engine)
            retention.clean(engine)
            free = disk_space.free_bytes(engine)
            if free < engine.config.critical_free_bytes:
                reason = f"Safe mode: the disk is full; {free // MIB} MiB are free."
                runner.enter_safe_mode(
                    engine, reason, Kind.DISK_FULL, release_runs=engine.journal.current is not None
                )
        return
    mode = engine.journal.safe_mode
    if mode is None or mode.kind != Kind.DISK_FULL or not mode.release_runs:
        return
    if disk_space.free_bytes(engine) >= engine.config.min_free_bytes:
        safe_mode.take_down(engine)
        engine.move(
            Phase.STEADY,
            safe_mode=None,
            state=ReportState.HEALTHY,
            reason="There is enough disk space again.",
            error=None,
            error_kind=None,
        )


def _restart_stopped(engine: Engine, record: StackRecord, why: str) -> None:
    current = record.deployed
    logger.warning("{why}: restarting {version}", why=why, version=current.release.version)
    try:
        repair.start(engine, record)
        health_watch.until_proven(engine, current, since=engine.clock.now(), briefly=True)
    except HealthError as error:
        _note_failed_start(engine, error)
    except FleetError as error:
        if error.kind is Kind.DOCKER_UNAVAILABLE:
            _note(engine, ReportState.DEGRADED, error.kind, error.message)
        else:
            _note_failed_start(engine, error)
    else:
        left = tuple(sorted({one.phrase for one in running.wrong(engine, current)}))
        if left:
            # Only once: recreating it each time would be worse than what is wrong.
            engine.save(unrepaired=left)
            _note(engine, ReportState.DEGRADED, Kind.COMPOSE_FAILED, _sentence(left[0]))
        else:
            _note_well(engine)


def _sentence(phrase: str) -> str:
    return f"{phrase[0].upper()}{phrase[1:]}, and recreating it did not help."


def _note_failed_start(engine: Engine, error: FleetError) -> None:
    """The committed release did not start. After some tries: safe mode."""
    tries = engine.journal.restarts_in_a_row + 1
    logger.error("attempt {tries} to start the release failed: {error}", tries=tries, error=error.message)
    if tries < engine.config.safe_mode_after or engine.journal.safe_mode is not None:
        engine.save(restarts_in_a_row=tries)
        _note(engine, ReportState.DEGRADED, error.kind, error.message)
        return
    reason = f"Safe mode: the release failed to start {tries} times in a row. {error.message}"
    runner.enter_safe_mode(engine, reason, error.kind, comes_back=True)


def _note_well(engine: Engine) -> None:
    """Report it healthy again; an earlier rollback stays visible until something newer works."""
    journal = engine.journal
    if journal.restarts_in_a_row or journal.state is ReportState.DEGRADED:
        engine.save(
            restarts_in_a_row=0, state=ReportState.HEALTHY, reason="running", error=None, error_kind=None
        )


def _note(engine: Engine, state: ReportState, kind: str, message: str) -> None:
    """Report it; the same report again costs no write."""
    journal = engine.journal
    if journal.safe_mode is not None:
        state = ReportState.SAFE_MODE
    if (journal.state, journal.error_kind, journal.error) != (state, kind, message):
        engine.save(state=state, error_kind=kind, error=message, reason=message)
