"""`compose up` never ends."""

from __future__ import annotations

import time

from loguru import logger

from fleet_agent.containers.compose import ComposeRuntime
from fleet_agent.containers.compose_program import find_compose
from fleet_agent.engine import api
from fleet_agent.engine.dependencies import Dependencies
from fleet_agent.model import Progress
from fleetctl.demo.faults.engine_run import EngineRun, Line
from fleetctl.demo.faults.scenarios.base import Result, Scenario, Setup, went_back
from fleetctl.demo.faults.scenarios.client import Client
from fleetctl.demo.faults.scenarios.compare import compare


def _compose_hangs(setup: Setup, result: Result) -> None:
    """The first `up` never ends; in this process, since only here its limit can be made seconds."""
    good, device = setup.running_release(), setup.device
    program = find_compose() or []
    mark, hanging = device.root / "hung", device.root / "compose"
    hanging.write_text(
        f'#!/bin/sh\ncase "$*" in *" up "*) [ -e {mark} ] || {{ echo $$ > {mark}; sleep 300; }};; esac\n'
        f'exec {" ".join(map(str, program))} "$@"\n'
    )
    hanging.chmod(0o755)
    bad = device.release()
    run = EngineRun(began=time.monotonic())

    def listen(progress: Progress) -> None:
        run.progress.append(Line(time.monotonic(), progress.phase, progress.detail))
        setup.on_progress(progress)

    # The other scenarios' engines log into a pipe; this one would log over what the person reads.
    logger.disable("fleet_agent")
    with Client(setup) as client:
        run.status = api.converge(
            device.config,
            device.directive(bad),
            listen,
            dependencies=Dependencies(runtime=ComposeRuntime([str(hanging)], up_limit_s=4)),
        )
    logger.enable("fleet_agent")
    compare(
        setup,
        result,
        run,
        offered=bad,
        left=good,
        expected=went_back("compose_hung", phase="starting"),
        client=client,
    )


SCENARIO = Scenario("compose-hangs", "`compose up` never ends", _compose_hangs, "there is no Compose to hang")
