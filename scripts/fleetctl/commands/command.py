"""`fleetctl command`: have devices do something once, and read their answers."""

from __future__ import annotations

import time
from datetime import UTC, datetime
from enum import StrEnum
from typing import Annotated, Any

import typer

from fleetctl.client.query import Row, where
from fleetctl.commands.common.context import Context
from fleetctl.commands.common.format import second
from fleetctl.commands.common.lookup import find_device, names_by_id
from fleetctl.commands.common.options import AllAtOnce, Limit, command
from fleetctl.commands.common.parse import duration, pairs_of
from fleetctl.commands.common.selection import Selection
from fleetctl.console import counted, err
from fleetctl.errors import FleetctlError

app = typer.Typer(help="Send one-time commands to devices.", no_args_is_help=True)

_POLL_S = 1.0


class Kind(StrEnum):
    """The agent's CommandKind, which takes longer to load than all of --help. A test keeps them the same."""

    UPDATE_NOW = "update_now"
    ROLLBACK = "rollback"
    ENTER_SAFE_MODE = "enter_safe_mode"
    LEAVE_SAFE_MODE = "leave_safe_mode"
    RESTART = "restart"
    TAIL_LOGS = "tail_logs"
    CHECK_DRIFT = "check_drift"


@command(app)
def send(
    context: Context,
    *,
    selection: Selection,
    kind: Annotated[Kind, typer.Option("--do", help="The command.")],
    args: Annotated[
        list[str] | None, typer.Option("--arg", metavar="KEY=VALUE", help="Its arguments, e.g. lines=100.")
    ] = None,
    expires_in: Annotated[
        str,
        typer.Option(
            metavar="DURATION", help="Discard the command if the device has not picked it up by then."
        ),
    ] = "1d",
    all_at_once: AllAtOnce = False,
    wait: Annotated[
        int, typer.Option(metavar="SECONDS", min=0, max=3600, help="Wait up to this long for answers.")
    ] = 0,
) -> None:
    """Send a command, e.g. fleetctl command send kitchen --do tail_logs --arg lines=100 --wait 60."""
    devices = [
        device for device in selection.devices(context) if selection.names or device["state"] == "active"
    ]
    if all_at_once and kind is not Kind.ROLLBACK:
        raise FleetctlError(
            "option_misplaced", "--all-at-once is for --do rollback.", hint="Leave it out.", exit_code=2
        )
    how = {True: ", all at once", False: ", as slots allow"}[all_at_once] if kind is Kind.ROLLBACK else ""
    if not selection.agree(f"send {kind.value} to {{devices}}{how}", devices, context=context):
        return
    row = {
        "kind": kind.value,
        "args": {name: int(text) if text.isdecimal() else text for name, text in pairs_of(args or ()).items()}
        | ({"all_at_once": True} if all_at_once else {}),
        "expires_at": (datetime.now(UTC) + duration(expires_in)).isoformat(),
    }
    sent = [context.api.insert("device_commands", {**row, "device_id": device["id"]}) for device in devices]
    if not wait:
        context.say(f"Sent {kind.value} to {counted(sent)}.", sent)
        return
    answers = _await_answers(context, [row["id"] for row in sent], wait)
    names = {device["id"]: device["name"] for device in devices}
    context.show("Answers", _columns(names), answers, if_none="No answers.")
    unanswered = sum(row["state"] == "queued" for row in answers)
    if unanswered:
        raise FleetctlError(
            "no_answer",
            f"{unanswered} of {counted(sent)} did not answer within {wait} s.",
            hint="The commands stay queued. See: fleetctl command list",
        )


@command(app, "list")
def list_commands(
    context: Context,
    device: Annotated[str | None, typer.Argument(help="Only commands to this device.")] = None,
    limit: Limit = 20,
) -> None:
    """List commands and their answers, newest first."""
    narrow = where(device_id=find_device(context, device)["id"] if device else None)
    rows = context.api.rows(
        "device_commands", narrow, order="requested_at,id", newest_first=True, limit=limit
    )
    names = names_by_id(context, "devices", [row["device_id"] for row in rows])
    context.show("Commands", _columns(names), rows, if_none="No commands.")


def _columns(names: dict[str, str]) -> dict[str, Any]:
    return {
        "device": lambda row: names.get(row["device_id"], row["device_id"]),
        "command": lambda row: row["kind"],
        "state": lambda row: row["state"],
        "sent": lambda row: second(row["requested_at"]),
        "answer": lambda row: row["result"],
    }


def _await_answers(context: Context, ids: list[str], wait_s: int) -> list[Row]:
    """The commands' rows, once all are answered or the time is over."""
    end = time.monotonic() + wait_s
    while True:
        rows = context.api.rows_of("device_commands", "id", ids, order="requested_at,id")
        open_ = sum(row["state"] == "queued" for row in rows)
        if not open_ or time.monotonic() >= end:
            return rows
        err.print(f"[dim]Waiting for {open_} of {counted(rows)}[/]")
        time.sleep(min(_POLL_S, max(0.0, end - time.monotonic())))
