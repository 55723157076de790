"""`fleetctl alert`: what needs attention."""

from __future__ import annotations

from datetime import UTC, datetime
from typing import Annotated

import typer

from fleetctl.client.query import Row, every_row, is_empty, where
from fleetctl.commands.common.context import Context
from fleetctl.commands.common.format import SHORT_ID, ago
from fleetctl.commands.common.lookup import find_by_id, names_by_id
from fleetctl.commands.common.options import Limit, command
from fleetctl.console import counted
from fleetctl.errors import FleetctlError

app = typer.Typer(help="List and acknowledge alerts.", no_args_is_help=True)

_OPEN = is_empty("resolved_at")


@command(app, "list")
def list_alerts(
    context: Context,
    resolved: Annotated[bool, typer.Option("--resolved", help="Include resolved alerts.")] = False,
    limit: Limit = 100,
) -> None:
    """List open alerts, newest first."""
    now = datetime.now(UTC)
    narrow = every_row if resolved else _OPEN
    rows = context.api.rows("alerts", narrow, order="opened_at,id", newest_first=True, limit=limit)
    about = names_by_id(context, "devices", [row["device_id"] for row in rows])
    about |= names_by_id(context, "rollouts", [row["rollout_id"] for row in rows])
    context.show(
        "Alerts",
        {
            "id": lambda row: row["id"][:SHORT_ID],
            "severity": lambda row: row["severity"],
            "kind": lambda row: row["kind"],
            "about": lambda row: about.get(row["device_id"]) or about.get(row["rollout_id"]),
            "summary": lambda row: row["summary"],
            "opened": lambda row: ago(row["opened_at"], now),
            "state": _state,
        },
        rows,
        if_none="No alerts." if resolved else "No open alerts.",
    )


@command(app)
def ack(
    context: Context,
    alerts: Annotated[list[str] | None, typer.Argument(help="Ids from fleetctl alert list.")] = None,
    everything: Annotated[bool, typer.Option("--all", help="Every open alert.")] = False,
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Count them, change nothing.")] = False,
) -> None:
    """Acknowledge alerts. They resolve when the cause is gone."""
    if bool(alerts) == everything:
        raise FleetctlError(
            "nothing_selected", "No alert is selected.", hint="Give alert ids, or --all.", exit_code=2
        )
    opened = context.api.rows("alerts", _OPEN, order="opened_at,id")
    chosen = opened if everything else [find_by_id(opened, text, "alert_unknown") for text in alerts or ()]
    wanted = [row for row in chosen if row["acknowledged_at"] is None]
    if dry_run:
        context.say(f"Would acknowledge {counted(wanted, 'alert')}.", {"dry_run": True, "alerts": wanted})
        return
    change = {"acknowledged_at": datetime.now(UTC).isoformat()}
    acknowledged = [
        row for alert in wanted for row in context.api.update("alerts", change, where(id=alert["id"]))
    ]
    context.say(f"Acknowledged {counted(acknowledged, 'alert')}.", acknowledged)


def _state(alert: Row) -> str:
    return "resolved" if alert["resolved_at"] else "acknowledged" if alert["acknowledged_at"] else "open"
