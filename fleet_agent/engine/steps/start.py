"""Start what changed. Images are here already, so the outage is only that of the changed services."""

from __future__ import annotations

from fleet_agent.engine import repair, running, safe_mode
from fleet_agent.engine.core import Engine
from fleet_agent.engine.phases import Phase


def run(engine: Engine) -> None:
    target = engine.attempt.target
    # Its status page may hold a port that the release needs.
    safe_mode.take_down(engine)
    if target == engine.journal.current:
        # Out of safe mode, where it may have lain for long.
        repair.start(engine, repair.restore_stack(engine, target))
        engine.move(Phase.PROBATION)
        return
    # After a kill the fault is not the release's: then also what keeps Compose from starting is replaced.
    running.start(engine, target, "start the release", after_failure=engine.resumed)
    engine.move(Phase.PROBATION)
