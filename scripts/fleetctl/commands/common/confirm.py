"""Asking before something affects many devices."""

from __future__ import annotations

import sys
from collections.abc import Mapping

import typer

from fleetctl.commands.common.context import Context
from fleetctl.errors import FleetctlError


def agreed(
    context: Context,
    what: str,
    devices: int,
    told: Mapping[str, object],
    *,
    dry_run: bool,
    yes: bool,
    always_ask: bool = False,
) -> bool:
    """Say what would happen, and ask if it sends, takes back or changes something on more than one device.

    False: a dry run, which was told. Raises FleetctlError `confirmation_needed` without a terminal, or
    typer.Abort.
    """
    if dry_run:
        context.say(f"Would {what}.", {"dry_run": True, **told})
        return False
    if not yes and (always_ask or devices > 1):
        confirm(what, look="--dry-run")
    return True


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
