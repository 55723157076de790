"""Out of safe mode without anybody: what was well before is tried again, after waits that grow.

Only where the device itself ended in safe mode. One that was sent there, or does not know why it is there,
waits for somebody. A try is an attempt like leaving safe mode by a command, only that nothing is recorded or
remembered of one that fails.
"""

from __future__ import annotations

from datetime import datetime, timedelta

from loguru import logger

from fleet_agent.engine import links
from fleet_agent.engine.core import Engine
from fleet_agent.engine.failure_memory import RETRY_CAP, RETRY_FIRST
from fleet_agent.engine.journal import AttemptKind, Journal
from fleet_agent.engine.phases import Phase
from fleet_agent.model import Outcome, ReportState


def first_try_at(engine: Engine) -> datetime | None:
    """When a device that enters safe mode now tries by itself what it ran before; None: never."""
    journal = engine.journal
    if journal.current is None or _waits_for_somebody(journal):
        return None
    return _after(engine, 0)


def begin_if_due(engine: Engine) -> bool:
    """Begin a try if one is due. Returns whether there is now something to do."""
    mode, current, now = engine.journal.safe_mode, engine.journal.current, engine.clock.corrected()
    if mode is None or mode.release_runs or mode.next_try_at is None or current is None:
        return False
    # A wait longer than the longest: the clock jumped.
    if now < mode.next_try_at <= now + RETRY_CAP:
        return False
    logger.info(
        "in safe mode; trying {version} again (try {n})", version=current.release.version, n=mode.tries + 1
    )
    engine.begin(
        AttemptKind.COME_BACK, current, first=Phase.SWAPPING, assignment=None, reason=engine.journal.reason
    )
    return True


def failed(engine: Engine) -> None:
    """End a try that did not work: safe mode stays as it was, and the next wait is longer."""
    attempt, journal = engine.attempt, engine.journal
    mode, failure = journal.safe_mode, attempt.failure
    links.clear_staged(engine)
    if mode is not None:
        tries = mode.tries + 1
        mode = mode.model_copy(update={"tries": tries, "next_try_at": _after(engine, tries)})
    engine.move(
        Phase.ENTERING_SAFE_MODE,
        attempt=attempt.model_copy(update={"outcome": Outcome.FAILED}),
        state=ReportState.SAFE_MODE,
        safe_mode=mode,
        reason=mode.reason if mode is not None else journal.reason,
        error_kind=failure.kind if failure else journal.error_kind,
        error=failure.message if failure else journal.error,
    )


def _waits_for_somebody(journal: Journal) -> bool:
    """Whether it was in a safe mode that only somebody ends; who tells it to leave has ended that."""
    mode, attempt = journal.safe_mode, journal.attempt
    leaves = attempt is not None and attempt.kind is AttemptKind.EXIT_SAFE_MODE
    return mode is not None and not mode.release_runs and mode.next_try_at is None and not leaves


def _after(engine: Engine, tries: int) -> datetime:
    ceiling: timedelta = min(RETRY_CAP, RETRY_FIRST * 2 ** min(tries, 16))
    return engine.clock.corrected() + ceiling * engine.random.uniform(0.5, 1.0)
