"""The command line of a device. Heavy modules are imported by the command that needs them."""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from pathlib import Path

from fleet_agent import __version__
from fleet_agent.cli import enroll, run, service, status
from fleet_agent.cli.context import Context, complain
from fleet_agent.cli.exit_codes import EXIT_INTERRUPTED, exit_code
from fleet_agent.errors import FleetError
from fleet_agent.paths import DEFAULT_CONFIG, DEFAULT_ROOT, Paths


def main(arguments: Sequence[str] | None = None) -> int:
    """Run one command; returns the exit code. Errors are one sentence with its kind on standard error."""
    options = parser().parse_args(arguments)
    context = Context(Paths(options.root.absolute()), options.config.absolute())
    try:
        code: int = options.run(context, options)
    except FleetError as error:
        complain(error)
        return exit_code(error)
    except KeyboardInterrupt:
        return EXIT_INTERRUPTED
    return code


def parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="fleet-agent", description="Keeps this device on the release that its fleet assigns to it."
    )
    parser.add_argument("--version", action="version", version=f"fleet-agent {__version__}")
    common = argparse.ArgumentParser(add_help=False)
    common.add_argument(
        "--root", type=Path, default=DEFAULT_ROOT, help=f"the agent's folder (default {DEFAULT_ROOT})"
    )
    common.add_argument(
        "--config", type=Path, default=DEFAULT_CONFIG, help=f"its configuration (default {DEFAULT_CONFIG})"
    )
    commands = parser.add_subparsers(required=True, metavar="COMMAND")

    def command(name: str, *, help: str) -> argparse.ArgumentParser:
        return commands.add_parser(name, parents=[common], help=help)

    for module in (enroll, run, status, service):
        module.add(command)
    return parser
