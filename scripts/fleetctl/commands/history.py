"""`fleetctl history`: what the devices tried, and how it ended."""

from __future__ import annotations

from datetime import datetime
from typing import Annotated, Any

import typer

from fleetctl.commands.common.context import Fleet
from fleetctl.commands.common.format import second
from fleetctl.commands.common.options import command
from fleetctl.commands.common.selection import Selection


def add_to(app: typer.Typer) -> None:
    command(app)(history)


def history(
    fleet: Fleet,
    selection: Selection,
    limit: Annotated[int, typer.Option(min=1, max=10_000, help="So many attempts, newest first.")] = 20,
    outcome: Annotated[
        str | None, typer.Option(help="Only succeeded, failed, rolled_back or skipped.")
    ] = None,
) -> None:
    """Attempts to update, newest first: of the whole fleet, or of the devices selected (100 at most)."""
    chosen = selection.names or selection.conditions or selection.labels
    ids = [row["id"] for row in selection.devices(fleet)] if chosen else None

    def narrow(query: Any) -> Any:
        query = query.eq("outcome", outcome) if outcome else query
        return query if ids is None else query.in_("device_id", ids[:100])

    rows = fleet.api.rows("update_history", narrow, order="started_at", newest_first=True, limit=limit)
    if not fleet.as_json:
        devices = fleet.api.rows_of(
            "devices", "id", sorted({row["device_id"] for row in rows}), select="id,name", order="id"
        )
        names = {device["id"]: device["name"] for device in devices}
        rows = [{**row, "device": names.get(row["device_id"], row["device_id"])} for row in rows]
    fleet.show("Attempts", {"device": lambda row: row["device"], **ATTEMPT_COLUMNS}, rows)


def _took(row: dict[str, Any]) -> str:
    seconds = datetime.fromisoformat(row["finished_at"]) - datetime.fromisoformat(row["started_at"])
    return f"{seconds.total_seconds():.1f} s"


def _why(row: dict[str, Any]) -> str:
    where = f" while {row['failed_phase']}" if row["failed_phase"] else ""
    return f"{row['error_kind']}{where}: {row['error']}" if row["error_kind"] else ""


ATTEMPT_COLUMNS = {
    "started": lambda row: second(row["started_at"]),
    "took": _took,
    "from": lambda row: (row["from_commit"] or "nothing")[:12],
    "to": lambda row: row["to_commit"][:12],
    "outcome": lambda row: row["outcome"],
    "why": _why,
}
