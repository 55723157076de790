"""One file a phase. A step does its phase's work, may be repeated from its start, and moves on by itself.

It raises FleetError where its work cannot be done; what follows from that is `failures.py`'s to decide.
"""

from __future__ import annotations

from collections.abc import Callable

from fleet_agent.engine.core import Engine
from fleet_agent.engine.phases import Phase
from fleet_agent.engine.steps import (
    commit,
    fetch,
    probation,
    pull,
    record,
    rollback,
    safe_mode,
    start,
    swap,
    validate,
    verify,
)

STEPS: dict[Phase, Callable[[Engine], None]] = {
    Phase.FETCHING: fetch.run,
    Phase.VERIFYING: verify.run,
    Phase.VALIDATING: validate.run,
    Phase.PULLING: pull.run,
    Phase.SWAPPING: swap.run,
    Phase.STARTING: start.run,
    Phase.PROBATION: probation.run,
    Phase.COMMITTING: commit.run,
    Phase.ROLLING_BACK: rollback.run,
    Phase.ENTERING_SAFE_MODE: safe_mode.run,
    Phase.RECORDING: record.run,
}
