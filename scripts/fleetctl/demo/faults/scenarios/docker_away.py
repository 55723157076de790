"""Docker stops responding while the release starts."""

from __future__ import annotations

import time

from fleet_agent.engine.phases import Phase
from fleet_agent.model import Outcome, Progress
from fleetctl.console import counted
from fleetctl.demo.faults.scenarios.base import Expected, Result, Scenario, Setup
from fleetctl.demo.faults.scenarios.client import Client
from fleetctl.demo.faults.scenarios.compare import compare


def _docker_goes_away(setup: Setup, result: Result) -> None:
    """Away from the moment the new containers should start, for three seconds."""
    setup.running_release()
    device, new = setup.device, setup.device.release()
    away: list[float] = []

    def take_away(progress: Progress) -> None:
        setup.on_progress(progress)
        if progress.phase == Phase.STARTING and not away:
            away.append(time.monotonic())
            device.docker_away()
        elif progress.detail.startswith("waiting for Docker") and time.monotonic() > away[0] + 1:
            device.docker_back()

    if not device.environment:
        result.skipped = "Docker is not reached through a local socket here"
        return
    try:
        with Client(setup) as client:
            run = device.offer(new, on_progress=take_away)
    finally:
        device.docker_back()
    compare(
        setup, result, run, offered=new, left=new, expected=Expected(Outcome.SUCCEEDED, "", ()), client=client
    )
    waits = [line for line in run.progress if line.detail.startswith("waiting for Docker")]
    result.message = f"Waited for Docker {counted(waits, 'time')}, then continued."
    if not waits:
        result.problems.append("the engine never noticed that Docker was away")
    setup.good = new


SCENARIO = Scenario(
    "docker-away",
    "Docker stops responding while the release starts",
    _docker_goes_away,
    "there is no Docker to go away",
)
