"""Compares what came of offering a release with what should have."""

from __future__ import annotations

from typing import Any

from fleet_agent.engine.phases import Phase
from fleet_agent.model import Attempt, Outcome, Release
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
        result.problems.append(f"the engine did not come to an end: {run.error or run.exit_code}")
    rows = setup.device.rows(offered)
    if len(rows) != 1:
        result.problems.append(f"{len(rows)} rows of history, not 1")
    if rows:
        record_attempt(result, rows[-1])
    if (result.outcome, result.phase) != (expected.outcome.value, expected.phase):
        result.problems.append(
            f"it should have {expected.outcome.value} in {expected.phase or 'no phase'}, not "
            f"{result.outcome} in {result.phase or 'no phase'}"
        )
    if expected.kinds and result.kind not in expected.kinds:
        result.problems.append(f"its kind should be {' or '.join(expected.kinds)}, not {result.kind}")
    result.problems += setup.device.troubles(left)
    result.proven_s = run.spent_in(Phase.ROLLING_BACK)
    result.outage_ms = client.outage_ms
    if expected.outcome is Outcome.FAILED and result.outage_ms:
        result.problems.append(f"a client lost {result.outage_ms:.0f} ms, and nothing should have stopped")


def record_attempt(result: Result, attempt: Attempt) -> None:
    result.outcome = attempt.outcome.value
    result.phase, result.kind = attempt.failed_phase or "", attempt.error_kind or ""
    result.said = attempt.error or ""
    result.evidence = evidence_lines(attempt.evidence)


def evidence_lines(evidence: dict[str, Any]) -> list[str]:
    """Evidence in lines: exit codes of containers, then the last lines that were logged."""
    lines = [
        f"{container['service']}: exit code {container['exit_code']}, {container.get('restarts', 0)} restarts"
        for container in evidence.get("containers", [])
        if isinstance(container, dict) and container.get("exit_code")
    ]
    said = [str(line).strip() for line in [*evidence.get("log", []), *evidence.get("output", [])]]
    # A container that is started again and again says the same each time.
    return lines + list(dict.fromkeys(said))[-3:]
