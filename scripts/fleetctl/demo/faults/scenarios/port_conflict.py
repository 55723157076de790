"""The release needs a port that another program uses."""

from __future__ import annotations

import socket

from fleetctl.demo.faults.scenarios.base import Result, Scenario, Setup, untouched
from fleetctl.demo.faults.scenarios.client import Client
from fleetctl.demo.faults.scenarios.compare import compare


def _port_taken(setup: Setup, result: Result) -> None:
    good, device = setup.running_release(), setup.device
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        port = taken.getsockname()[1]
        ports = '    ports: ["${BEACON_ADDRESS:-127.0.0.1}:${BEACON_PORT:-8080}:8080"'
        bad = device.release(edits={"compose.yaml": (f"{ports}]", f'{ports}, "127.0.0.1:{port}:8090"]')})
        with Client(setup) as client:
            run = device.offer(bad, on_progress=setup.on_progress)
    compare(setup, result, run, offered=bad, left=good, expected=untouched("port_conflict"), client=client)
    if str(port) not in result.message:
        result.problems.append(f"the message does not name port {port}")


SCENARIO = Scenario(
    "port-conflict",
    "the release needs a port that another program uses",
    _port_taken,
    "simulated containers open no ports",
)
