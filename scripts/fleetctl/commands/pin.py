"""`fleetctl pin`, `unpin` and `retry`: one release for a device, whatever the policy says."""

from __future__ import annotations

from typing import Annotated

import typer

from fleetctl.client.query import batches, is_one_of, where
from fleetctl.commands.common.context import Context
from fleetctl.commands.common.lookup import find_release
from fleetctl.commands.common.options import OnBranch, command
from fleetctl.commands.common.selection import Selection, change_devices
from fleetctl.console import counted
from fleetctl.errors import FleetctlError


def add_to(app: typer.Typer) -> None:
    for verb in (pin, unpin, retry):
        command(app)(verb)


_Release = Annotated[str, typer.Option("--release", "-r", help="Version, commit or id.")]


def pin(context: Context, selection: Selection, release: _Release, on_branch: OnBranch = None) -> None:
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


def unpin(context: Context, selection: Selection) -> None:
    """Unpin devices, so that they follow their branch again."""
    devices = [device for device in selection.devices(context) if device["pinned_release"]]
    if selection.agree("unpin {devices}", devices, context=context):
        freed = change_devices(context, devices, lambda device: {"pinned_release": None})
        context.say(f"Unpinned {counted(freed)}.", freed)


def retry(context: Context, selection: Selection, release: _Release, on_branch: OnBranch = None) -> None:
    """Offer a release again to devices that rolled back from it."""
    wanted = find_release(context, release, on_branch)
    chosen = selection.devices(context)
    failed = context.api.rows("known_bad_releases", where(release_id=wanted["id"]), order="device_id")
    remembered = {row["device_id"] for row in failed}
    devices = [device for device in chosen if device["id"] in remembered]
    if not devices and selection.names:
        raise FleetctlError(
            "nothing_to_retry", f"None of these devices rolled back from {wanted['version']}.", exit_code=5
        )
    if selection.agree(f"allow {wanted['version']} again for {{devices}}", devices, context=context):
        for part in batches([device["id"] for device in devices]):
            context.api.delete("known_bad_releases", is_one_of("device_id", part, release_id=wanted["id"]))
        context.say(f"Allowed {wanted['version']} again for {counted(devices)}.", devices)
