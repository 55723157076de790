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
        bool, typer.Option("--once", help="Stop everything afterwards; exit 0 only if every step was seen.")
    ] = False,
    data: Annotated[Path, typer.Option(help="Folder for the demo's stack and devices.")] = Path(".fleet"),
    port: Annotated[int, typer.Option(help="Port of the stack; 0 picks a free one.")] = 54321,
    simulated: Annotated[
        bool, typer.Option("--simulated", help="No real containers, even with Docker.")
    ] = False,
    web: Annotated[bool, typer.Option("--web/--no-web", help="Build and serve the dashboard.")] = True,
) -> None:
    """Tell the whole story on this machine: enroll, release, a bad release rolled back, a good one.

    Starts the embedded stack, makes a fleet repository with signed commits, enrolls six devices (one with real
    containers where Docker is there) and watches three releases reach them.

    Example: fleetctl demo --once
    """
    if context.invoked_subcommand is not None:
        return
    from fleetctl.demo.walkthrough import Story

    raise typer.Exit(Story(data=data, port=port, simulated=simulated, web=web).tell(once=once))


@app.command()
def faults(
    only: Annotated[
        list[str] | None, typer.Option("--only", metavar="NAME", help="This scenario; may be repeated.")
    ] = None,
    simulated: Annotated[
        bool, typer.Option("--simulated", help="No real containers, even with Docker.")
    ] = False,
    as_json: Annotated[bool, typer.Option("--json", help="One JSON document on stdout.")] = False,
) -> None:
    """Break one device in every way we know and watch it get out: crashes, hangs, missing things, kill -9.

    Needs no control plane. Exit code 0 only if every scenario ended as it should.

    Example: fleetctl demo faults --only crash --only kill
    """
    from fleetctl.demo.faults.play import run

    raise typer.Exit(run(only or [], simulated=simulated, as_json=as_json))
