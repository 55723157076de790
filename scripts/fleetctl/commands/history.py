"""`fleetctl history`: what the devices attempted, and how it ended."""

from __future__ import annotations

from datetime import datetime
from typing import Annotated

import typer

from fleetctl.client.query import Row, batches, is_one_of, where
from fleetctl.commands.common.context import Context
from fleetctl.commands.common.format import second
from fleetctl.commands.common.lookup import names_by_id
from fleetctl.commands.common.options import Limit, command
from fleetctl.commands.common.selection import Selection


def add_to(app: typer.Typer) -> None:
    command(app)(history)


def history(
    context: Context,
    selection: Selection,
    limit: Limit = 20,
    outcome: Annotated[
        str | None, typer.Option(help="Only with this outcome: succeeded, failed, rolled_back or skipped.")
    ] = None,
) -> None:
    """Show update attempts, newest first, for the whole fleet or for selected devices."""
    narrows = [where(outcome=outcome)]
    if selection.narrows:
        ids = [row["id"] for row in selection.devices(context, all_by_default=True)]
        narrows = [is_one_of("device_id", part, outcome=outcome) for part in batches(ids)]
    rows = [
        row
        for narrow in narrows
        for row in context.api.rows(
            "update_history", narrow, order="started_at,id", newest_first=True, limit=limit
        )
    ]
    # Each batch was cut by itself; times are of one form, so that they compare as text.
    rows = sorted(rows, key=lambda row: (row["started_at"], row["id"]), reverse=True)[:limit]
    if not context.as_json:
        names = names_by_id(context, "devices", [row["device_id"] for row in rows])
        rows = [{**row, "device": names.get(row["device_id"], row["device_id"])} for row in rows]
    context.show(
        "Attempts", {"device": lambda row: row["device"], **ATTEMPT_COLUMNS}, rows, if_none="No attempts."
    )


def _took(row: Row) -> str:
    seconds = datetime.fromisoformat(row["finished_at"]) - datetime.fromisoformat(row["started_at"])
    return f"{seconds.total_seconds():.1f} s"


def _why(row: Row) -> str:
    phase = f" while {row['failed_phase']}" if row["failed_phase"] else ""
    return f"{row['error_kind']}{phase}: {row['error']}" if row["error_kind"] else ""


ATTEMPT_COLUMNS = {
    "started": lambda row: second(row["started_at"]),
    "took": _took,
    "from": lambda row: (row["from_commit"] or "nothing")[:12],
    "to": lambda row: row["to_commit"][:12],
    "outcome": lambda row: row["outcome"],
    "why": _why,
}
