"""`fleetctl pin`, `unpin` and `retry`: one device, one release, whatever the policy says."""

from __future__ import annotations

from typing import Annotated

import typer

from fleetctl.client.query import batches, is_one_of
from fleetctl.commands.common.context import Fleet
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


def pin(fleet: Fleet, selection: Selection, release: _Release, on_branch: _OnBranch = None) -> None:
    """Send devices to one release and keep them there. Pinning again lets a device retry."""
    wanted = find_release(fleet, release, on_branch)
    devices = selection.devices(fleet)
    if not selection.agree(f"pin to {wanted['version']}", devices, fleet=fleet):
        return
    # A pin that is there already is made anew: the time of the pin decides over an earlier rollback.
    again = [device for device in devices if device["pinned_release"] == wanted["id"]]
    pinned = [
        fleet.api.rpc("pin_device", device_id=device["id"], release_id=wanted["id"]) for device in again
    ]
    first = [device for device in devices if device["pinned_release"] != wanted["id"]]
    pinned += change_devices(fleet, first, lambda device: {"pinned_release": wanted["id"]})
    fleet.say(f"Pinned {counted(pinned)} to {wanted['version']}.", pinned)


def unpin(fleet: Fleet, selection: Selection) -> None:
    """Let devices follow their branch again."""
    devices = [device for device in selection.devices(fleet) if device["pinned_release"]]
    if selection.agree("unpin", devices, fleet=fleet):
        freed = change_devices(fleet, devices, lambda device: {"pinned_release": None})
        fleet.say(f"Unpinned {counted(freed)}.", freed)


def retry(fleet: Fleet, selection: Selection, release: _Release, on_branch: _OnBranch = None) -> None:
    """Offer devices a release again that they rolled back from."""
    wanted = find_release(fleet, release, on_branch)
    chosen = selection.devices(fleet)
    remembered = {
        row["device_id"]
        for row in fleet.api.rows(
            "known_bad_releases", lambda query: query.eq("release_id", wanted["id"]), order="device_id"
        )
    }
    devices = [device for device in chosen if device["id"] in remembered]
    if not devices and selection.names:
        raise FleetctlError(
            "nothing_to_retry", f"None of these devices rolled back from {wanted['version']}.", exit_code=5
        )
    if selection.agree(f"let try {wanted['version']} again", devices, fleet=fleet):
        ids = [device["id"] for device in devices]
        for part in batches(ids):
            fleet.api.delete("known_bad_releases", is_one_of("device_id", part, release_id=wanted["id"]))
        fleet.say(f"{counted(devices)} may try {wanted['version']} again.", devices)
