"""`fleetctl explain`: why a device is where it is."""

from __future__ import annotations

from typing import Annotated, Any

import typer

from fleetctl.commands.common.options import Fleet, command, find_device, moment
from fleetctl.console import out, print_json, print_table


def add_to(app: typer.Typer) -> None:
    command(app)(explain)


def explain(
    fleet: Fleet,
    device: Annotated[str, typer.Argument(help="Name or id.")],
    at: Annotated[str | None, typer.Option(help="As it will be at this time (ISO); now by default.")] = None,
) -> None:
    """Every gate between a device and its release, with its verdict, as the device itself would be told."""
    row = find_device(fleet, device)
    arguments = {"device_id": row["id"], **({"at": moment(at).isoformat()} if at else {})}
    why = fleet.api.rpc("explain_device", **arguments)
    if fleet.as_json:
        print_json(why)
    else:
        print_gates(why)


_MARKS = {"pass": "✓ pass", "wait": "… wait", "refuse": "✗ refuse"}


def print_gates(why: dict[str, Any]) -> None:
    """The summary, what the device should be on, each gate with its sentence and its hint."""
    release = why["release"]
    target = f" {release['version']} ({release['commit_sha'][:12]})" if release else ""
    out.print(f"[bold]{why['device']['name']}[/]: {why['action']}{target}")
    out.print(why["summary"], markup=False)
    if why.get("prefetch"):
        out.print(f"Meanwhile it may fetch {why['prefetch']['version']} and prefetch it.", markup=False)
    print_table(
        "",
        ["gate", "verdict", ""],
        [
            (
                gate["gate"],
                _MARKS.get(gate["verdict"], gate["verdict"]),
                "\n".join(filter(None, (gate["detail"], gate.get("hint") and f"→ {gate['hint']}"))),
            )
            for gate in why["gates"]
        ],
    )
