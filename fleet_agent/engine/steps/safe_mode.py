"""Stop what does not work and show why, on a stack that needs no network and no pull."""

from __future__ import annotations

from fleet_agent.engine import safe_mode
from fleet_agent.engine.core import Engine
from fleet_agent.engine.phases import Phase
from fleet_agent.errors import internal


def run(engine: Engine) -> None:
    mode = engine.journal.safe_mode
    if mode is None:
        raise internal("safe mode without a reason")
    # First: whoever comes to help gets in even if Docker cannot stop the release.
    safe_mode.mark(engine)
    if not mode.release_runs:
        engine.patiently("stop the release", lambda: engine.runtime.down(engine.config.project))
    safe_mode.bring_up(engine)
    engine.move(Phase.RECORDING if engine.journal.attempt else Phase.SAFE_MODE)
