"""`fleetctl pin`: one release for a device, whatever the policy says."""

from __future__ import annotations

from typing import Annotated

import typer

from fleetctl.commands.common.context import Context
from fleetctl.commands.common.lookup import find_release
from fleetctl.commands.common.options import OnBranch, command
from fleetctl.commands.common.selection import Selection, change_devices
from fleetctl.console import counted

app = typer.Typer(help="Pin devices to a release, and unpin them.", no_args_is_help=True)

_Release = Annotated[str, typer.Option("--release", "-r", help="Version, commit or id.")]


@command(app, "set")
def set_pin(context: Context, selection: Selection, release: _Release, on_branch: OnBranch = None) -> None:
    """Pin devices to one release, whatever the policy says. Pin again to let a device retry it."""
    wanted = find_release(context, release, on_branch)
    devices = selection.devices(context)
    if not selection.agree(f"pin {{devices}} to {wanted['version']}", devices, context=context):
        return
    # An existing pin is renewed: the time of the pin decides over an earlier rollback.
    again = [device for device in devices if device["pinned_release"] == wanted["id"]]
    pinned = [
        context.api.rpc("pin_device", device_id=device["id"], release_id=wanted["id"]) for device in again
    ]
    first = [device for device in devices if device["pinned_release"] != wanted["id"]]
    pinned += change_devices(context, first, lambda device: {"pinned_release": wanted["id"]})
    context.say(f"Pinned {counted(pinned)} to {wanted['version']}.", pinned)


@command(app)
def clear(context: Context, selection: Selection) -> None:
    """Unpin devices, so that they follow their branch again."""
    devices = [device for device in selection.devices(context) if device["pinned_release"]]
    if selection.agree("unpin {devices}", devices, context=context):
        freed = change_devices(context, devices, lambda device: {"pinned_release": None})
        context.say(f"Unpinned {counted(freed)}.", freed)
