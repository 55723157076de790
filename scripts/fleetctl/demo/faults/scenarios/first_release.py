"""The very first release fails: the device stays in safe mode until a fix arrives."""

from __future__ import annotations

import json
import time
import urllib.error
import urllib.request
from typing import Any

from fleetctl.console import counted
from fleetctl.demo.beacon import Breakage
from fleetctl.demo.faults.scenarios.base import Result, Scenario, Setup
from fleetctl.demo.faults.scenarios.compare import record_attempt


def _first_release_fails(setup: Setup, result: Result) -> None:
    device = setup.new_device()
    try:
        bad = device.release(Breakage.CRASH)
        run = device.offer(bad, on_progress=setup.on_progress)
        if rows := device.rows(bad):
            record_attempt(result, rows[-1])
        if (len(rows), result.outcome) != (1, "failed"):
            result.problems.append(
                f"expected one failed attempt, got {counted(rows, 'row')} ({result.outcome})"
            )
        result.problems += [f"after the failure: {trouble}" for trouble in device.troubles(None)]
        if run.status is not None:
            result.evidence.append(run.status.reason)
        if device.runtime == "docker":
            page = safe_mode_page(device.page)
            if page is None:
                result.problems.append("the safe-mode page does not respond")
            else:
                result.evidence.append(f"safe-mode page, up since {page['since']}: {page['way_out']}")
        fix = device.release()
        began = time.monotonic()
        device.offer(fix, on_progress=setup.on_progress)
        result.problems += [f"after the fix: {trouble}" for trouble in device.troubles(fix)]
        result.evidence.append(f"a fixed release was healthy after {time.monotonic() - began:.1f} s")
        if device.runtime == "docker" and safe_mode_page(device.page, patience_s=0) is not None:
            result.problems.append("the safe-mode page is still up after the fix")
    finally:
        device.remove()


def safe_mode_page(port: int, patience_s: float = 10) -> dict[str, Any] | None:
    """What the safe-mode page serves to programs; None if it does not respond."""
    deadline = time.monotonic() + patience_s
    while True:
        try:
            with urllib.request.urlopen(f"http://127.0.0.1:{port}/status.json", timeout=2) as answer:
                said: dict[str, Any] = json.load(answer)
                return said
        except (OSError, urllib.error.URLError):
            if time.monotonic() >= deadline:
                return None
            time.sleep(0.1)


SCENARIO = Scenario(
    "first-release", "the very first release exits at once; then a fix arrives", _first_release_fails
)
