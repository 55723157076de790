"""The `fleetctl` command line: mounts one Typer app a subject, turns errors into sentences and exit codes."""

from __future__ import annotations

import os
import sys
from types import ModuleType
from typing import cast

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
    mount(_called())
    try:
        app()
    except FleetctlError as error:
        print_error(error.kind, error.message, error.hint, as_json="--json" in sys.argv)
        sys.exit(error.exit_code)
    except Exception as error:  # the one place: no traceback reaches a person
        if os.environ.get("FLEET_TRACEBACK"):
            raise
        print_error(
            "unexpected",
            f"fleetctl failed: {type(error).__name__}: {error}",
            "Set FLEET_TRACEBACK=1 to see where, and report it.",
            as_json="--json" in sys.argv,
        )
        sys.exit(1)


def mount(only: str | None = None) -> None:
    """Attach every command, or those of the module that has `only`."""
    from fleetctl.commands import GROUPS, VERBS, register

    # So that a single command stays one.
    app.callback()(lambda: None)
    if only not in GROUPS and only not in VERBS:
        from fleetctl.commands import demo, repo, role, stack

        for command in (stack.up, stack.down, stack.status, stack.reset, stack.migrate):
            app.command()(command)
        app.add_typer(demo.app, name="demo")
        app.add_typer(role.app, name="role")
        app.add_typer(repo.app, name="repo")
        only = None
    else:
        _leave_out()
    register(app, only)


def _leave_out() -> None:
    """What httpx loads and a command that asks the control plane does not use: a third of its time."""
    # A module that is None fails to import, as if it were not installed; httpx does without these.
    for module in ("httpx._main", "httpcore._sync.http2", "httpcore._async.http2"):
        sys.modules.setdefault(module, cast("ModuleType", None))


def _called() -> str | None:
    """The command that is called, if nothing but its own module is needed."""
    completing = any(name.startswith("_FLEETCTL") for name in os.environ)
    return sys.argv[1] if len(sys.argv) > 1 and not completing else None
