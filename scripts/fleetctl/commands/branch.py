"""`fleetctl branch`: who gets a release of a branch when it is added."""

from __future__ import annotations

from collections import Counter
from enum import StrEnum
from typing import Annotated

import typer

from fleetctl.client.query import where
from fleetctl.commands.common.confirm import agreed
from fleetctl.commands.common.context import Context
from fleetctl.commands.common.options import DryRun, Yes, command
from fleetctl.console import counted
from fleetctl.errors import FleetctlError

app = typer.Typer(help="Show and set how the releases of a branch are delivered.", no_args_is_help=True)


class Delivery(StrEnum):
    """`branches.delivery`."""

    ROLLOUT_ONLY = "rollout_only"
    IMMEDIATE = "immediate"


@command(app, "list")
def list_branches(context: Context) -> None:
    """List branches, how each delivers its releases, and how many active devices follow it."""
    active = context.api.rows("devices", where(state="active"), select="branch", order="id")
    devices = Counter(row["branch"] for row in active)
    rows = [{**row, "devices": devices[row["name"]]} for row in context.api.rows("branches", order="name")]
    context.show(
        "Branches",
        {
            "branch": lambda row: row["name"],
            "delivery": lambda row: row["delivery"],
            "template": lambda row: row["rollout_template"],
            "devices": lambda row: row["devices"],
            "description": lambda row: row["description"],
        },
        rows,
        if_none="No branches.",
    )


@command(app, "set")
def set_delivery(
    context: Context,
    branch: Annotated[str, typer.Argument(help="Name of the branch.")],
    delivery: Annotated[
        Delivery,
        typer.Option(help="rollout_only: a release needs a rollout. immediate: everybody gets it."),
    ],
    dry_run: DryRun = False,
    yes: Yes = False,
) -> None:
    """Set how releases are delivered. `immediate` asks first: its devices get the newest release at once."""
    if not context.api.rows("branches", where(name=branch), order="name"):
        raise FleetctlError(
            "branch_unknown",
            f"There is no branch {branch}.",
            hint="See them with: fleetctl branch list",
            exit_code=5,
        )
    narrow = where(branch=branch, state="active")
    number = context.api.count("devices", narrow)
    devices = counted(number)
    immediate = delivery is Delivery.IMMEDIATE
    what = (
        f"give each release of branch {branch} to {devices} at once, beginning with the newest"
        if immediate
        else f"give releases of branch {branch} ({devices}) by rollout only"
    )
    told = {"branch": branch, "devices": number}
    # The other way only stops something.
    if agreed(context, what, 0, told, dry_run=dry_run, yes=yes, always_ask=immediate):
        changed = context.api.update("branches", {"delivery": delivery.value}, where(name=branch))
        context.say(f"Branch {branch} ({devices}) is now {delivery.value}.", changed[0])
