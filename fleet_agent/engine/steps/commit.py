"""The new release counts from here on."""

from __future__ import annotations

from fleet_agent.engine import membership, safe_mode
from fleet_agent.engine.core import Engine
from fleet_agent.engine.journal import AttemptKind
from fleet_agent.engine.phases import Phase
from fleet_agent.model import Outcome, ReportState


def run(engine: Engine) -> None:
    attempt = engine.attempt
    safe_mode.prepare(engine, attempt.target)
    membership.remember_run(engine, attempt.target.release.commit_sha, attempt.committed_at)
    engine.files.remove(engine.paths.next)
    # A release that is started again after safe mode has no new predecessor.
    previous = engine.journal.previous if attempt.target == engine.journal.current else engine.journal.current
    proof = attempt.proof
    if attempt.kind is AttemptKind.COME_BACK:
        proof = f"Left safe mode on its own: {proof}."
    engine.move(
        Phase.RECORDING,
        attempt=attempt.model_copy(update={"outcome": Outcome.SUCCEEDED}),
        current=attempt.target,
        previous=previous,
        state=ReportState.HEALTHY,
        reason=proof,
        error=None,
        error_kind=None,
        safe_mode=None,
        failures_in_a_row=0,
        restarts_in_a_row=0,
    )
