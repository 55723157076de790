"""Small jobs that need heavy modules, done in a short-lived child so that the daemon stays small.

`python -m fleet_agent.daemon.engine_queries <job>`: one JSON request on stdin, one JSON answer on stdout.
"""

from __future__ import annotations

import asyncio
import json
import sys
from collections.abc import Callable
from typing import Any

from fleet_agent.errors import FleetError, Kind, StateError

TIMEOUT_S = 120.0


async def run(job: str, request: dict[str, object]) -> dict[str, Any]:
    """Do `job` in a child. Raises FleetError of the kind that the child named; `interrupted` when it died."""
    child = await asyncio.create_subprocess_exec(
        sys.executable, "-m", "fleet_agent.daemon.engine_queries", job,
        stdin=asyncio.subprocess.PIPE,
        stdout=asyncio.subprocess.PIPE,
    )  # fmt: skip
    try:
        async with asyncio.timeout(TIMEOUT_S):
            output, _ = await child.communicate(json.dumps(request).encode())
        answer = json.loads(output)
    except (TimeoutError, ValueError) as error:
        raise StateError(
            Kind.INTERRUPTED, f"The job {job} did not end well.", hint="Its log says why.", retryable=True
        ) from error
    finally:
        if child.returncode is None:
            child.kill()
            await child.wait()
    problem = answer.get("error")
    if problem is not None:
        raise StateError(Kind(problem["kind"]), problem["message"], hint=problem["hint"])
    return dict(answer)


def _tail_logs(request: dict[str, Any]) -> dict[str, Any]:
    from fleet_agent.engine.api import EngineConfig, logs

    lines = request.pop("lines")
    found = logs(EngineConfig.model_validate(request), lines=lines)
    return {
        "lines": [
            {"service": line.service, "text": line.text, "at": line.at.isoformat() if line.at else None}
            for line in found
        ]
    }


def _check_drift(request: dict[str, Any]) -> dict[str, Any]:
    from fleet_agent.engine.api import EngineConfig, drift

    return {"changed": drift(EngineConfig.model_validate(request))}


_JOBS: dict[str, Callable[[dict[str, Any]], dict[str, Any]]] = {
    "tail_logs": _tail_logs,
    "check_drift": _check_drift,
}


def _main() -> None:
    from fleet_agent import log

    log.set_up("WARNING")
    try:
        answer = _JOBS[sys.argv[1]](json.load(sys.stdin))
    except FleetError as error:
        answer = {"error": {"kind": error.kind.value, "message": error.message, "hint": error.hint}}
    json.dump(answer, sys.stdout)


if __name__ == "__main__":
    _main()
