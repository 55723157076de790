"""Which devices a command is about, asking before many are touched, and changing them."""

from __future__ import annotations

import sys
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import typer

from fleetctl.client.query import Row, batches, is_one_of, where
from fleetctl.commands.common.context import Fleet
from fleetctl.commands.common.format import counted
from fleetctl.commands.common.lookup import find_devices
from fleetctl.console import out, print_json
from fleetctl.errors import FleetctlError


@dataclass(frozen=True)
class Selection:
    """Which devices a command is about. Names and conditions both narrow; none at all needs `everything`."""

    names: tuple[str, ...] = ()
    conditions: Mapping[str, str] = field(default_factory=dict)
    labels: Mapping[str, str] = field(default_factory=dict)
    everything: bool = False
    dry_run: bool = False
    yes: bool = False

    def devices(self, fleet: Fleet, *, all_by_default: bool = False) -> list[Row]:
        """The devices meant, by name. Raises FleetctlError: `nothing_selected`, `device_unknown`."""
        if not (self.names or self.conditions or self.labels or self.everything or all_by_default):
            raise FleetctlError(
                "nothing_selected",
                "No device is selected.",
                hint="Name devices, narrow with --segment, --role, --branch, --state, --label, or say --all.",
                exit_code=2,
            )
        if not self.names:
            return fleet.api.rows("devices", self._narrow, order="name")
        chosen = (row for row in find_devices(fleet, self.names) if self._matches(row))
        return sorted(chosen, key=lambda row: str(row["name"]))

    def _narrow(self, query: Any) -> Any:
        query = where(**self.conditions)(query)
        return query.contains("labels", dict(self.labels)) if self.labels else query

    def _matches(self, row: Row) -> bool:
        return all(row[column] == value for column, value in self.conditions.items()) and all(
            row["labels"].get(name) == value for name, value in self.labels.items()
        )

    def agree(self, what: str, devices: Sequence[Row], *, fleet: Fleet, always_ask: bool = False) -> bool:
        """Say what would happen to how many, and ask where more than what was named is at stake.

        False: a dry run, or nothing to do. Raises FleetctlError `confirmation_needed` without a terminal.
        """
        if not devices or self.dry_run:
            if fleet.as_json:
                print_json(
                    {"dry_run": self.dry_run, "what": what, "devices": [row["name"] for row in devices]}
                )
            else:
                said = f"Would {what}" if self.dry_run else f"Nothing to do: {what}"
                out.print(f"{said}: {counted(devices)}{_some(devices)}.", markup=False)
            return False
        if self.yes or (self.names and len(devices) == 1 and not always_ask):
            return True
        if not sys.stdin.isatty():
            raise FleetctlError(
                "confirmation_needed",
                f"This would {what}: {counted(devices)}{_some(devices)}.",
                hint="Look with --dry-run, then add --yes.",
                exit_code=2,
            )
        return typer.confirm(f"{what[0].upper()}{what[1:]}: {counted(devices)}{_some(devices)}?", abort=True)


def change_devices(
    fleet: Fleet, devices: Sequence[Row], change: Callable[[Row], Mapping[str, Any]]
) -> list[Row]:
    """Write `change(device)` to each device, those with the same change together, batch by batch.

    A batch is written whole or not at all. Raises FleetctlError that says how many were written before.
    """
    changed: list[Row] = []
    for wanted, ids in _by_change(devices, change):
        for part in batches(ids):
            try:
                changed += fleet.api.update("devices", wanted, is_one_of("id", part))
            except FleetctlError as error:
                if changed:
                    error.message += f" {len(changed)} of {len(devices)} devices were changed before."
                raise
    return changed


def _by_change(
    devices: Sequence[Row], change: Callable[[Row], Mapping[str, Any]]
) -> list[tuple[Mapping[str, Any], list[str]]]:
    """Each different change, with the ids of the devices that get it."""
    groups: dict[str, tuple[Mapping[str, Any], list[str]]] = {}
    for device in devices:
        wanted = change(device)
        groups.setdefault(repr(sorted(wanted.items())), (wanted, []))[1].append(device["id"])
    return list(groups.values())


def _some(devices: Sequence[Row]) -> str:
    """The first few names, so that a wrong selector is seen before it acts."""
    names = [str(row["name"]) for row in devices[:5]]
    more = ", …" if len(devices) > len(names) else ""
    return f" ({', '.join(names)}{more})" if names else ""
