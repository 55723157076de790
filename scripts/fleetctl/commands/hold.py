"""`fleetctl hold`: a device keeps what it runs."""

from __future__ import annotations

from dataclasses import replace
from typing import Annotated

import typer

from fleetctl.commands.common.context import Context
from fleetctl.commands.common.format import both_clocks
from fleetctl.commands.common.options import Until, command
from fleetctl.commands.common.parse import end_of
from fleetctl.commands.common.reason import reason_of
from fleetctl.commands.common.selection import Selection, change_devices
from fleetctl.console import counted

app = typer.Typer(help="Hold devices: no updates until the hold ends.", no_args_is_help=True)


@command(app, "set")
def set_hold(
    context: Context,
    selection: Selection,
    reason: Annotated[
        str | None,
        typer.Option(help="Why, for other operators; or give it in quotes after the devices."),
    ] = None,
    for_: Annotated[
        str | None,
        typer.Option("--for", metavar="DURATION", help="End the hold after this long, e.g. 12h."),
    ] = None,
    until: Until = None,
) -> None:
    """Hold devices, until the hold is cleared or for a limited time. Does not ask for confirmation.

    Example: fleetctl hold set kitchen 'on stage tonight' --for 12h
    """
    # No device's name has a space.
    words = [name for name in selection.names if len(name.split()) > 1]
    selection = replace(
        selection, names=tuple(name for name in selection.names if name not in words), yes=True
    )
    why = reason_of(" ".join(words) or None, reason, "A hold")
    ends = end_of(for_, until)
    devices = selection.devices(context)
    if selection.agree("hold {devices}", devices, context=context):
        change = {"hold": True, "hold_reason": why, "hold_until": ends.isoformat() if ends else None}
        held = change_devices(context, devices, lambda device: change)
        context.say(f"Holding {counted(held)}{f' until {both_clocks(ends)}' if ends else ''}.", held)


@command(app)
def clear(context: Context, selection: Selection) -> None:
    """End the hold on devices."""
    devices = [device for device in selection.devices(context) if device["hold"]]
    if selection.agree("end the hold on {devices}", devices, context=context):
        freed = change_devices(context, devices, lambda device: {"hold": False})
        context.say(f"Ended the hold on {counted(freed)}.", freed)
