"""`fleetctl release`: commits of the fleet repository, offered to devices."""

from __future__ import annotations

import re
import subprocess
from collections import Counter
from pathlib import Path
from typing import Annotated

import typer

from fleetctl.client.query import Row, where
from fleetctl.commands.common.context import Context
from fleetctl.commands.common.format import second
from fleetctl.commands.common.lookup import find_release
from fleetctl.commands.common.options import Limit, OnBranch, command
from fleetctl.errors import FleetctlError

app = typer.Typer(help="Offer commits to devices as releases.", no_args_is_help=True)

_Name = Annotated[str, typer.Argument(metavar="RELEASE", help="Version, commit (7 digits or more) or id.")]


@command(app, "list")
def list_releases(
    context: Context,
    branch: Annotated[str | None, typer.Option(help="Only releases on this branch.")] = None,
    limit: Limit = 20,
) -> None:
    """List releases, newest first, with the number of devices that run each."""
    rows = context.api.rows(
        "releases", where(branch=branch), order="created_at", newest_first=True, limit=limit
    )
    reports = context.api.rows("device_status", select="device_id,current_release", order="device_id")
    running = Counter(report["current_release"] for report in reports)
    rows = [{**row, "devices": running[row["id"]]} for row in rows]
    context.show(
        "Releases",
        {
            "version": lambda row: row["version"],
            "commit": lambda row: row["commit_sha"][:12],
            "branch": lambda row: row["branch"],
            "state": lambda row: row["state"],
            "devices": lambda row: row["devices"],
            "created": lambda row: second(row["created_at"]),
            "signer": lambda row: row["signer"],
            "notes": lambda row: row["notes"],
        },
        rows,
        if_none="No releases.",
    )


@command(app)
def add(
    context: Context,
    *,
    commit: Annotated[str, typer.Argument(help="The full commit id; with --repository, any Git revision.")],
    version: Annotated[
        str, typer.Option(help="Name of the release; by default the first digits of the commit id.")
    ] = "",
    branch: Annotated[str, typer.Option(help="Offer it to devices that follow this branch.")] = "main",
    notes: Annotated[str, typer.Option(help="What is new.")] = "",
    repository: Annotated[
        Path | None, typer.Option(help="A clone of the fleet repository in which to look up the commit.")
    ] = None,
) -> None:
    """Offer a commit to the devices of a branch. They are woken at once."""
    if repository is not None:
        commit = _resolve(repository, commit)
    elif not re.fullmatch(r"[0-9a-fA-F]{40}|[0-9a-fA-F]{64}", commit):
        raise FleetctlError(
            "commit_incomplete",
            f"{commit} is not a full commit id of 40 or 64 hex digits.",
            hint="Give the full id, or --repository with a clone that has the commit.",
            exit_code=2,
        )
    row = {"commit_sha": commit.lower(), "version": version, "branch": branch, "notes": notes}
    made = context.api.insert("releases", row)
    context.say(f"Offered {made['version']} ({made['commit_sha'][:12]}) to branch {made['branch']}.", made)


@command(app)
def withdraw(context: Context, release: _Name, on_branch: OnBranch = None) -> None:
    """Withdraw a release. Devices that run it are offered the newest available one."""
    _set_state(context, find_release(context, release, on_branch), "withdrawn")


@command(app)
def restore(context: Context, release: _Name, on_branch: OnBranch = None) -> None:
    """Offer a withdrawn release again."""
    _set_state(context, find_release(context, release, on_branch), "available")


def _set_state(context: Context, release: Row, state: str) -> None:
    changed = context.api.update("releases", {"state": state}, where(id=release["id"]))
    context.say(f"{release['version']} on branch {release['branch']} is now {state}.", changed[0])


def _resolve(repository: Path, revision: str) -> str:
    """The commit that a revision names in a clone. Raises FleetctlError `commit_unknown`."""
    done = subprocess.run(
        ["git", "-C", str(repository), "rev-parse", "--verify", "--quiet", "--end-of-options",
         f"{revision}^{{commit}}"],
        capture_output=True, text=True, check=False,
    )  # fmt: skip
    if done.returncode != 0:
        raise FleetctlError(
            "commit_unknown",
            f"{repository} has no commit {revision}.",
            hint=f"Fetch it first: git -C {repository} fetch",
            exit_code=5,
        )
    return done.stdout.strip()
