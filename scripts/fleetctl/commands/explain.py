"""`fleetctl explain`: why a device runs what it runs."""

from __future__ import annotations

from typing import Annotated

import typer

from fleetctl.client.query import Row
from fleetctl.commands.common.context import Context
from fleetctl.commands.common.format import both_clocks
from fleetctl.commands.common.lookup import find_device
from fleetctl.commands.common.options import command
from fleetctl.commands.common.parse import moment
from fleetctl.console import out, print_json, print_table


def add_to(app: typer.Typer) -> None:
    command(app)(explain)


def explain(
    context: Context,
    device: Annotated[str, typer.Argument(help="Name or id.")],
    at: Annotated[
        str | None,
        typer.Option(
            help="At this time (ISO 8601) instead of now; without an offset, on this machine's clock."
        ),
    ] = None,
) -> None:
    """Show what a device should do and why: every policy gate with its verdict and its reason."""
    row = find_device(context, device)
    then = moment(at) if at else None
    arguments = {"device_id": row["id"], **({"at": then.isoformat()} if then else {})}
    explanation = context.api.ask("explain_device", **arguments)
    if context.as_json:
        print_json(explanation)
    else:
        if then:
            out.print(f"At {both_clocks(then)}:", markup=False)
        print_gates(explanation)


_MARKS = {"pass": "✓ pass", "wait": "… wait", "refuse": "✗ refuse"}


def print_gates(explanation: Row) -> None:
    """The summary, which release the device should run, each gate with its sentence and its hint."""
    release = explanation["release"]
    target = f" {release['version']} ({release['commit_sha'][:12]})" if release else ""
    out.print(f"[bold]{explanation['device']['name']}[/]: {explanation['action']}{target}")
    out.print(explanation["summary"], markup=False)
    if prefetch := explanation.get("prefetch"):
        out.print(f"Meanwhile it may prefetch {prefetch['version']}.", markup=False)
    print_table(
        "",
        ["gate", "verdict", "why"],
        [
            (
                gate["gate"],
                _MARKS.get(gate["verdict"], gate["verdict"]),
                tuple(filter(None, (gate["detail"], gate.get("hint") and f"→ {gate['hint']}"))),
            )
            for gate in explanation["gates"]
        ],
    )
