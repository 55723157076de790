"""Releases that are broken in themselves: one is offered, and the device must be healthy at the end."""

from __future__ import annotations

from collections.abc import Callable

from fleetctl.demo.beacon import Breakage
from fleetctl.demo.faults.scenarios.base import Expected, Result, Scenario, Setup, untouched, went_back
from fleetctl.demo.faults.scenarios.client import Client
from fleetctl.demo.faults.scenarios.compare import compare

#: Lines of the beacon's compose.yaml that a scenario replaces.
BUSYBOX = "image: busybox:stable"
COMMAND = "    command: [sh, /web/serve]\n"


def bad_release(
    expected: Expected,
    breakage: Breakage | None = None,
    edits: dict[str, tuple[str, str]] | None = None,
    before: Callable[[Setup], None] | None = None,
) -> Callable[[Setup, Result], None]:
    """Offer a bad release to a healthy device, which must be healthy again, or still, at the end."""

    def run(setup: Setup, result: Result) -> None:
        good, device = setup.running_release(), setup.device
        if before is not None:
            before(setup)
        bad = device.release(breakage, edits=edits)
        with Client(setup) as client:
            run = device.offer(bad, on_progress=setup.on_progress)
        compare(setup, result, run, offered=bad, left=good, expected=expected, client=client)

    return run


NO_START = Scenario(
    "no-start",
    "the container's program does not exist",
    bad_release(
        went_back("compose_failed", phase="starting"),
        edits={
            "compose.yaml": (
                COMMAND,
                "    labels: {fleet.simulate: no-start}\n    entrypoint: [/no/such/program]\n",
            )
        },
    ),
)
CRASH = Scenario(
    "crash",
    "the container exits at once",
    bad_release(went_back("container_exited"), Breakage.CRASH),
)
CRASH_LATE = Scenario(
    "crash-late",
    "the container works at first, and exits after 20 seconds",
    bad_release(
        went_back("container_exited"),
        Breakage.CRASH_LATE,
        # Its own probation is longer than its life.
        edits={"role.yaml": ("successes: 3", "successes: 28")},
    ),
)
HTTP_ERRORS = Scenario(
    "http-errors",
    "the service responds with 404",
    bad_release(went_back("unhealthy"), Breakage.HTTP_ERROR),
)
CONFIG_ERROR = Scenario(
    "config-error",
    "the compose file is not valid",
    bad_release(untouched("compose_invalid"), Breakage.CONFIG_ERROR),
)
VARIABLE_MISSING = Scenario(
    "variable-missing",
    "the role needs a variable that the device does not have",
    bad_release(untouched("variable_missing"), Breakage.VARIABLE_MISSING),
)
REGISTRY_DOWN = Scenario(
    "registry-down",
    "the image's registry does not respond",
    bad_release(
        untouched("registry_unreachable", "pulling"),
        edits={"compose.yaml": (BUSYBOX, "image: 127.0.0.1:1/beacon:stable")},
    ),
    "simulated containers have no registry",
)
IGNORES_TERM = Scenario(
    "ignores-term",
    "the release is broken, and its container ignores SIGTERM",
    bad_release(went_back("unhealthy"), Breakage.IGNORES_TERM),
)
