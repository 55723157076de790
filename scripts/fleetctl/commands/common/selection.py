"""Which devices a command is about, asking before many are touched, and changing them."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from fleetctl.client.query import Narrow, Row, all_of, batches, contains, every_row, is_one_of, where
from fleetctl.commands.common.confirm import confirm
from fleetctl.commands.common.context import Context
from fleetctl.commands.common.lookup import find_devices
from fleetctl.console import counted, out, print_json
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

    @property
    def narrows(self) -> bool:
        """Whether any device was named, or any condition given."""
        return bool(self.names or self.conditions or self.labels)

    def devices(self, context: Context, *, all_by_default: bool = False) -> list[Row]:
        """The devices meant, by name. Raises FleetctlError: `nothing_selected`, `device_unknown`."""
        if not (self.narrows or self.everything or all_by_default):
            raise FleetctlError(
                "nothing_selected",
                "No device is selected.",
                hint="Name devices, or use --segment, --role, --branch, --state, --label or --all.",
                exit_code=2,
            )
        if not self.names:
            return context.api.rows("devices", self._narrow(), order="name")
        chosen = (row for row in find_devices(context, self.names) if self._matches(row))
        return sorted(chosen, key=lambda row: str(row["name"]))

    def _narrow(self) -> Narrow:
        return all_of(where(**self.conditions), contains("labels", self.labels) if self.labels else every_row)

    def _matches(self, row: Row) -> bool:
        return all(row[column] == value for column, value in self.conditions.items()) and all(
            row["labels"].get(name) == value for name, value in self.labels.items()
        )

    def agree(
        self, action: str, devices: Sequence[Row], *, context: Context, always_ask: bool = False
    ) -> bool:
        """Say what would happen, and ask if it affects more than the one device that was named.

        `action` is like `suspend {devices}`. False: a dry run, or no device. Raises FleetctlError
        `confirmation_needed` without a terminal.
        """
        what = action.replace("{devices}", f"{counted(devices)}{_some_names(devices)}")
        if not devices or self.dry_run:
            if context.as_json:
                names = [row["name"] for row in devices]
                print_json({"dry_run": self.dry_run, "what": what, "devices": names})
            else:
                out.print(f"Would {what}." if devices else "No device needs this.", markup=False)
            return False
        if self.yes or (self.names and len(devices) == 1 and not always_ask):
            return True
        return confirm(what, look="--dry-run")


def change_devices(
    context: Context, devices: Sequence[Row], change: Callable[[Row], Mapping[str, Any]]
) -> list[Row]:
    """Write `change(device)` to each device, those with the same change together, batch by batch.

    A batch is written whole or not at all. Raises FleetctlError that says how many were written before.
    """
    changed: list[Row] = []
    parts = [(wanted, part) for wanted, ids in _by_change(devices, change) for part in batches(ids)]
    try:
        for wanted, part in parts:
            changed += context.api.update("devices", wanted, is_one_of("id", part))
    except FleetctlError as error:
        if changed:
            error.message += f" {len(changed)} of {counted(devices)} had already been changed."
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


def _some_names(devices: Sequence[Row]) -> str:
    """The first few names, so that a wrong selector is seen before it acts."""
    names = [str(row["name"]) for row in devices[:5]]
    more = ", …" if len(devices) > len(names) else ""
    return f" ({', '.join(names)}{more})" if names else ""
