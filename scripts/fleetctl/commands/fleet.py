"""`fleetctl fleet`: the fleets that this terminal knows by name, and which of them commands act on."""

from __future__ import annotations

from typing import Annotated

import typer

from fleetctl.client import known_fleets
from fleetctl.client.known_fleets import LOCAL
from fleetctl.client.query import Row
from fleetctl.commands.common.aim import ENVIRONMENT, Around
from fleetctl.commands.common.options import Json
from fleetctl.console import out, print_json, print_table, print_warning
from fleetctl.stack.connection import address_of
from fleetctl.stack.layout import DEFAULT_DATA

app = typer.Typer(help="List the fleets known here, and choose one.", no_args_is_help=True)


@app.command("list")
def list_fleets(as_json: Json = False) -> None:
    """List the fleets known here by name, and which one commands act on."""
    rows = _rows(Around.here())
    if as_json:
        print_json(rows)
    elif not rows:
        out.print("No fleets. Sign in to one: fleetctl login EMAIL, or start one here: fleetctl up")
    else:
        columns = ("fleet", "address", "as", "in use")
        print_table("Fleets", columns, (_cells(row) for row in rows))


@app.command()
def use(
    fleet: Annotated[
        str,
        typer.Argument(metavar="NAME", help="Its name in fleetctl fleet list; local is the stack in .fleet."),
    ],
    as_json: Json = False,
) -> None:
    """Have commands act on this fleet from now on, unless another one is named."""
    known_fleets.use(fleet)
    around = Around.here()
    if around.api_url is not None:
        print_warning(f"FLEET_API_URL is set to {around.api_url} and comes first.", "Unset it.")
    if as_json:
        print_json({"in_use": fleet})
    else:
        out.print(f"Commands now act on {fleet}.", markup=False)


def _cells(row: Row) -> list[object]:
    return [row["fleet"], row["api_url"], row["email"] or "secret key", "yes" if row["in_use"] else ""]


def _rows(around: Around) -> list[Row]:
    """The named ones, the stack that runs here, and what the environment says."""
    rows: list[Row] = [
        {"fleet": name, "api_url": one.api_url, "email": one.email}
        for name, one in sorted(around.known.sessions.items())
    ]
    here = address_of(DEFAULT_DATA)
    if LOCAL not in around.known.sessions and here is not None:
        rows.append({"fleet": LOCAL, "api_url": here, "email": None})
    acted_on = around.known.in_use or (None if around.known.sessions else LOCAL)
    if around.api_url is not None:
        acted_on = ENVIRONMENT
        rows.append({"fleet": ENVIRONMENT, "api_url": around.api_url, "email": None})
    return [{**row, "in_use": row["fleet"] == acted_on} for row in rows]
