"""Which devices a command is about, asking before many are touched, and changing them."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from fleetctl.client.query import PAGE, Row, batches, is_one_of
from fleetctl.commands.common.confirm import confirm
from fleetctl.commands.common.context import Context
from fleetctl.commands.common.lookup import find_devices
from fleetctl.commands.common.parse import pairs_of
from fleetctl.commands.common.selector import Selector, parse_selector, put, selector_text
from fleetctl.console import counted, out, print_json
from fleetctl.errors import FleetctlError, not_changed

#: Names in one selector, which may have 8 kB.
_NAMES = 50


def selector_of(
    text: str | None, labels: Sequence[str] | None = None, attributes: Mapping[str, str | None] | None = None
) -> Selector:
    """What `--selector` says, with what its short forms add: `--label KEY=VALUE`, and an option for a key.

    Raises FleetctlError: what `parse_selector` raises, `pair_malformed`.
    """
    selector = parse_selector(text or "")
    for key, value in (attributes or {}).items():
        if value is not None:
            put(selector, key, [value], f"--{key} {value}", called=key)
    named: dict[str, Any] = dict(selector.get("labels", {}))
    for pair in labels or ():
        for key, value in pairs_of([pair]).items():
            put(named, key, [value], f"--label {pair}", called=f"label.{key}")
    return {**selector, "labels": named} if named else selector


def matching_devices(context: Context, selector: Selector) -> list[Row]:
    """Every device that the selector takes, by name."""
    found: list[Row] = []
    while True:
        after = found[-1]["name"] if found else None
        page = context.api.ask("matching_devices", selector=selector, after=after, at_most=PAGE) or []
        found += page
        if len(page) < PAGE:
            return found


@dataclass(frozen=True)
class Selection:
    """Which devices a command is about. Names and the selector both narrow; neither needs `everything`."""

    names: tuple[str, ...] = ()
    selector: Selector = field(default_factory=dict)
    everything: bool = False
    allow_empty: bool = False
    dry_run: bool = False
    yes: bool = False

    @property
    def narrows(self) -> bool:
        """Whether any device was named, or a selector given."""
        return bool(self.names or self.selector)

    def devices(self, context: Context, *, all_by_default: bool = False) -> list[Row]:
        """The devices meant, by name. `all_by_default`: for a list, which may also be empty.

        Raises FleetctlError: `nothing_selected`, `device_unknown`, `no_device_matches`.
        """
        if not (self.narrows or self.everything or all_by_default):
            raise FleetctlError(
                "nothing_selected",
                "No device is selected.",
                hint="Name devices, or use --selector, --segment, --role, --branch, --state, --label or "
                "--all.",
                exit_code=2,
            )
        if self.names:
            found = self._named(context)
        elif self.selector:
            found = matching_devices(context, self.selector)
        else:
            return context.api.rows("devices", order="name,id")
        if not (found or self.allow_empty):
            self._check_names(context)
        if not (found or all_by_default or self.allow_empty):
            raise FleetctlError(
                "no_device_matches",
                f"No device matches {selector_text(self.selector)}.",
                hint="Check the values: fleetctl device list. If there may be none, add --allow-empty.",
                exit_code=5,
            )
        return found

    def _check_names(self, context: Context) -> None:
        """Raises FleetctlError `segment_unknown`, `role_unknown`, `branch_unknown`, with the known names."""
        for key, table, kind in (
            ("segment", "segments", "segment_unknown"),
            ("role", "device_roles", "role_unknown"),
            ("branch", "branches", "branch_unknown"),
        ):
            asked = self.selector.get(key)
            if asked is None:
                continue
            known = [str(row["name"]) for row in context.api.rows(table, select="name", order="name")]
            for name in asked if isinstance(asked, list) else [asked]:
                if name not in known:
                    raise FleetctlError(
                        kind,
                        f"There is no {key} {name}. Known: {', '.join(known[:20])}.",
                        hint="Check the spelling.",
                        exit_code=5,
                    )

    def count(self, context: Context) -> int:
        """How many devices are meant; all of them if nothing narrows. Counted by the database."""
        if self.names:
            return len(self._named(context))
        counted_devices: int = context.api.ask("count_devices", selector=self.selector)
        return counted_devices

    def _named(self, context: Context) -> list[Row]:
        named = sorted(find_devices(context, self.names), key=lambda row: str(row["name"]))
        if not self.selector:
            return named
        if "name" in self.selector:
            chosen = {row["id"] for row in matching_devices(context, self.selector)}
            return [row for row in named if row["id"] in chosen]
        names = [str(row["name"]) for row in named]
        return [
            row
            for start in range(0, len(names), _NAMES)
            for row in matching_devices(context, {**self.selector, "name": names[start : start + _NAMES]})
        ]

    def agree(
        self, action: str, devices: Sequence[Row], *, context: Context, always_ask: bool = False
    ) -> bool:
        """Say what would happen, and ask if it affects more than the one device that was named.

        `action` is like `suspend {devices}`. False: a dry run, or no device. Raises FleetctlError
        `confirmation_needed` without a terminal.
        """
        what = action.replace(
            "{devices}", f"{counted(devices)}{some_names([str(row['name']) for row in devices])}"
        )
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
    if len(changed) < len(devices):
        raise not_changed(f"Only {len(changed)} of {counted(devices)} were changed: the others are gone.")
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


def some_names(names: Sequence[str]) -> str:
    """The first few names, so that a wrong selector is seen before it acts."""
    more = ", …" if len(names) > 5 else ""
    return f" ({', '.join(names[:5])}{more})" if names else ""
