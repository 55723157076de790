"""The engine is killed with SIGKILL, once in each phase."""

from __future__ import annotations

from fleet_agent.engine.phases import Phase
from fleetctl.console import counted
from fleetctl.demo.beacon import Breakage
from fleetctl.demo.faults.scenarios.base import Result, Scenario, Setup

#: Phases in which the engine is killed with a healthy release; `rolling_back` needs a broken one.
KILLED_IN = (
    Phase.FETCHING, Phase.VERIFYING, Phase.VALIDATING, Phase.PULLING, Phase.SWAPPING, Phase.STARTING,
    Phase.PROBATION, Phase.COMMITTING, Phase.RECORDING, Phase.ROLLING_BACK,
)  # fmt: skip


def _killed_in_each_phase(setup: Setup, result: Result) -> None:
    setup.running_release()
    recovered: dict[str, float] = {}
    for phase in KILLED_IN:
        good, device = setup.running_release(), setup.device
        new = device.release(Breakage.CRASH if phase is Phase.ROLLING_BACK else None)
        run = device.offer(new, kill_in=phase, on_progress=setup.on_progress)
        if not run.killed:
            why = run.error or (run.status.reason if run.status else f"exit code {run.exit_code}")
            result.problems.append(f"{phase}: the engine ended before this phase: {why}")
            setup.good = None
            continue
        back = device.recover(on_progress=setup.on_progress)
        recovered[phase.value] = back.seconds
        ran = next((r for r in (good, new) if not device.troubles(r)), None)
        rows = device.rows(new)
        if ran is None:
            result.problems += [f"{phase}: {trouble}" for trouble in device.troubles(good)]
        elif phase is Phase.ROLLING_BACK and ran is new:
            result.problems.append(f"{phase}: the bad release was kept")
        if len(rows) != 1:
            result.problems.append(f"{phase}: {counted(rows, 'row')} of history instead of 1")
        which = "nothing" if ran is None else "the new release" if ran is new else "the old release"
        result.evidence.append(
            f"{phase}: {which} healthy after {back.seconds:.1f} s, {counted(rows, 'row')} of history"
        )
        setup.good = ran
    result.outcome = "recovered"
    if recovered:
        slowest = max(recovered, key=lambda phase: recovered[phase])
        result.recovered_s = recovered[slowest]
        result.message = f"Killed in {len(recovered)} phases; recovery was slowest after {slowest}."


SCENARIO = Scenario("kill", "the engine is killed (SIGKILL) in each phase", _killed_in_each_phase)
