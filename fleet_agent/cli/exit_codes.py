"""What `fleet-agent` exits with, besides 0. argparse's own 2 is for a wrong command line."""

from __future__ import annotations

from fleet_agent.errors import EXIT_LOCKED, ControlPlaneError, FleetError, Kind

EXIT_FAILED = 1
EXIT_CONFIG = 2
EXIT_UNREACHABLE = 3
EXIT_REFUSED = 4
EXIT_INTERRUPTED = 130

_BY_KIND = {
    Kind.CONFIG_INVALID: EXIT_CONFIG,
    Kind.CONFIG_MISSING: EXIT_CONFIG,
    Kind.NOT_ENROLLED: EXIT_CONFIG,
    Kind.LOCKED: EXIT_LOCKED,
    Kind.UNREACHABLE: EXIT_UNREACHABLE,
    Kind.TIMED_OUT: EXIT_UNREACHABLE,
    Kind.NOT_OUR_SERVER: EXIT_UNREACHABLE,
    Kind.SERVER_ERROR: EXIT_UNREACHABLE,
    Kind.RATE_LIMITED: EXIT_UNREACHABLE,
    Kind.CLOCK_WRONG: EXIT_UNREACHABLE,
}


def exit_code(error: FleetError) -> int:
    return _BY_KIND.get(error.kind, EXIT_REFUSED if isinstance(error, ControlPlaneError) else EXIT_FAILED)
