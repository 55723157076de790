"""Compares what came of offering a release with what should have."""

from __future__ import annotations

from typing import Any

from fleet_agent.engine.phases import Phase
from fleet_agent.model import Attempt, Outcome, Release
from fleetctl.console import counted
from fleetctl.demo.faults.engine_run import EngineRun
from fleetctl.demo.faults.scenarios.base import Expected, Result, Setup
from fleetctl.demo.faults.scenarios.client import Client


def compare(
    setup: Setup,
    result: Result,
    run: EngineRun,
    *,
    offered: Release,
    left: Release,
    expected: Expected,
    client: Client,
) -> None:
    """Compare what came of offering a release with what should have; `left` must run afterwards."""
    if run.status is None:
        result.problems.append(f"the engine did not finish: {run.error or f'exit code {run.exit_code}'}")
    rows = setup.device.rows(offered)
    if len(rows) != 1:
        result.problems.append(f"{counted(rows, 'row')} of history instead of 1")
    if rows:
        record_attempt(result, rows[-1])
    if (result.outcome, result.phase) != (expected.outcome.value, expected.phase):
        result.problems.append(
            f"expected {_ending(expected.outcome.value, expected.phase)}, "
            f"got {_ending(result.outcome, result.phase)}"
        )
    if expected.kinds and result.kind not in expected.kinds:
        result.problems.append(f"expected the kind {' or '.join(expected.kinds)}, got {result.kind}")
    result.problems += setup.device.troubles(left)
    result.recovered_s = run.spent_in(Phase.ROLLING_BACK)
    result.outage_ms = client.outage_ms
    if expected.outcome is Outcome.FAILED and result.outage_ms:
        result.problems.append(
            f"a client saw an outage of {result.outage_ms:.0f} ms, though nothing should have stopped"
        )


def _ending(outcome: str, phase: str) -> str:
    """`rolled_back while probation`, or `succeeded`."""
    return f"{outcome or 'nothing'} while {phase}" if phase else outcome or "nothing"


def record_attempt(result: Result, attempt: Attempt) -> None:
    result.outcome = attempt.outcome.value
    result.phase, result.kind = attempt.failed_phase or "", attempt.error_kind or ""
    result.message = attempt.error or ""
    result.evidence = evidence_lines(attempt.evidence)


def evidence_lines(evidence: dict[str, Any]) -> list[str]:
    """Evidence in lines: exit codes of containers, then the last lines that were logged."""
    lines = [
        f"{container['service']}: exit code {container['exit_code']}, "
        f"{counted(container.get('restarts', 0), 'restart')}"
        for container in evidence.get("containers", [])
        if isinstance(container, dict) and container.get("exit_code")
    ]
    said = [str(line).strip() for line in [*evidence.get("log", []), *evidence.get("output", [])]]
    # A container that is started again and again logs the same each time.
    return lines + list(dict.fromkeys(said))[-3:]
