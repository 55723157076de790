"""Watch the new release until it has proved itself or failed."""

from __future__ import annotations

from fleet_agent.engine import health_watch, running
from fleet_agent.engine.core import Engine
from fleet_agent.engine.phases import Phase


def run(engine: Engine) -> None:
    attempt = engine.attempt
    if engine.resumed:
        # The machine may have been off: perhaps nothing runs now.
        running.start(engine, attempt.target, "start the release", after_failure=True)
    proof = health_watch.until_proven(engine, attempt.target, since=engine.attempt_began)
    engine.move(Phase.COMMITTING, attempt=attempt.model_copy(update={"proof": proof}))
