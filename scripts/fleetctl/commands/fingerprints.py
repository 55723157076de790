"""Comparing keys before a device is let in: its name is whatever it asked for, its key is its own."""

from __future__ import annotations

import sys
from collections.abc import Sequence

import typer

from fleet_agent.support.fingerprint import fingerprint
from fleetctl.client.query import Row
from fleetctl.console import out
from fleetctl.errors import FleetctlError


def fingerprint_of(device: Row) -> str:
    """The fingerprint of the device's key; empty without a key."""
    return fingerprint(device["public_key"]) if device["public_key"] else ""


def compare(devices: Sequence[Row], given: Sequence[str]) -> None:
    """Make sure that each device's fingerprint is the one that the device shows.

    Raises FleetctlError: `fingerprint_differs`, `fingerprint_needed` without a terminal; typer.Abort.
    """
    wanted = {"".join(text.split()).lower() for text in given}
    for device in devices:
        own = fingerprint_of(device)
        if wanted and own not in wanted:
            raise FleetctlError(
                "fingerprint_differs",
                f"The fingerprint of {device['name']} is {own}, which was not given.",
                hint="If the device shows another one, a stranger asked for its name: retire this one.",
            )
        if wanted:
            continue
        if not sys.stdin.isatty():
            raise FleetctlError(
                "fingerprint_needed",
                f"{device['name']} is accepted by its fingerprint, not by its name alone.",
                hint=f"If the device shows {own}, add --fingerprint {own}",
                exit_code=2,
            )
        out.print(f"{device['name']}: {own}", markup=False)
        typer.confirm("Does the device show the same fingerprint (fleet-agent enroll)?", abort=True)
