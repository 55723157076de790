"""`fleetctl role check`: what is wrong with a role folder, before any device sees it."""

from __future__ import annotations

from dataclasses import asdict
from pathlib import Path
from typing import Annotated, Any

import typer

from fleetctl.console import out, print_json, print_table
from fleetctl.errors import FleetctlError
from fleetctl.role_check.findings import Finding, Report

app = typer.Typer(name="role", help="Check role folders.", no_args_is_help=True)


@app.callback()
def _group() -> None:
    """Keeps `role check` a command of its own while it is the only one."""


@app.command()
def check(
    folders: Annotated[
        list[Path] | None, typer.Argument(help="Role folders; by default, all in roles/.", show_default=False)
    ] = None,
    as_json: Annotated[bool, typer.Option("--json", help="Print one JSON document.")] = False,
) -> None:
    """Check role folders before any device gets them. Exits with 1 if any has an error.

    Example: fleetctl role check roles/beacon
    """
    from fleetctl.role_check.check import check_role
    from fleetctl.role_check.fleet import check_fleet

    chosen = _roles_among(folders) if folders else _all_roles(Path("roles"))
    reports = [check_role(folder) for folder in chosen]
    repositories = sorted({folder.absolute().parent for folder in chosen})
    of_fleet = [found for roles in repositories for found in check_fleet(roles)]
    good = all(report.ok for report in reports) and all(found.level == "warning" for found in of_fleet)
    if as_json:
        roles = [_document(report) for report in reports]
        print_json({"ok": good, "roles": roles, "fleet": [asdict(found) for found in of_fleet]})
    else:
        _show(reports, of_fleet)
    if not good:
        raise typer.Exit(1)


def _roles_among(folders: list[Path]) -> list[Path]:
    """Without roles/common, which `roles/*` names, too: it is a part of every role."""
    found = [folder for folder in folders if folder.absolute().name != "common"]
    if not found:
        raise FleetctlError(
            "roles_missing", f"{folders[0]} is not a role, but what all roles share.",
            hint="Give a role's folder: its check covers what it uses of common.", exit_code=2,
        )  # fmt: skip
    return found


def _all_roles(roles: Path) -> list[Path]:
    if not roles.is_dir():
        raise FleetctlError(
            "roles_missing", "There is no roles/ folder here.",
            hint="Run this in the root of the fleet repository, or give a role's folder.", exit_code=2,
        )  # fmt: skip
    found = sorted(folder for folder in roles.iterdir() if folder.is_dir() and folder.name != "common")
    if not found:
        raise FleetctlError("roles_missing", "roles/ contains no role.", exit_code=2)
    return found


def _document(report: Report) -> dict[str, Any]:
    return {**asdict(report), "ok": report.ok}


def _show(reports: list[Report], of_fleet: list[Finding]) -> None:
    rows = [("all", found.level, found.kind, found.message) for found in of_fleet]
    rows += [
        (report.role, finding.level, finding.kind, finding.message)
        for report in reports
        for finding in report.findings
    ]
    if rows:
        print_table("", ("role", "level", "kind", "finding"), rows)
    good = [report.role for report in reports if report.ok]
    out.print(
        f"{len(good)} of {len(reports)} {'role' if len(reports) == 1 else 'roles'} can be released"
        + (f": {', '.join(good)}" if good else "")
    )
    if not all(report.compose for report in reports):
        out.print(
            "[yellow]Compose is not installed here, so the compose files were only read, not resolved.[/]"
        )
