"""`fleetctl release`: commits of the fleet repository, offered to devices."""

from __future__ import annotations

import re
import subprocess
from pathlib import Path
from typing import Annotated, Any

import typer

from fleetctl.commands.common.context import Fleet
from fleetctl.commands.common.format import second
from fleetctl.commands.common.lookup import find_release
from fleetctl.commands.common.options import command
from fleetctl.errors import FleetctlError

app = typer.Typer(help="Releases: commits that devices can be given.", no_args_is_help=True)

_Name = Annotated[str, typer.Argument(metavar="RELEASE", help="Version, commit (7 digits or more) or id.")]
_OnBranch = Annotated[str | None, typer.Option("--on-branch", help="Where two branches share a name.")]


@command(app, "list")
def list_releases(
    fleet: Fleet,
    branch: Annotated[str | None, typer.Option(help="Only of this branch.")] = None,
    limit: Annotated[int, typer.Option(min=1, max=10_000, help="So many, newest first.")] = 20,
) -> None:
    """List releases, newest first, with how many devices run each."""

    def narrow(query: Any) -> Any:
        return query.eq("branch", branch) if branch else query

    rows = fleet.api.rows("releases", narrow, order="created_at", newest_first=True, limit=limit)
    running: dict[str, int] = {}
    for report in fleet.api.rows("device_status", select="device_id,current_release", order="device_id"):
        running[report["current_release"]] = running.get(report["current_release"], 0) + 1
    rows = [{**row, "devices": running.get(row["id"], 0)} for row in rows]
    fleet.show(
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
    )


@command(app)
def add(
    fleet: Fleet,
    *,
    commit: Annotated[str, typer.Argument(help="The full commit id; with --repository any Git revision.")],
    version: Annotated[
        str, typer.Option(help="A name for people; the commit's first digits by default.")
    ] = "",
    branch: Annotated[str, typer.Option(help="The branch whose devices get it.")] = "main",
    notes: Annotated[str, typer.Option(help="What is new.")] = "",
    repository: Annotated[
        Path | None, typer.Option(help="A clone of the fleet repository to look the commit up in.")
    ] = None,
) -> None:
    """Offer a commit to the devices of a branch; they are woken at once."""
    if repository is not None:
        commit = _resolve(repository, commit)
    elif not re.fullmatch(r"[0-9a-fA-F]{40}|[0-9a-fA-F]{64}", commit):
        raise FleetctlError(
            "commit_incomplete",
            f"{commit} is not a full commit id of 40 or 64 hex digits.",
            hint="Give the full id, or --repository with a clone that knows it.",
            exit_code=2,
        )
    row = {"commit_sha": commit.lower(), "version": version, "branch": branch, "notes": notes}
    made = fleet.api.insert("releases", row)
    fleet.say(f"{made['version']} is offered to branch {made['branch']} ({made['commit_sha'][:12]}).", made)


@command(app)
def withdraw(fleet: Fleet, release: _Name, on_branch: _OnBranch = None) -> None:
    """Take a release back: nobody is offered it, and who runs it is offered the newest available one."""
    _set_state(fleet, find_release(fleet, release, on_branch), "withdrawn")


@command(app)
def restore(fleet: Fleet, release: _Name, on_branch: _OnBranch = None) -> None:
    """Offer a withdrawn release again."""
    _set_state(fleet, find_release(fleet, release, on_branch), "available")


def _set_state(fleet: Fleet, release: dict[str, Any], state: str) -> None:
    changed = fleet.api.update("releases", {"state": state}, lambda query: query.eq("id", release["id"]))
    fleet.say(f"{release['version']} ({release['branch']}) is {state}.", changed[0])


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
            f"{repository} knows no commit {revision}.",
            hint="git fetch there first?",
            exit_code=5,
        )
    return done.stdout.strip()
