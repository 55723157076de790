"""`fleetctl demo`."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer


def demo(
    once: Annotated[
        bool, typer.Option("--once", help="Stop everything afterwards; exit 0 only if every step was seen.")
    ] = False,
    data: Annotated[Path, typer.Option(help="Folder for the demo's stack and devices.")] = Path(".fleet"),
    port: Annotated[int, typer.Option(help="Port of the stack; 0 picks a free one.")] = 54321,
    simulated: Annotated[
        bool, typer.Option("--simulated", help="No real containers, even with Docker.")
    ] = False,
    web: Annotated[bool, typer.Option("--web/--no-web", help="Build and serve the dashboard.")] = True,
) -> None:
    """Tell the whole story on this machine: enrol, release, a bad release rolled back, a good one.

    Starts the embedded stack, makes a fleet repository with signed commits, enrols six devices (one with real
    containers where Docker is there) and watches three releases reach them.

    Example: fleetctl demo --once
    """
    from fleetctl.demo.story import Story

    raise typer.Exit(Story(data=data, port=port, simulated=simulated, web=web).tell(once=once))
