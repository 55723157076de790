"""`fleetctl device`: see the fleet, accept devices, suspend them, change their settings."""

from __future__ import annotations

from dataclasses import replace
from datetime import UTC, datetime
from typing import Annotated, Any

import typer

from fleetctl.client.query import Row, where
from fleetctl.commands import enroll_line
from fleetctl.commands.common.context import Context
from fleetctl.commands.common.format import ago, both_clocks, second
from fleetctl.commands.common.lookup import find_device
from fleetctl.commands.common.options import Until, command
from fleetctl.commands.common.parse import duration, end_of, pairs_of
from fleetctl.commands.common.selection import Selection, change_devices
from fleetctl.commands.common.selector import CLOSED
from fleetctl.commands.device_status import local_settings, with_status
from fleetctl.commands.enroll_line import AllowedSigners, GitUrl, PublishableKey, Repository
from fleetctl.commands.explain import print_gates
from fleetctl.commands.fingerprints import compare, fingerprint_of
from fleetctl.commands.history import ATTEMPT_COLUMNS, with_versions
from fleetctl.console import counted, out, pairs, print_json, print_table
from fleetctl.errors import FleetctlError

app = typer.Typer(help="List, accept, suspend and change devices.", no_args_is_help=True)


@command(app, "list")
def list_devices(context: Context, selection: Selection) -> None:
    """List devices with their last reports: all but the retired, or a selection."""
    devices = _present(selection).devices(context, all_by_default=True)
    now = datetime.now(UTC)
    rows = with_status(context, devices, now)
    context.show(
        counted(rows),
        {
            "name": lambda row: row["name"],
            "role": lambda row: row["role"],
            "segment": lambda row: row["segment"],
            "branch": lambda row: row["branch"],
            "state": lambda row: row["state"],
            "health": lambda row: "offline" if row["offline"] else row["status"].get("state", "never seen"),
            "release": lambda row: row["current_version"],
            "last contact": lambda row: ago(row["status"].get("reported_at"), now),
            "": _flags,
        },
        rows,
        if_none="No devices.",
    )


@command(app)
def count(context: Context, selection: Selection) -> None:
    """Count devices: all but the retired, or a selection."""
    devices = _present(selection).count(context)
    context.say(f"{counted(devices)}.", {"devices": devices})


@command(app)
def show(context: Context, device: Annotated[str, typer.Argument(help="Name or id.")]) -> None:
    """Show one device: its settings, last report, policy gates, last attempts and commands."""
    now = datetime.now(UTC)
    row = with_status(context, [find_device(context, device)], now)[0]
    its_own = where(device_id=row["id"])
    explanation = context.api.ask("explain_device", device_id=row["id"])
    attempts = with_versions(
        context,
        context.api.rows("update_history", its_own, order="started_at,id", newest_first=True, limit=5),
    )
    commands = context.api.rows(
        "device_commands", its_own, order="requested_at,id", newest_first=True, limit=5
    )
    drift = context.api.rows("drifted_clocks", its_own, order="device_id")
    if context.as_json:
        found = {
            "explanation": explanation,
            "history": attempts,
            "commands": commands,
            "drifted_clocks": drift,
        }
        print_json({"device": row, **found})
        return
    pairs(_facts(row, now) | ({"clock": drift[0]["sentence"]} if drift else {}))
    out.print()
    print_gates(explanation)
    for title, columns, rows in (
        ("Last attempts", ATTEMPT_COLUMNS, attempts),
        ("Last commands", _COMMAND_COLUMNS, commands),
    ):
        if rows:
            print_table(title, list(columns), ([cell(item) for cell in columns.values()] for item in rows))


@command(app)
def accept(
    context: Context,
    selection: Selection,
    fingerprint: Annotated[
        list[str] | None,
        typer.Option(
            "--fingerprint", help="As `fleet-agent enroll` printed it on the device; repeat it for several."
        ),
    ] = None,
) -> None:
    """Accept devices that are pending, once their fingerprints were compared."""
    devices = _in_state(context, selection, "accept", "active", only_from=("pending",))
    if not selection.dry_run:
        compare(devices, tuple(fingerprint or ()))
    agreed = replace(selection, yes=True)
    if agreed.agree("accept {devices}", devices, context=context):
        rows = change_devices(context, devices, lambda device: {"state": "active"})
        context.say(f"Accepted {counted(rows)}.", rows)


@command(app, "replace")
def replace_device(
    context: Context,
    device: Annotated[str, typer.Argument(help="Name or id of the broken device.")],
    *,
    valid_for: Annotated[str, typer.Option(metavar="DURATION", help="Valid for this long, 60s to 365d.")] = (
        "7d"
    ),
    repository: Repository = None,
    git_url: GitUrl = None,
    allowed_signers: AllowedSigners = None,
    publishable_key: PublishableKey = None,
) -> None:
    """Print the line with which a new machine takes a broken device's place; the old key then ends."""
    line = enroll_line.prepare(context, repository, git_url, allowed_signers, publishable_key)
    row = find_device(context, device)
    valid_for_s = int(duration(valid_for).total_seconds())
    made = context.api.rpc("replace_device", device_id=row["id"], valid_for_s=valid_for_s)
    until = both_clocks(datetime.fromisoformat(made["expires_at"]))
    line.show(
        made,
        f"For the machine that takes the place of {row['name']}, until {until}. It is not shown again.",
    )


@command(app)
def suspend(context: Context, selection: Selection) -> None:
    """Suspend devices. Their next requests are refused; what they run keeps running."""
    _to_state(context, selection, "suspend", "suspended", only_from=("active", "pending"), done="Suspended")


@command(app)
def activate(context: Context, selection: Selection) -> None:
    """Reactivate devices that are suspended."""
    _to_state(context, selection, "reactivate", "active", only_from=("suspended",), done="Reactivated")


@command(app)
def retire(context: Context, selection: Selection) -> None:
    """Remove devices from the fleet for good. Their history is kept."""
    states = ("active", "pending", "suspended")
    _to_state(context, selection, "permanently retire", "retired", only_from=states, done="Retired")


@command(app, "set")
def set_values(
    context: Context,
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
    """Change device settings, e.g. fleetctl device set kitchen --to segment=early."""
    change, labels = _parse_change(pairs_of(values))
    devices = selection.devices(context)
    if "name" in change and len(devices) > 1:
        raise FleetctlError("name_is_unique", "Only one device can be given a name.", exit_code=2)
    if not selection.agree(f"set {', '.join(values)} on {{devices}}", devices, context=context):
        return

    def changed(device: Row) -> Row:
        merged = {**device["labels"], **labels}
        kept = {name: value for name, value in merged.items() if value != ""}
        return {**change, **({"labels": kept} if labels else {})}

    rows = change_devices(context, devices, changed)
    context.say(f"Changed {counted(rows)}.", rows)


@command(app, "ignore-window")
def ignore_window(
    context: Context,
    selection: Selection,
    for_: Annotated[
        str | None, typer.Option("--for", metavar="DURATION", help="Ignore it for this long, e.g. 2h.")
    ] = None,
    until: Until = None,
    end: Annotated[bool, typer.Option("--end", help="Stop ignoring the window.")] = False,
) -> None:
    """Let devices update outside their maintenance window for a while."""
    ends = end_of(for_, until)
    if (ends is None) != end:
        raise FleetctlError("window_time_missing", "Give one of --for, --until and --end.", exit_code=2)
    devices = selection.devices(context)
    what = (
        f"ignore the maintenance window of {{devices}} until {both_clocks(ends)}"
        if ends
        else "stop ignoring the maintenance window of {devices}"
    )
    if selection.agree(what, devices, context=context):
        change = {"ignore_window_until": ends.isoformat() if ends else None}
        rows = change_devices(context, devices, lambda device: change)
        said = f"is ignored until {both_clocks(ends)}" if ends else "applies again"
        context.say(f"The maintenance window of {counted(rows)} {said}.", rows)


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
                f"There is no device setting {name}.",
                hint=f"The settings are {', '.join((*_TEXTS, *_OPTIONAL))} and label.<key>.",
                exit_code=2,
            )
    return change, labels


def _to_state(
    context: Context, selection: Selection, verb: str, state: str, *, only_from: tuple[str, ...], done: str
) -> None:
    devices = _in_state(context, selection, verb, state, only_from=only_from)
    if selection.agree(f"{verb} {{devices}}", devices, context=context, always_ask=state == "retired"):
        rows = change_devices(context, devices, lambda device: {"state": state})
        context.say(f"{done} {counted(rows)}.", rows)


def _present(selection: Selection) -> Selection:
    """All but the retired unless others are asked for, with --all or --state retired for example."""
    if selection.narrows or selection.everything:
        return selection
    return replace(selection, selector={"state": [one for one in CLOSED["state"] if one != "retired"]})


def _in_state(
    context: Context, selection: Selection, verb: str, state: str, *, only_from: tuple[str, ...]
) -> list[Row]:
    """The selected devices that this concerns. Raises FleetctlError about one that was named and cannot."""
    selected = selection.devices(context)
    devices = [row for row in selected if row["state"] in only_from]
    wrong = [row for row in selected if row["state"] not in (*only_from, state)]
    if selection.names and wrong:
        raise FleetctlError(
            "device_state_is_final" if wrong[0]["state"] == "retired" else "device_state_differs",
            f"Cannot {verb} {wrong[0]['name']}: it is {wrong[0]['state']}.",
            hint="See: fleetctl device list",
        )
    return devices


def _facts(row: Row, now: datetime) -> dict[str, object]:
    """A device and its last report, for people."""
    status = row["status"]
    contact = ago(status.get("reported_at"), now) or "never"
    return {
        "name": row["name"], "id": row["id"], "state": row["state"],
        "role": row["role"], "segment": row["segment"], "branch": row["branch"],
        "labels": ", ".join(f"{name}={value}" for name, value in sorted(row["labels"].items())),
        "set in device.json": ", ".join(local_settings(status.get("settings") or {})),
        "hardware": row["hardware_model"] or "", "os": row["os"] or "",
        "fingerprint": fingerprint_of(row),
        "enrolled": second(row["enrolled_at"]) or "never",
        "health": f"{status.get('state', 'no report yet')} {status.get('reason') or ''}".strip(),
        "release": row["current_version"] or "none",
        "agent": status.get("agent_version") or "",
        "last contact": f"{contact}, offline" if row["offline"] else contact,
        "last error": f"{status['error_kind']}: {status['error']}" if status.get("error_kind") else "",
    }  # fmt: skip


def _flags(row: Row) -> str:
    flags = {"pinned": row["pinned_release"], "held": row["hold"]}
    return ", ".join(name for name, there in flags.items() if there)


_COMMAND_COLUMNS = {
    "sent": lambda row: second(row["requested_at"]),
    "command": lambda row: row["kind"],
    "state": lambda row: row["state"],
    "answered": lambda row: second(row["answered_at"]),
}
