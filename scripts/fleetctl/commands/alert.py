"""`fleetctl alert`: what policy wants somebody to look at."""

from __future__ import annotations

from datetime import UTC, datetime
from typing import Annotated, Any

import typer

from fleetctl.commands.common.context import Fleet
from fleetctl.commands.common.format import SHORT_ID, ago
from fleetctl.commands.common.lookup import find_by_id
from fleetctl.commands.common.options import command
from fleetctl.errors import FleetctlError

app = typer.Typer(help="Alerts: what somebody should look at.", no_args_is_help=True)


@command(app, "list")
def list_alerts(
    fleet: Fleet,
    resolved: Annotated[bool, typer.Option("--resolved", help="Those that are over, too.")] = False,
    limit: Annotated[int, typer.Option(min=1, max=1000, help="So many, newest first.")] = 100,
) -> None:
    """List open alerts, newest first."""
    now = datetime.now(UTC)
    rows = fleet.api.rows(
        "alerts", _any if resolved else _is_open, order="opened_at", newest_first=True, limit=limit
    )
    about = _names(fleet, "devices", rows, "device_id") | _names(fleet, "rollouts", rows, "rollout_id")
    fleet.show(
        "Alerts",
        {
            "id": lambda row: row["id"][:SHORT_ID],
            "severity": lambda row: row["severity"],
            "kind": lambda row: row["kind"],
            "about": lambda row: about.get(row["device_id"]) or about.get(row["rollout_id"]),
            "what": lambda row: row["summary"],
            "since": lambda row: ago(row["opened_at"], now),
            "": lambda row: "over" if row["resolved_at"] else "seen" if row["acknowledged_at"] else "",
        },
        rows,
    )


@command(app)
def ack(
    fleet: Fleet,
    alerts: Annotated[list[str] | None, typer.Argument(help="Ids from fleetctl alert list.")] = None,
    everything: Annotated[bool, typer.Option("--all", help="Every open one.")] = False,
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Say which, change nothing.")] = False,
) -> None:
    """Say that somebody looks at them; policy resolves each when its cause is over."""
    if bool(alerts) == everything:
        raise FleetctlError(
            "nothing_selected", "No alert is selected.", hint="Give ids, or --all.", exit_code=2
        )
    opened = fleet.api.rows("alerts", _is_open, order="opened_at")
    chosen = opened if everything else [find_by_id(opened, text, "alert") for text in alerts or ()]
    wanted = [row for row in chosen if row["acknowledged_at"] is None]
    if dry_run:
        fleet.say(f"Would acknowledge {_counted(wanted)}.", {"dry_run": True, "alerts": wanted})
        return
    seen = [row for one in wanted for row in _acknowledge(fleet, one["id"])]
    fleet.say(f"Acknowledged {_counted(seen)}.", seen)


def _names(fleet: Fleet, table: str, rows: list[dict[str, Any]], column: str) -> dict[str, str]:
    ids = sorted({row[column] for row in rows if row[column]})
    return {row["id"]: row["name"] for row in fleet.api.rows_of(table, "id", ids, order="id")}


def _acknowledge(fleet: Fleet, alert_id: str) -> list[dict[str, Any]]:
    change = {"acknowledged_at": datetime.now(UTC).isoformat()}
    return fleet.api.update("alerts", change, lambda query: query.eq("id", alert_id))


def _counted(rows: list[dict[str, Any]]) -> str:
    return f"{len(rows)} alert{'' if len(rows) == 1 else 's'}"


def _is_open(query: Any) -> Any:
    return query.is_("resolved_at", "null")


def _any(query: Any) -> Any:
    return query
