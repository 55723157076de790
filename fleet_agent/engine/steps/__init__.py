"""One file for each phase. A step does the work of its phase, may be repeated from its start, and moves on.

It raises FleetError if its work cannot be done; `failure_policy` decides what follows.
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
