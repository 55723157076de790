"""`fleetctl settings`: what holds for the whole fleet."""

from __future__ import annotations

from typing import Annotated

import typer

from fleetctl.client.query import where
from fleetctl.commands.common.context import Context
from fleetctl.commands.common.options import command
from fleetctl.commands.common.parse import pairs_of
from fleetctl.console import pairs, print_json
from fleetctl.errors import FleetctlError

app = typer.Typer(help="Show and change settings of the whole fleet.", no_args_is_help=True)

_NOT_SETTINGS = ("id", "updated_at")


@command(app)
def show(context: Context) -> None:
    """Show the settings."""
    current = context.api.settings()
    if context.as_json:
        print_json(current)
    else:
        pairs({name: value for name, value in current.items() if name not in _NOT_SETTINGS})


@command(app, "set")
def set_values(
    context: Context, values: Annotated[list[str], typer.Argument(metavar="KEY=VALUE", help="New values.")]
) -> None:
    """Change settings, e.g. fleetctl settings set default_poll_interval_s=300."""
    wanted = pairs_of(values)
    known = [name for name in context.api.settings() if name not in _NOT_SETTINGS]
    for name in wanted:
        if name not in known:
            raise FleetctlError(
                "setting_unknown",
                f"There is no setting {name}.",
                hint=f"The settings are {', '.join(known)}.",
                exit_code=2,
            )
    changed = context.api.update("fleet_settings", wanted, where(id=True))
    context.say(f"Set {', '.join(values)}.", changed[0])
