"""`fleetctl audit`: who changed what."""

from __future__ import annotations

from typing import Annotated, Any

import typer

from fleetctl.commands.common.context import Fleet
from fleetctl.commands.common.format import second
from fleetctl.commands.common.options import command


def add_to(app: typer.Typer) -> None:
    command(app)(audit)


def audit(
    fleet: Fleet,
    limit: Annotated[int, typer.Option(min=1, max=10_000, help="So many changes, newest first.")] = 20,
    table: Annotated[str | None, typer.Option(help="Only of this table.")] = None,
) -> None:
    """Changes to the policy tables, newest first: by whom, before and after."""

    def narrow(query: Any) -> Any:
        return query.eq("table_name", table) if table else query

    rows = fleet.api.rows("audit_log", narrow, order="id", newest_first=True, limit=limit)
    fleet.show(
        "Changes",
        {
            "at": lambda row: second(row["at"]),
            "who": lambda row: row["actor"],
            "what": lambda row: f"{row['action']} {row['table_name']} {row['row_id']}",
            "before": lambda row: _brief(row["before"] if row["action"] != "insert" else None),
            "after": lambda row: _brief(row["after"]),
        },
        rows,
    )


def _brief(values: dict[str, Any] | None) -> str:
    text = ", ".join(f"{name}={value}" for name, value in (values or {}).items())
    return text if len(text) <= 120 else text[:119] + "…"
