"""What follows from a failure: recorded only, back to the previous release, or safe mode."""

from __future__ import annotations

from loguru import logger

from fleet_agent.engine import come_back, links, prefetch
from fleet_agent.engine.core import Engine
from fleet_agent.engine.journal import AttemptInHand, AttemptKind, SafeMode
from fleet_agent.engine.phases import UNPROVEN, UNTOUCHED, Phase
from fleet_agent.errors import ContainerError, FleetError, Kind
from fleet_agent.model import Outcome, ReportState

#: Evidence: enough to see a release's last output, small enough for a row.
LOG_LINES = 8
LOG_LINE_LIMIT = 300
LOG_TOTAL = 40

#: Starts in which a fault of the agent kept the previous release from being proven.
GOING_BACK = 3


def follow(engine: Engine, error: FleetError) -> None:
    """Move on after a step failed. Raises `error` again if only another start can help."""
    phase = engine.journal.phase
    if phase in UNTOUCHED:
        logger.warning("gave up while {phase}: {error}", phase=phase, error=error.message)
        _give_up(engine, error)
    elif phase in UNPROVEN:
        logger.error("{phase} failed: {error}", phase=phase, error=error.message)
        attempt = with_last_output(engine, engine.with_failure(error))
        engine.move(
            Phase.ROLLING_BACK, attempt=attempt, reason=attempt.failure.message if attempt.failure else ""
        )
    elif _always_fails_to_go_back(engine, error):
        into_safe_mode(engine, f"going back failed {GOING_BACK} times: {error.message}")
    else:
        raise error


def _always_fails_to_go_back(engine: Engine, error: FleetError) -> bool:
    """A fault of the agent itself that every start meets again. Safe mode accepts a fix; this would not."""
    returning = engine.journal.phase is Phase.ROLLING_BACK and error.kind is Kind.INTERNAL
    return returning and engine.attempt.interruptions + 1 >= GOING_BACK


def _give_up(engine: Engine, error: FleetError) -> None:
    """Nothing has been touched: only the attempt ends."""
    attempt = engine.with_failure(error)
    engine.save(attempt=attempt)
    failure = attempt.failure
    if attempt.kind is AttemptKind.PREFETCH:
        prefetch.fail(engine)
    elif failure is None or failure.kind in (Kind.SUPERSEDED, Kind.INTERRUPTED):
        record(engine, Outcome.SKIPPED, engine.journal.state)
    elif engine.journal.current is None and engine.journal.safe_mode is None and not failure.retryable:
        into_safe_mode(engine, "the first release cannot run on this device")
    else:
        state = engine.journal.state
        if engine.journal.current is None and engine.journal.safe_mode is None:
            state = ReportState.DEGRADED
        record(engine, Outcome.FAILED, state)


def record(engine: Engine, outcome: Outcome, state: ReportState) -> None:
    """End the attempt with `outcome` and count it: too many failures in a row lead to safe mode."""
    attempt, journal = engine.attempt, engine.journal
    failure = attempt.failure
    counts = outcome is not Outcome.SKIPPED and failure is not None and not failure.passes
    in_a_row = journal.failures_in_a_row + (1 if counts else 0)
    if counts and in_a_row >= engine.config.safe_mode_after and journal.safe_mode is None:
        into_safe_mode(
            engine,
            f"{in_a_row} updates in a row failed",
            outcome=outcome,
            release_runs=journal.current is not None,
            in_a_row=in_a_row,
        )
        return
    skipped = outcome is Outcome.SKIPPED
    still = "Still in safe mode. " if journal.safe_mode else ""
    engine.move(
        Phase.RECORDING,
        attempt=attempt.model_copy(update={"outcome": outcome}),
        state=ReportState.SAFE_MODE if journal.safe_mode else state,
        reason=journal.reason if skipped else still + summary(attempt, outcome),
        error_kind=journal.error_kind if skipped or failure is None else failure.kind,
        error=journal.error if skipped or failure is None else failure.message,
        failures_in_a_row=in_a_row,
    )


def into_safe_mode(
    engine: Engine,
    why: str,
    *,
    outcome: Outcome = Outcome.FAILED,
    release_runs: bool = False,
    in_a_row: int | None = None,
) -> None:
    """End the attempt in safe mode. With `release_runs`, what was committed last keeps running beside it."""
    attempt = engine.attempt
    failure = attempt.failure
    links.clear_staged(engine)
    if attempt.kind is AttemptKind.COME_BACK:
        come_back.failed(engine)
        return
    sentence = f"Safe mode: {why.rstrip('.')}."
    if failure is not None:
        sentence += f" {attempt.target.release.version} failed {_when(failure.phase)}: {failure.message}"
    mode = SafeMode(
        reason=sentence,
        kind=failure.kind if failure else Kind.UNHEALTHY,
        release_runs=release_runs,
        since=engine.clock.corrected(),
        next_try_at=None if release_runs else come_back.first_try_at(engine),
    )
    engine.move(
        Phase.ENTERING_SAFE_MODE,
        attempt=attempt.model_copy(update={"outcome": outcome}),
        state=ReportState.SAFE_MODE,
        safe_mode=mode,
        reason=sentence,
        error_kind=mode.kind,
        error=failure.message if failure else why,
        failures_in_a_row=engine.journal.failures_in_a_row + 1 if in_a_row is None else in_a_row,
    )


def summary(attempt: AttemptInHand, outcome: Outcome) -> str:
    """What happened, in a sentence for the dashboard."""
    failure, version = attempt.failure, attempt.target.release.version
    if failure is None:
        return attempt.proof
    why = f"{version} failed {_when(failure.phase)}: {failure.message}"
    if outcome is Outcome.ROLLED_BACK and attempt.origin is not None:
        return f"Went back to {attempt.origin.release.version}. {why}"
    if attempt.origin is not None:
        return f"Still running {attempt.origin.release.version}. {why}"
    return why


def with_last_output(engine: Engine, attempt: AttemptInHand) -> AttemptInHand:
    """Add the containers' last output and how they ended, if Docker still answers."""
    if attempt.failure is None:
        return attempt
    project = engine.config.project
    try:
        lines = engine.runtime.logs(project, lines=LOG_LINES, since=engine.attempt_began)
        containers = engine.runtime.services(project)
        restarted = any(container.restarts for container in containers)
        exits = engine.runtime.last_exits(project) if restarted else {}
    except ContainerError as error:
        logger.debug("no last output: {error}", error=error.message)
        return attempt
    unwell = {c.service for c in containers if c.state != "running" or c.restarts or c.health == "unhealthy"}
    # The last ones are kept: if there are many, those of containers that are not well.
    lines.sort(key=lambda line: line.service in unwell)
    said = [f"{line.service}: {engine.redact(line.text)[:LOG_LINE_LIMIT]}" for line in lines[-LOG_TOTAL:]]
    seen = [
        {
            "service": container.service,
            "state": container.state,
            "health": container.health,
            "exit_code": exits.get(container.id) if container.exit_code is None else container.exit_code,
            "restarts": container.restarts,
        }
        for container in containers
    ]
    evidence = {**attempt.failure.evidence, "log": said, "containers": seen}
    failure = attempt.failure.model_copy(update={"evidence": evidence})
    return attempt.model_copy(update={"failure": failure})


def _when(phase: str) -> str:
    return "in probation" if phase == Phase.PROBATION else "while " + str(phase).replace("_", " ")
