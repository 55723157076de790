"""`fleetctl audit`: who changed what."""

from __future__ import annotations

from typing import Annotated, Any

import typer

from fleetctl.client.query import where
from fleetctl.commands.common.context import Context
from fleetctl.commands.common.format import second
from fleetctl.commands.common.options import Limit, command


def add_to(app: typer.Typer) -> None:
    command(app)(audit)


def audit(
    context: Context,
    limit: Limit = 20,
    table: Annotated[str | None, typer.Option(help="Only changes to this table.")] = None,
) -> None:
    """Show who changed devices, releases, rollouts and settings, newest first."""
    rows = context.api.rows("audit_log", where(table_name=table), order="id", newest_first=True, limit=limit)
    context.show(
        "Changes",
        {
            "at": lambda row: second(row["at"]),
            "who": lambda row: row["actor"],
            "what": lambda row: f"{row['action']} {row['table_name']} {row['row_id']}",
            "before": lambda row: _brief(row["before"] if row["action"] != "insert" else None),
            "after": lambda row: _brief(row["after"]),
        },
        rows,
        if_none="No changes.",
    )


def _brief(values: dict[str, Any] | None) -> str:
    text = ", ".join(f"{name}={value}" for name, value in (values or {}).items())
    return text if len(text) <= 120 else text[:119] + "…"
