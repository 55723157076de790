"""`fleetctl settings`: what holds for the whole fleet."""

from __future__ import annotations

from typing import Annotated, Any

import typer

from fleetctl.commands.common.options import Fleet, command, pairs_of
from fleetctl.console import pairs, print_json
from fleetctl.errors import FleetctlError

app = typer.Typer(help="Settings of the whole fleet.", no_args_is_help=True)

_FIXED = ("id", "updated_at")


@command(app)
def show(fleet: Fleet) -> None:
    """Show the settings."""
    current = _current(fleet)
    if fleet.as_json:
        print_json(current)
    else:
        pairs({name: value for name, value in current.items() if name not in _FIXED})


@command(app, "set")
def set_values(
    fleet: Fleet, values: Annotated[list[str], typer.Argument(metavar="KEY=VALUE...", help="New values.")]
) -> None:
    """Change settings: fleetctl settings set default_poll_interval_s=300."""
    wanted = pairs_of(values)
    known = [name for name in _current(fleet) if name not in _FIXED]
    for name in wanted:
        if name not in known:
            raise FleetctlError(
                "setting_unknown",
                f"There is no setting {name}.",
                hint=f"One of {', '.join(known)}.",
                exit_code=2,
            )
    changed = fleet.api.update("fleet_settings", wanted, lambda query: query.eq("id", True))
    fleet.say(f"Set {', '.join(values)}.", changed[0])


def _current(fleet: Fleet) -> dict[str, Any]:
    return fleet.api.settings()
