"""`fleetctl doctor`: is the control plane as it has to be, and what to do if not."""

from __future__ import annotations

import os
from collections.abc import Iterable
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from fleetctl.commands.common.context import Context
from fleetctl.commands.common.options import command
from fleetctl.console import counted, out, print_json
from fleetctl.errors import FleetctlError
from fleetctl.stack.connection import address_of
from fleetctl.stack.layout import DEFAULT_DATA, Project

if TYPE_CHECKING:
    from fleetctl.doctor import ControlPlane, Finding

_MARKS = {"ok": "[green]ok[/]       ", "fix": "[bold red]fix[/]      ", "unchecked": "[yellow]unchecked[/]"}

DatabaseUrl = Annotated[
    str | None,
    typer.Option(
        help="URL of the database, of the user postgres; or set FLEET_DB_URL. Known for a stack here."
    ),
]
PublishableKey = Annotated[
    str | None, typer.Option(help="The project's publishable key; or set FLEET_PUBLISHABLE_KEY.")
]
SigningKey = Annotated[
    Path | None,
    typer.Option(
        exists=True, dir_okay=False, help="File with the key in FLEET_SIGNING_JWK (hosted projects only)."
    ),
]


def add_to(app: typer.Typer) -> None:
    command(app)(doctor)


def doctor(
    context: Context,
    db_url: DatabaseUrl = None,
    publishable_key: PublishableKey = None,
    signing_key: SigningKey = None,
    only: Annotated[
        list[str] | None, typer.Option(metavar="CHECK", help="Only this check; may be repeated.")
    ] = None,
) -> None:
    """Examine the control plane: embedded, self-hosted or hosted. Nothing is changed.

    Exits with 0 if everything was checked and is right, with 1 if something is to be fixed or could not be
    checked, and with 3 if the control plane cannot be reached.
    """
    from fleetctl.doctor import CHECKS, examine

    if unknown := sorted(set(only or ()) - set(CHECKS)):
        raise FleetctlError(
            "check_unknown",
            f"{', '.join(unknown)} is not a check.",
            hint=f"The checks are: {', '.join(CHECKS)}.",
            exit_code=2,
        )
    plane = plane_of(context, db_url, publishable_key, signing_key)
    found = show(examine(plane, only or CHECKS), as_json=context.as_json)
    if context.as_json:
        print_json(
            {"api_url": plane.api_url, "kind": plane.kind, "findings": [asdict(finding) for finding in found]}
        )
    wrong = [finding for finding in found if finding.state == "fix"]
    not_checked = [finding for finding in found if finding.state == "unchecked"]
    if not context.as_json:
        out.print(
            f"{counted(wrong, 'thing')} to fix, {len(not_checked)} not checked."
            if wrong or not_checked
            else f"Everything is as it has to be ({plane.kind})."
        )
    if wrong or not_checked:
        raise typer.Exit(1)


def plane_of(
    context: Context, db_url: str | None, publishable_key: str | None, signing_key: Path | None
) -> ControlPlane:
    """What is known here about the control plane that the command acts on."""
    from fleetctl.doctor import ControlPlane, kind_of, read_signing_key

    api_url = context.api_address
    data = context.data or DEFAULT_DATA
    is_embedded = address_of(data) == api_url
    if is_embedded:
        from fleetctl.stack.local_stack import LocalStack

        db_url = db_url or LocalStack.find(data).postgres_db_url
    else:
        # What is around may belong to another project than the stack here.
        db_url = db_url or os.environ.get("FLEET_DB_URL")
        publishable_key = publishable_key or os.environ.get("FLEET_PUBLISHABLE_KEY")
    return ControlPlane(
        api_url=api_url,
        kind=kind_of(api_url, is_embedded=is_embedded),
        migrations=Project.find().migrations,
        key=context.api.target.key,
        publishable_key=publishable_key or context.publishable_key,
        db_url=db_url,
        signing_key=read_signing_key(signing_key) if signing_key else None,
    )


def show(findings: Iterable[Finding], *, as_json: bool) -> list[Finding]:
    """Print each as it is made (not with `as_json`); return all."""
    seen = []
    for finding in findings:
        seen.append(finding)
        if not as_json:
            out.print(_MARKS[finding.state], f"[bold]{finding.check}[/]: ", sep=" ", end="")
            out.print(finding.sentence, markup=False)
            if finding.todo:
                out.print(f"            {finding.todo}", markup=False)
    return seen
