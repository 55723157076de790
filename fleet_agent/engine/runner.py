"""Run steps until the engine rests."""

from __future__ import annotations

from loguru import logger

from fleet_agent.engine import (
    come_back,
    failure_policy,
    retention,
    safe_mode,
)
from fleet_agent.engine.core import Engine
from fleet_agent.engine.journal import AttemptKind, SafeMode
from fleet_agent.engine.phases import RESTING, UNTOUCHED, Phase
from fleet_agent.engine.steps import STEPS
from fleet_agent.errors import FleetError, Kind, ReleaseError, StateError, internal
from fleet_agent.model import Action, Directive, ReportState
from fleet_agent.support.atomic_files import kind_of


def work(engine: Engine) -> None:
    """Bring the attempt in hand to its end. Raises FleetError if only another start can."""
    busy = engine.journal.phase not in RESTING
    while engine.journal.phase not in RESTING:
        try:
            _step(engine)
        except FleetError as error:
            failure_policy.follow(engine, engine.cleaned(error))
    if busy:
        retention.clean(engine)
        # Last: leaving safe mode ends the ssh session that this may be running in.
        safe_mode.mark(engine)


def enter_safe_mode(
    engine: Engine, reason: str, kind: str, *, release_runs: bool = False, comes_back: bool = False
) -> None:
    """From rest: show why, and stop the release unless it keeps running.

    With `comes_back` the device tries by itself to bring it back.
    """
    mode = SafeMode(
        reason=reason,
        kind=kind,
        release_runs=release_runs,
        since=engine.clock.corrected(),
        next_try_at=come_back.first_try_at(engine) if comes_back else None,
    )
    engine.move(
        Phase.ENTERING_SAFE_MODE,
        safe_mode=mode,
        state=ReportState.SAFE_MODE,
        reason=reason,
        error_kind=kind,
        error=reason,
        restarts_in_a_row=0,
    )
    work(engine)


def _step(engine: Engine) -> None:
    """One step, with every exception of the system translated."""
    phase = engine.journal.phase
    try:
        if phase in UNTOUCHED:
            _refuse_if_superseded(engine)
        STEPS[phase](engine)
    except FleetError:
        raise
    except OSError as error:
        raise StateError(
            kind_of(error),
            f"A disk operation failed while {phase}: {error.strerror or error}.",
            retryable=True,
        ) from error
    except MemoryError as error:
        sentence = f"The agent ran out of memory while {phase}."
        raise StateError(Kind.MEMORY_SHORT, sentence, retryable=True) from error
    except Exception as error:
        # A bug must end like any other failure: with the old release running and a row that reports it.
        logger.opt(exception=error).error("internal error while {phase}", phase=phase)
        raise internal(f"{type(error).__name__} while {phase}") from error


def _refuse_if_superseded(engine: Engine) -> None:
    newest, attempt = engine.dependencies.newest(), engine.attempt
    if newest is None or wants(newest, attempt.target.key):
        return
    if attempt.kind is AttemptKind.PREFETCH and wants_ahead(newest, attempt.target.key):
        return
    what = (
        newest.release.version if newest.action is Action.UPDATE and newest.release else newest.action.value
    )
    raise ReleaseError(
        Kind.SUPERSEDED,
        f"The control plane now asks for something else ({what}); nothing had been changed.",
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
