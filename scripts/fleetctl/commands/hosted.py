"""`fleetctl hosted`: a control plane that Supabase hosts, from nothing."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Annotated

import typer

from fleetctl.console import err, out
from fleetctl.errors import FleetctlError
from fleetctl.stack.layout import Project

app = typer.Typer(help="Set up a control plane on hosted Supabase.", no_args_is_help=True)


@app.callback()
def hosted() -> None:
    """One verb so far; without this, Typer would leave its name out."""


@app.command()
def up(  # noqa: PLR0917  # Typer reads options from parameters
    project_ref: Annotated[
        str, typer.Option(help="The project's reference: what stands before .supabase.co in its address.")
    ],
    email: Annotated[str, typer.Option(help="Email address of the first admin.")],
    db_url: Annotated[
        str | None,
        typer.Option(
            help="URL of the project's database, from Connect in its dashboard; or set FLEET_DB_URL."
        ),
    ] = None,
    folder: Annotated[
        Path, typer.Option(help="Where the signing key and the built dashboard are kept.")
    ] = Path(".fleet-hosted"),
    api_url: Annotated[str, typer.Option(help="The project's address, if it has a domain of its own.")] = "",
    wait: Annotated[
        int, typer.Option(min=0, max=1440, help="Minutes to wait for each step that is done by hand.")
    ] = 30,
    dry_run: Annotated[
        bool, typer.Option("--dry-run", help="Print every command and every step by hand, run nothing.")
    ] = False,
) -> None:
    """Bring a project up, from nothing or from where the last run stopped. It may be repeated at any time.

    Example: fleetctl hosted up --project-ref abcdefghijklmnopqrst --email you@example.com
    """
    from fleetctl.doctor import examine
    from fleetctl.hosted import HostedProject, SupabaseCli, bring_up, describe, steps

    db_url = db_url or os.environ.get("FLEET_DB_URL")
    if db_url is None and not dry_run:
        raise FleetctlError(
            "database_url_missing",
            "The address of the project's database was not given.",
            hint="Copy it from the project's dashboard, Connect → Session pooler, into FLEET_DB_URL.",
            exit_code=2,
        )
    checkout = Project.find()
    project = HostedProject(
        ref=project_ref, folder=folder / project_ref, checkout=checkout, db_url=db_url or "", email=email,
        api_url=api_url.rstrip("/"),
    )  # fmt: skip
    todo = steps(project, SupabaseCli(checkout.root, _say), _say)
    if dry_run:
        for line in describe(todo):
            out.print(line, markup=False)
        return
    bring_up(project, todo, examine, _say, wait_s=wait * 60)
    out.print(f"{project.api_url} is up. Put {project.dashboard} on any static host.", markup=False)
    out.print(
        f"Sign in: fleetctl login {email} --api-url {project.api_url} "
        f"--publishable-key {project.publishable_key}",
        markup=False,
    )


def _say(line: str) -> None:
    err.print(line, markup=False)
