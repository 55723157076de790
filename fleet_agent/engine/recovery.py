"""From whatever the last run left to a state that the engine can continue from."""

from __future__ import annotations

from datetime import datetime

from loguru import logger
from pydantic import ValidationError as PydanticValidationError

from fleet_agent.engine import disk_space, failure_policy, links, retention, safe_mode
from fleet_agent.engine import journal as journals
from fleet_agent.engine.core import Engine
from fleet_agent.engine.failure_memory import INTERRUPTIONS_LIMIT
from fleet_agent.engine.journal import AttemptInHand, Deployed, Failure, Journal, SafeMode
from fleet_agent.engine.phases import RESTING, UNPROVEN, UNTOUCHED, UNVERIFIED, Phase
from fleet_agent.engine.stack_store import StackStore
from fleet_agent.engine.state_files import RESERVE_BYTES
from fleet_agent.errors import FleetError, Kind, StateError, internal
from fleet_agent.model import Outcome, ReportState
from fleet_agent.paths import Paths

#: A release during which the engine died this often after the swap is not started again.
STARTS = 2


def load(paths: Paths, stacks: StackStore, now: datetime) -> Journal:
    """The journal; if there is none that can be read, one made from the links and the attempt's copy."""
    found = journals.load(paths.journal)
    return found if found is not None else rebuild(paths, stacks, now)


def rebuild(paths: Paths, stacks: StackStore, now: datetime) -> Journal:
    """Make a journal out of the links (see `links`). Undecided means back to what has proved itself."""
    seen, attempt, marked = links.read(paths), _copy_of_attempt(paths), paths.in_safe_mode.exists()
    if seen.current is None and attempt is None and not marked:
        return Journal()
    logger.warning("rebuilding the journal from the links: {links}", links=seen)
    current, previous, staged = (_deployed(stacks, c) for c in (seen.current, seen.previous, seen.next))
    if seen.next is not None:
        # Swapped already, then the older one is `app_prev`; not yet, then it is still `app_current`.
        older = previous if seen.current == seen.next else current
        return _going_back(older, staged, attempt, now)
    journal = _recorded(
        Journal(current=current, previous=previous, reason="Known only from the links."), attempt
    )
    arrived = attempt is not None and attempt.target == current
    if arrived or (current is not None and not marked):
        return journal
    return _in_safe_mode(journal, now, beside=current is not None and safe_mode.is_marked_beside(paths))


def _going_back(
    older: Deployed | None, staged: Deployed | None, attempt: AttemptInHand | None, now: datetime
) -> Journal:
    """A release was staged and neither committed nor given up."""
    lost = _lost(Phase.PROBATION)
    if attempt is None and staged is not None:
        attempt = journals.new_attempt(staged, older, now)
    if attempt is None:
        return Journal(current=older, reason=lost.message)
    return Journal(
        phase=Phase.ROLLING_BACK,
        state=ReportState.UPDATING,
        reason=lost.message,
        current=older,
        attempt=attempt.model_copy(update={"origin": older, "failure": lost}),
    )


def _recorded(journal: Journal, attempt: AttemptInHand | None) -> Journal:
    """Nothing is staged: an attempt of which the copy is left has ended, and is still to be recorded."""
    if attempt is None:
        return journal
    arrived = attempt.target == journal.current
    ended = {
        "outcome": Outcome.SUCCEEDED if arrived else Outcome.FAILED,
        "failure": None if arrived else _lost(Phase.FETCHING),
        "finished_at": attempt.started_at,
    }
    return journal.model_copy(update={"phase": Phase.RECORDING, "attempt": attempt.model_copy(update=ended)})


def _lost(phase: Phase) -> Failure:
    return Failure(
        phase=phase,
        kind=Kind.STATE_CORRUPT,
        message="The agent's journal was lost during the update.",
        retryable=True,
    )


def _in_safe_mode(journal: Journal, now: datetime, *, beside: bool) -> Journal:
    """What runs is not known to have worked, or the device was in safe mode for a reason that is lost."""
    why = "no release is known to have worked here" if journal.current is None else "the reason with it"
    reason = f"Safe mode: the agent's journal was lost, and {why}."
    mode = SafeMode(reason=reason, kind=Kind.STATE_CORRUPT, release_runs=beside, since=now)
    return journal.model_copy(
        update={
            "phase": Phase.ENTERING_SAFE_MODE,
            "state": ReportState.SAFE_MODE,
            "safe_mode": mode,
            "reason": reason,
            "error_kind": mode.kind,
            "error": reason,
        }
    )


def resume(engine: Engine) -> None:
    """Decide how an interrupted attempt continues; afterwards the steps can simply be run."""
    journal = engine.journal
    _remove_unfinished_writes(engine)
    if disk_space.free_bytes(engine) < RESERVE_BYTES:
        # Perhaps full of what the last run left: without space nothing can even be given up.
        retention.drop_pending(engine)
        retention.clean(engine)
    if not engine.paths.journal.exists() and journal != Journal():
        # Rebuilt, and nothing else may have to be written: a mere look must find it, too.
        engine.save()
    if journal.phase in RESTING:
        # Written before the journal, removed after it: at rest it is only a leftover.
        engine.files.remove(engine.attempt_file)
        return
    logger.warning("the last run ended while {phase}; continuing from there", phase=journal.phase)
    attempt = engine.journal.attempt
    if attempt is None:
        return
    attempt = attempt.model_copy(update={"interruptions": attempt.interruptions + 1})
    engine.save(attempt=attempt)
    if journal.phase in UNTOUCHED:
        _give_up(engine, attempt)
    elif journal.phase in UNPROVEN and attempt.interruptions >= STARTS:
        failure_policy.follow(
            engine, _interrupted(attempt, "The device or the agent crashed twice while running it.")
        )


def _remove_unfinished_writes(engine: Engine) -> None:
    """Remove what a crash left of files being written. Only ours: the daemon writes to this folder, too."""
    state = engine.paths.state
    ours = (
        "journal.json",
        "attempt.json",
        "known_bad.json",
        "membership.json",
        "compose.json",
        "stack.json",
        "status.json",
        "reserve",
        "in_safe_mode",
    )
    for name in ours:
        for left in state.rglob(f".{name}.*"):
            engine.files.remove(left)
    for link in (engine.paths.current, engine.paths.previous, engine.paths.next):
        engine.files.remove(link.with_name(f".{link.name}.new"))
    # Attempts are written by whoever holds the lock, so by us.
    for left in engine.paths.outbox.glob(".*.json.*"):
        engine.files.remove(left)


def _give_up(engine: Engine, attempt: AttemptInHand) -> None:
    """Nothing was touched, and something else may be requested by now: the next check-in decides."""
    memory = engine.memory.with_interruption(attempt.memory_key)
    engine.remember(memory)
    often = memory.interruptions[attempt.memory_key]
    if often >= INTERRUPTIONS_LIMIT:
        # Before it was verified nothing is the release's own fault: it may be that of whoever runs the Git
        # host, or of the power. Then it is only tried more and more rarely.
        error = internal(
            f"the agent crashed {often} times while preparing this release",
            retryable=engine.journal.phase in UNVERIFIED,
        )
        failure_policy.follow(engine, error)
        return
    failure_policy.follow(
        engine, _interrupted(attempt, "The update was interrupted; nothing had been changed.")
    )


def _interrupted(attempt: AttemptInHand, sentence: str) -> FleetError:
    return StateError(Kind.INTERRUPTED, sentence, evidence={"interruptions": attempt.interruptions})


def _deployed(stacks: StackStore, commit: str | None) -> Deployed | None:
    record = stacks.of_commit(commit) if commit is not None else None
    return record.deployed if record is not None else None


def _copy_of_attempt(paths: Paths) -> AttemptInHand | None:
    try:
        return AttemptInHand.model_validate_json((paths.state / "attempt.json").read_bytes())
    except (OSError, PydanticValidationError):
        return None
