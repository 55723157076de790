"""`fleetctl hold`: a device keeps what it runs."""

from __future__ import annotations

from datetime import UTC, datetime
from typing import Annotated

import typer

from fleetctl.commands.common.context import Fleet
from fleetctl.commands.common.format import counted
from fleetctl.commands.common.options import command
from fleetctl.commands.common.parse import duration, moment
from fleetctl.commands.common.selection import Selection, change_devices
from fleetctl.errors import FleetctlError

app = typer.Typer(help="Hold devices: no updates until the hold ends.", no_args_is_help=True)


@command(app, "set")
def set_hold(
    fleet: Fleet,
    selection: Selection,
    reason: Annotated[str, typer.Option(help="Why, for people.")],
    for_: Annotated[
        str | None, typer.Option("--for", metavar="DURATION", help="Ends after, like 12h.")
    ] = None,
    until: Annotated[str | None, typer.Option(help="Ends at this time (ISO).")] = None,
) -> None:
    """Hold devices: until told otherwise, or for a time."""
    if for_ and until:
        raise FleetctlError("hold_ends_twice", "Give --for or --until, not both.", exit_code=2)
    ends = datetime.now(UTC) + duration(for_) if for_ else moment(until) if until else None
    devices = selection.devices(fleet)
    if selection.agree("hold", devices, fleet=fleet):
        change = {"hold": True, "hold_reason": reason, "hold_until": ends.isoformat() if ends else None}
        held = change_devices(fleet, devices, lambda device: change)
        fleet.say(f"Held {counted(held)}{f' until {ends:%Y-%m-%d %H:%M %Z}' if ends else ''}.", held)


@command(app)
def clear(fleet: Fleet, selection: Selection) -> None:
    """End the hold of devices."""
    devices = [device for device in selection.devices(fleet) if device["hold"]]
    if selection.agree("end the hold", devices, fleet=fleet):
        freed = change_devices(fleet, devices, lambda device: {"hold": False})
        fleet.say(f"Ended the hold of {counted(freed)}.", freed)
