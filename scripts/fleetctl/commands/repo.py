"""`fleetctl repo`: make a fleet repository, and commit signed releases to it."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from fleetctl import fleet_repo
from fleetctl.console import out, pairs, print_json
from fleetctl.fleet_repo import FleetRepo

app = typer.Typer(
    name="repo", help="Create a fleet repository, and commit signed releases to it.", no_args_is_help=True
)

RepoPath = Annotated[Path, typer.Argument(help="Folder of the repository.")]
AsJson = Annotated[bool, typer.Option("--json", help="Print one JSON document.")]


@app.command()
def init(
    path: RepoPath,
    branch: Annotated[str, typer.Option(help="Name of the first branch.")] = "main",
    adopt: Annotated[
        bool, typer.Option("--adopt", help="Give an existing repository a fleet id, and change nothing else.")
    ] = False,
    as_json: AsJson = False,
) -> None:
    """Create a fleet repository with the roles of this checkout, a signing key and its `allowed_signers`.

    Its `roles/common/fleet.json` has the id of the new fleet: devices refuse releases of any other.

    Example: fleetctl repo init ../my-fleet
    """
    if adopt:
        _adopt(path, as_json=as_json)
        return
    repo = FleetRepo.create(path, branch=branch)
    facts = {"path": str(repo.path), "url": repo.url, "signing_key": str(repo.key.private)}
    facts["allowed_signers"] = str(repo.allowed_signers)
    facts["fleet_id"] = str(fleet_repo.fleet_id_of(repo.path))
    if as_json:
        print_json(facts)
    else:
        pairs(facts)
        out.print(f"Next: fleetctl repo commit {path} v1")


def _adopt(path: Path, *, as_json: bool) -> None:
    if not (path / ".git").exists():
        raise FleetRepo.missing(path)
    facts = {"path": str(path.resolve()), "fleet_id": str(fleet_repo.adopt(path))}
    if as_json:
        print_json(facts)
        return
    pairs(facts)
    from fleet_agent.model import FLEET_FILE

    out.print(f"Next: commit {FLEET_FILE}, signed, and release it.")


@app.command()
def commit(
    path: RepoPath,
    version: Annotated[str, typer.Argument(help="Name of the release.")],
    branch: Annotated[str | None, typer.Option(help="Branch to commit to; created if missing.")] = None,
    sign: Annotated[bool, typer.Option(help="Sign it; devices refuse unsigned releases.")] = True,
    as_json: AsJson = False,
) -> None:
    """Commit everything in the folder as one signed release, and print the commit id.

    Example: fleetctl repo commit ../my-fleet v1
    """
    repo = FleetRepo.open(path)
    sha = repo.commit(version, sign=sign, branch=branch)
    if as_json:
        print_json({"commit_sha": sha, "version": version, "branch": repo.git("branch", "--show-current")})
    else:
        out.print(sha)
