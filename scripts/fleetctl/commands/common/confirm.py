"""Asking before something affects many devices."""

from __future__ import annotations

import sys

import typer

from fleetctl.errors import FleetctlError


def confirm(what: str, *, look: str) -> bool:
    """Ask whether to `what`; True if so, else typer.Abort.

    Raises FleetctlError `confirmation_needed` without a terminal; `look` is how to check first.
    """
    if not sys.stdin.isatty():
        raise FleetctlError(
            "confirmation_needed",
            f"This would {what}.",
            hint=f"Check with {look}, then add --yes.",
            exit_code=2,
        )
    return typer.confirm(f"{what[0].upper()}{what[1:]}?", abort=True)
