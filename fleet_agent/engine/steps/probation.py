"""Watch the new release until it has proved itself or failed."""

from __future__ import annotations

from fleet_agent.engine import health_watch
from fleet_agent.engine.core import Engine
from fleet_agent.engine.phases import Phase


def run(engine: Engine) -> None:
    attempt = engine.attempt
    if engine.resumed:
        # The machine may have been off: perhaps nothing runs now.
        engine.patiently("start the release", lambda: engine.runtime.up(engine.stack(attempt.target)))
    proof = health_watch.until_proven(engine, attempt.target, since=engine.attempt_began)
    engine.move(Phase.COMMITTING, attempt=attempt.model_copy(update={"proof": proof}))
