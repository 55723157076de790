"""`fleetctl device`: see the fleet, let devices in, lock them out, say what they are for."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from typing import Annotated, Any

import typer

from fleetctl.commands.common.options import (
    Fleet,
    Selection,
    ago,
    change_devices,
    command,
    counted,
    duration,
    find_device,
    pairs_of,
)
from fleetctl.commands.explain import print_gates
from fleetctl.commands.history import ATTEMPT_COLUMNS
from fleetctl.console import out, pairs, print_json, print_table
from fleetctl.errors import FleetctlError

app = typer.Typer(help="The devices of the fleet.", no_args_is_help=True)


@command(app, "list")
def list_devices(fleet: Fleet, selection: Selection) -> None:
    """List devices with what they last said: all of them, or those selected."""
    devices = selection.devices(fleet, all_by_default=True)
    now = datetime.now(UTC)
    rows = with_status(fleet, devices, now)
    fleet.show(
        f"{counted(rows)}",
        {
            "name": lambda row: row["name"],
            "role": lambda row: row["role"],
            "segment": lambda row: row["segment"],
            "branch": lambda row: row["branch"],
            "state": lambda row: row["state"],
            "reports": lambda row: "offline" if row["offline"] else row["status"].get("state"),
            "release": lambda row: row["current_version"],
            "last contact": lambda row: ago(row["status"].get("reported_at"), now),
            "": _flags,
        },
        rows,
    )


@command(app)
def show(fleet: Fleet, device: Annotated[str, typer.Argument(help="Name or id.")]) -> None:
    """Everything about one device: its row, its last report, its gates, its last attempts and commands."""
    now = datetime.now(UTC)
    row = with_status(fleet, [find_device(fleet, device)], now)[0]
    why = fleet.api.rpc("explain_device", device_id=row["id"])
    attempts = fleet.api.rows(
        "update_history", lambda query: query.eq("device_id", row["id"]),
        order="started_at", newest_first=True, limit=5,
    )  # fmt: skip
    orders = fleet.api.rows(
        "device_commands", lambda query: query.eq("device_id", row["id"]),
        order="requested_at", newest_first=True, limit=5,
    )  # fmt: skip
    if fleet.as_json:
        print_json({"device": row, "explanation": why, "history": attempts, "commands": orders})
        return
    status = row["status"]
    pairs(
        {
            "name": row["name"], "id": row["id"], "state": row["state"],
            "role": row["role"], "segment": row["segment"], "branch": row["branch"],
            "labels": ", ".join(f"{name}={value}" for name, value in sorted(row["labels"].items())),
            "set by its own file": ", ".join(_own_settings(status.get("settings") or {})),
            "hardware": row["hardware_model"] or "", "os": row["os"] or "",
            "enrolled": row["enrolled_at"] or "never",
            "reports": f"{status.get('state', 'nothing yet')} {status.get('reason') or ''}".strip(),
            "release": row["current_version"] or "none",
            "agent": status.get("agent_version") or "",
            "last contact": (ago(status.get("reported_at"), now) or "never")
            + (", offline" if row["offline"] else ""),
            "last error": f"{status['error_kind']}: {status['error']}" if status.get("error_kind") else "",
        }
    )  # fmt: skip
    out.print()
    print_gates(why)
    for title, columns, rows in (("Last attempts", ATTEMPT_COLUMNS, attempts), ("Commands", _ORDERS, orders)):
        if rows:
            print_table(title, list(columns), ([cell(item) for cell in columns.values()] for item in rows))


@command(app)
def accept(fleet: Fleet, selection: Selection) -> None:
    """Let devices in that wait as pending."""
    _to_state(fleet, selection, "accept", "active", only_from=("pending",))


@command(app)
def suspend(fleet: Fleet, selection: Selection) -> None:
    """Lock devices out until further notice; it takes effect on their next request."""
    _to_state(fleet, selection, "suspend", "suspended", only_from=("active", "pending"))


@command(app)
def activate(fleet: Fleet, selection: Selection) -> None:
    """End the suspension of devices."""
    _to_state(fleet, selection, "activate", "active", only_from=("suspended",))


@command(app)
def retire(fleet: Fleet, selection: Selection) -> None:
    """Take devices out of the fleet for good; their history stays."""
    _to_state(fleet, selection, "retire for good", "retired", only_from=("active", "pending", "suspended"))


@command(app, "set")
def set_values(
    fleet: Fleet,
    selection: Selection,
    values: Annotated[
        list[str],
        typer.Option(
            "--to",
            metavar="KEY=VALUE",
            help="name, role, segment, branch, timezone, poll_interval_s, maintenance_window or "
            "label.<key>; an empty value clears it.",
        ),
    ],
) -> None:
    """Change what devices are for: fleetctl device set kitchen --to segment=early --to label.site=rome."""
    wanted = pairs_of(values)
    change, labels = _parse_change(wanted)
    devices = selection.devices(fleet)
    if "name" in change and len(devices) > 1:
        raise FleetctlError("name_is_unique", "Only one device can be given a name.", exit_code=2)
    if not selection.agree(f"set {', '.join(values)}", devices, fleet=fleet):
        return

    def changed(device: dict[str, Any]) -> dict[str, Any]:
        merged = {**device["labels"], **labels}
        kept = {name: value for name, value in merged.items() if value != ""}
        return {**change, **({"labels": kept} if labels else {})}

    rows = change_devices(fleet, devices, changed)
    fleet.say(f"Changed {counted(rows)}.", rows)


@command(app, "ignore-window")
def ignore_window(
    fleet: Fleet,
    selection: Selection,
    for_: Annotated[
        str | None, typer.Option("--for", metavar="DURATION", help="For so long, like 2h.")
    ] = None,
    end: Annotated[bool, typer.Option("--end", help="Let the window count again.")] = False,
) -> None:
    """Let devices update outside of their maintenance window for a time."""
    if (for_ is None) != end:
        raise FleetctlError("window_time_missing", "Give either --for and a time, or --end.", exit_code=2)
    until = datetime.now(UTC) + duration(for_) if for_ else None
    devices = selection.devices(fleet)
    what = "let the window count again" if until is None else f"ignore the window for {for_}"
    if selection.agree(what, devices, fleet=fleet):
        change = {"ignore_window_until": until.isoformat() if until else None}
        rows = change_devices(fleet, devices, lambda device: change)
        said = f"does not count until {until:%Y-%m-%d %H:%M %Z}" if until else "counts again"
        fleet.say(f"The window of {counted(rows)} {said}.", rows)


_TEXTS = ("name", "role", "segment", "branch", "timezone")
_OPTIONAL = ("poll_interval_s", "maintenance_window")


def _parse_change(wanted: dict[str, str]) -> tuple[dict[str, Any], dict[str, str]]:
    """Column values, and labels to set (or, empty, to drop). Raises FleetctlError `setting_unknown`."""
    change: dict[str, Any] = {}
    labels: dict[str, str] = {}
    for name, value in wanted.items():
        if name.startswith("label."):
            labels[name.removeprefix("label.")] = value
        elif name in _TEXTS:
            change[name] = value
        elif name in _OPTIONAL:
            change[name] = value or None
        else:
            raise FleetctlError(
                "setting_unknown",
                f"A device has no {name} that could be set here.",
                hint=f"One of {', '.join((*_TEXTS, *_OPTIONAL))}, label.<key>.",
                exit_code=2,
            )
    return change, labels


def _to_state(
    fleet: Fleet, selection: Selection, what: str, state: str, *, only_from: tuple[str, ...]
) -> None:
    selected = selection.devices(fleet)
    devices = [row for row in selected if row["state"] in only_from]
    wrong = [row for row in selected if row["state"] not in (*only_from, state)]
    if selection.names and wrong:
        raise FleetctlError(
            "device_state_is_final" if wrong[0]["state"] == "retired" else "device_state_differs",
            f"{wrong[0]['name']} is {wrong[0]['state']}, so there is nothing to {what}.",
            hint="See fleetctl device list.",
        )
    if selection.agree(what, devices, fleet=fleet, always_ask=state == "retired"):
        rows = change_devices(fleet, devices, lambda device: {"state": state})
        fleet.say(f"{counted(rows)} now {state}.", rows)


def with_status(fleet: Fleet, devices: list[dict[str, Any]], now: datetime) -> list[dict[str, Any]]:
    """Each device with its last report as `status` ({} for none), `current_version` and `offline`."""
    ids = [row["id"] for row in devices]
    # Beyond a few hundred, reading all reports is fewer requests than asking for each batch of ids.
    few = len(ids) <= 300
    reports = (
        fleet.api.rows_of("device_status", "device_id", ids, order="device_id")
        if few
        else fleet.api.rows("device_status", order="device_id")
    )
    by_device = {report["device_id"]: report for report in reports}
    used = sorted({report["current_release"] for report in reports if report["current_release"]})
    versions = {row["id"]: row["version"] for row in fleet.api.rows_of("releases", "id", used, order="id")}
    settings = fleet.api.settings()

    def joined(device: dict[str, Any]) -> dict[str, Any]:
        status = by_device.get(device["id"], {})
        interval_s = status.get("pinned_poll_interval_s") or device["poll_interval_s"] or settings["default_poll_interval_s"]
        silence = timedelta(seconds=interval_s * settings["offline_after_intervals"])
        seen = status.get("reported_at")
        offline = device["state"] == "active" and (
            seen is None or now - datetime.fromisoformat(seen) > silence
        )
        current = versions.get(status.get("current_release"))
        return {**device, "status": status, "current_version": current, "offline": offline}

    return [joined(device) for device in devices]


def _own_settings(settings: dict[str, Any]) -> list[str]:
    """What a device's own file decides, of the `settings` that it reported: `poll_interval_s=3600`."""
    in_force = {f"labels.{name}": value for name, value in (settings.get("labels") or {}).items()}
    if isinstance(every := settings.get("poll_interval_s"), float | int):
        in_force["poll_interval_s"] = round(every)
    return [f"{name}={in_force[name]}" for name in settings.get("pinned") or [] if name in in_force]


def _flags(row: dict[str, Any]) -> str:
    flags = {"pinned": row["pinned_release"], "held": row["hold"]}
    return ", ".join(name for name, there in flags.items() if there)


_ORDERS = {
    "asked": lambda row: row["requested_at"],
    "command": lambda row: row["kind"],
    "state": lambda row: row["state"],
    "answered": lambda row: row["answered_at"],
}
