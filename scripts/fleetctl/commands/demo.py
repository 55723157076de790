"""`fleetctl demo` and `fleetctl demo faults`."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

app = typer.Typer(invoke_without_command=True)


@app.callback()
def demo(  # noqa: PLR0917  options, all named
    context: typer.Context,
    once: Annotated[
        bool,
        typer.Option("--once", help="Stop everything at the end; exit with 0 only if every step succeeded."),
    ] = False,
    data: Annotated[Path, typer.Option(help="Folder for the demo's stack and devices.")] = Path(".fleet"),
    port: Annotated[int, typer.Option(help="Port of the API; 0 picks a free one.")] = 54321,
    simulated: Annotated[
        bool, typer.Option("--simulated", help="Use simulated containers even if Docker is available.")
    ] = False,
    web: Annotated[bool, typer.Option("--web/--no-web", help="Build the dashboard if needed.")] = True,
) -> None:
    """Run a whole fleet on this machine: enroll devices, release, roll back a bad release, halt a rollout.

    Starts a stack, creates a fleet repository, enrolls six devices and gives them good and bad releases.

    One of the devices runs real containers if Docker is available.

    Example: fleetctl demo --once
    """
    if context.invoked_subcommand is not None:
        return
    from fleetctl.demo.walkthrough import Walkthrough

    raise typer.Exit(Walkthrough(data=data, port=port, simulated=simulated, web=web).run(once=once))


@app.command()
def faults(
    only: Annotated[
        list[str] | None, typer.Option("--only", metavar="NAME", help="Only this scenario; may be repeated.")
    ] = None,
    simulated: Annotated[
        bool, typer.Option("--simulated", help="Use simulated containers even if Docker is available.")
    ] = False,
    as_json: Annotated[bool, typer.Option("--json", help="Print one JSON document.")] = False,
) -> None:
    """Break updates on one device in every way we know, and watch it recover: crashes, hangs, kill -9, …

    Needs no control plane. Exits with 0 only if every scenario ended as expected.

    Example: fleetctl demo faults --only crash --only kill
    """
    from fleetctl.demo.faults.runner import run

    raise typer.Exit(run(only or [], simulated=simulated, as_json=as_json))
