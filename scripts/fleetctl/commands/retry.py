"""`fleetctl retry`: a release again, for devices that rolled back from it."""

from __future__ import annotations

from typing import Annotated

import typer

from fleetctl.client.query import batches, is_one_of, where
from fleetctl.commands.common.context import Context
from fleetctl.commands.common.lookup import find_release
from fleetctl.commands.common.options import OnBranch, command
from fleetctl.commands.common.selection import Selection
from fleetctl.console import counted
from fleetctl.errors import FleetctlError


def add_to(app: typer.Typer) -> None:
    command(app)(retry)


_Release = Annotated[str, typer.Option("--release", "-r", help="Version, commit or id.")]


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
