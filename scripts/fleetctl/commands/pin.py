"""`fleetctl pin`, `unpin` and `retry`: one device, one release, whatever the policy says."""

from __future__ import annotations

from typing import Annotated

import typer

from fleetctl.client.query import batches, is_one_of
from fleetctl.commands.common.context import Context
from fleetctl.commands.common.format import counted
from fleetctl.commands.common.lookup import find_release
from fleetctl.commands.common.options import command
from fleetctl.commands.common.selection import Selection, change_devices
from fleetctl.errors import FleetctlError


def add_to(app: typer.Typer) -> None:
    for work in (pin, unpin, retry):
        command(app)(work)


_Release = Annotated[str, typer.Option("--release", "-r", help="Version, commit or id.")]
_OnBranch = Annotated[str | None, typer.Option("--on-branch", help="Where two branches share a name.")]


def pin(context: Context, selection: Selection, release: _Release, on_branch: _OnBranch = None) -> None:
    """Send devices to one release and keep them there. Pinning again lets a device retry."""
    wanted = find_release(context, release, on_branch)
    devices = selection.devices(context)
    if not selection.agree(f"pin to {wanted['version']}", devices, context=context):
        return
    # A pin that is there already is made anew: the time of the pin decides over an earlier rollback.
    again = [device for device in devices if device["pinned_release"] == wanted["id"]]
    pinned = [
        context.api.rpc("pin_device", device_id=device["id"], release_id=wanted["id"]) for device in again
    ]
    first = [device for device in devices if device["pinned_release"] != wanted["id"]]
    pinned += change_devices(context, first, lambda device: {"pinned_release": wanted["id"]})
    context.say(f"Pinned {counted(pinned)} to {wanted['version']}.", pinned)


def unpin(context: Context, selection: Selection) -> None:
    """Let devices follow their branch again."""
    devices = [device for device in selection.devices(context) if device["pinned_release"]]
    if selection.agree("unpin", devices, context=context):
        freed = change_devices(context, devices, lambda device: {"pinned_release": None})
        context.say(f"Unpinned {counted(freed)}.", freed)


def retry(context: Context, selection: Selection, release: _Release, on_branch: _OnBranch = None) -> None:
    """Offer devices a release again that they rolled back from."""
    wanted = find_release(context, release, on_branch)
    chosen = selection.devices(context)
    remembered = {
        row["device_id"]
        for row in context.api.rows(
            "known_bad_releases", lambda query: query.eq("release_id", wanted["id"]), order="device_id"
        )
    }
    devices = [device for device in chosen if device["id"] in remembered]
    if not devices and selection.names:
        raise FleetctlError(
            "nothing_to_retry", f"None of these devices rolled back from {wanted['version']}.", exit_code=5
        )
    if selection.agree(f"let try {wanted['version']} again", devices, context=context):
        ids = [device["id"] for device in devices]
        for part in batches(ids):
            context.api.delete("known_bad_releases", is_one_of("device_id", part, release_id=wanted["id"]))
        context.say(f"{counted(devices)} may try {wanted['version']} again.", devices)
