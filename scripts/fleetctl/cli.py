"""The `fleetctl` command line: mounts one Typer app a subject, turns errors into sentences and exit codes."""

from __future__ import annotations

import sys

import typer

from fleetctl.console import print_error
from fleetctl.errors import FleetctlError

app = typer.Typer(
    name="fleetctl",
    help="Operate a fleet of devices: releases, rollouts, devices, halts, and an embedded control plane.",
    no_args_is_help=True,
    pretty_exceptions_enable=False,
    context_settings={"help_option_names": ["-h", "--help"]},
)


def run() -> None:
    """Run and exit: 0 done, 1 failed, 2 wrong call, 3 unreachable, 4 refused, 5 not found."""
    mount()
    try:
        app()
    except FleetctlError as error:
        print_error(error.kind, error.message, error.hint, as_json="--json" in sys.argv)
        sys.exit(error.exit_code)


def mount() -> None:
    """Attach every command."""
    from fleetctl.commands import demo, register, repo, role, stack

    for command in (stack.up, stack.down, stack.status, stack.reset, stack.migrate):
        app.command()(command)
    app.add_typer(demo.app, name="demo")
    app.add_typer(role.app, name="role")
    app.add_typer(repo.app, name="repo")
    register(app)
