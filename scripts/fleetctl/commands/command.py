"""`fleetctl command`: tell devices to do something once, and read what they answered."""

from __future__ import annotations

import time
from datetime import UTC, datetime
from typing import Annotated, Any

import typer

from fleet_agent.model import CommandKind
from fleetctl.commands.common.context import Fleet
from fleetctl.commands.common.format import counted, second
from fleetctl.commands.common.lookup import find_device
from fleetctl.commands.common.options import command
from fleetctl.commands.common.parse import duration, pairs_of
from fleetctl.commands.common.selection import Selection
from fleetctl.console import err
from fleetctl.errors import FleetctlError

app = typer.Typer(help="One-time orders to devices.", no_args_is_help=True)

_ASK_EVERY_S = 1.0


@command(app)
def send(
    fleet: Fleet,
    *,
    selection: Selection,
    kind: Annotated[CommandKind, typer.Option("--do", help="What to do.")],
    args: Annotated[
        list[str] | None, typer.Option("--arg", metavar="KEY=VALUE", help="Details, like lines=100.")
    ] = None,
    expires_in: Annotated[
        str, typer.Option(metavar="DURATION", help="A device that wakes up later does not do it.")
    ] = "1d",
    wait: Annotated[
        int, typer.Option(metavar="SECONDS", min=0, max=3600, help="Wait so long for the answers.")
    ] = 0,
) -> None:
    """Give devices a command: fleetctl command send kitchen --do tail_logs --arg lines=100 --wait 60."""
    devices = [
        device for device in selection.devices(fleet) if selection.names or device["state"] == "active"
    ]
    if not selection.agree(f"send {kind.value}", devices, fleet=fleet):
        return
    order = {
        "kind": kind.value,
        "args": {
            name: int(text) if text.isdecimal() else text for name, text in pairs_of(args or ()).items()
        },
        "expires_at": (datetime.now(UTC) + duration(expires_in)).isoformat(),
    }
    sent = [fleet.api.insert("device_commands", {**order, "device_id": device["id"]}) for device in devices]
    if not wait:
        fleet.say(f"Sent {kind.value} to {counted(sent)}.", sent)
        return
    answers = _await_answers(fleet, [row["id"] for row in sent], wait)
    names = {device["id"]: device["name"] for device in devices}
    fleet.show("Answers", _columns(names), answers)
    silent = sum(row["state"] == "queued" for row in answers)
    if silent:
        raise FleetctlError(
            "no_answer",
            f"{silent} of {counted(sent)} did not answer within {wait} s.",
            hint="The commands stay queued; see fleetctl command list.",
        )


@command(app, "list")
def list_commands(
    fleet: Fleet,
    device: Annotated[str | None, typer.Argument(help="Only of this device.")] = None,
    limit: Annotated[int, typer.Option(min=1, max=10_000, help="So many, newest first.")] = 20,
) -> None:
    """List commands and their answers, newest first."""
    device_id = find_device(fleet, device)["id"] if device else None

    def narrow(query: Any) -> Any:
        return query.eq("device_id", device_id) if device_id else query

    rows = fleet.api.rows("device_commands", narrow, order="requested_at", newest_first=True, limit=limit)
    ids = sorted({row["device_id"] for row in rows})
    names = {row["id"]: row["name"] for row in fleet.api.rows_of("devices", "id", ids, order="id")}
    fleet.show("Commands", _columns(names), rows)


def _columns(names: dict[str, str]) -> dict[str, Any]:
    return {
        "device": lambda row: names.get(row["device_id"], row["device_id"]),
        "command": lambda row: row["kind"],
        "state": lambda row: row["state"],
        "asked": lambda row: second(row["requested_at"]),
        "answer": lambda row: row["result"],
    }


def _await_answers(fleet: Fleet, ids: list[str], wait_s: int) -> list[dict[str, Any]]:
    """The commands' rows, once all are answered or the time is over."""
    end = time.monotonic() + wait_s
    while True:
        rows = fleet.api.rows_of("device_commands", "id", ids, order="requested_at")
        open_ = sum(row["state"] == "queued" for row in rows)
        if not open_ or time.monotonic() >= end:
            return rows
        err.print(f"[dim]waiting for {open_} of {len(rows)}[/]")
        time.sleep(min(_ASK_EVERY_S, max(0.0, end - time.monotonic())))
