"""`fleetctl release`: commits of the fleet repository, offered to devices."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping
from pathlib import Path
from typing import Annotated, Any

import typer

from fleetctl.client.query import Row, is_one_of, where
from fleetctl.commands import release_commit
from fleetctl.commands.common.confirm import agreed, confirm
from fleetctl.commands.common.context import Context
from fleetctl.commands.common.format import second
from fleetctl.commands.common.going_back import going_back
from fleetctl.commands.common.lookup import find_release
from fleetctl.commands.common.options import (
    AllAtOnce,
    DryRun,
    Labels,
    Limit,
    OnBranch,
    SelectorText,
    Yes,
    command,
)
from fleetctl.commands.rollout_stages import Columns, Stages, parse_stage, rollout_options
from fleetctl.commands.rollout_view import print_access, print_outlook
from fleetctl.console import counted
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
        "releases", where(branch=branch), order="created_at,id", newest_first=True, limit=limit
    )
    reports = context.api.rows(
        "device_status",
        lambda query: query.neq("devices.state", "retired"),
        select="device_id,current_release,devices!inner(state)",
        order="device_id",
    )
    running = Counter(report["current_release"] for report in reports)
    verified = context.api.rows_of(
        "release_signers", "release_id", [row["id"] for row in rows], order="release_id,signer"
    )
    signers: dict[str, dict[str, int]] = {row["id"]: {} for row in rows}
    for one in verified:
        signers[one["release_id"]][one["signer"]] = one["devices"]
    rows = [{**row, "devices": running[row["id"]], "signers": signers[row["id"]]} for row in rows]
    context.show(
        "Releases",
        {
            "version": lambda row: row["version"],
            "commit": lambda row: row["commit_sha"][:12],
            "branch": lambda row: row["branch"],
            "state": lambda row: row["state"],
            "devices": lambda row: row["devices"],
            "created": lambda row: second(row["created_at"]),
            "signed": lambda row: _signed(row["signers"]),
            "notes": lambda row: row["notes"],
        },
        rows,
        if_none="No releases.",
    )


def _signed(signers: Mapping[str, int]) -> str:
    """Who signed it, as devices verified: each says so for itself, and one that lies shows."""
    if not signers:
        return ""
    most_first = sorted(signers.items(), key=lambda one: (-one[1], one[0]))
    if len(signers) == 1:
        ((signer, devices),) = most_first
        return f"signed by {signer}, verified by {counted(devices)}"
    each = ", ".join(f"{signer} ({counted(devices)})" for signer, devices in most_first)
    return f"devices differ: {each}"


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
    stage: Stages = None,
    to_all: Annotated[
        bool, typer.Option("--to-all", help="Give it to every device of the branch, in one stage.")
    ] = False,
    template: Annotated[str | None, typer.Option(help="Take stages and limits from this template.")] = None,
    role: Annotated[str | None, typer.Option(help="Only devices with this role.")] = None,
    selector: SelectorText = None,
    label: Labels = None,
    option: Columns = None,
    repository: Annotated[
        Path | None, typer.Option(help="A clone of the fleet repository in which to look up the commit.")
    ] = None,
    allowed_signers: Annotated[
        Path | None,
        typer.Option(help="Verify the signature against this file; by default that of the repository."),
    ] = None,
    unsigned: Annotated[bool, typer.Option("--unsigned", help="Do not verify the signature.")] = False,
    dry_run: DryRun = False,
    yes: Yes = False,
) -> None:
    """Add a release and say who gets it: by --stage (repeat it), by --template, or --to-all.

    Without any of them it reaches nobody until its rollout is started, unless the branch is immediate.
    """
    commit = release_commit.resolve(repository, commit)
    signer, unverified = _verified(repository, commit, allowed_signers, unsigned=unsigned)
    stages = [parse_stage(context, text) for text in stage] if stage else None
    if to_all and (stages or template):
        raise FleetctlError(
            "stages_said_twice",
            "--to-all is one stage for everybody, so it goes with neither --stage nor --template.",
            hint="Leave one of them out.",
            exit_code=2,
        )
    if (role or selector or label or option) and not (stages or template or to_all):
        raise FleetctlError(
            "stages_missing",
            "--role, --selector, --label and --set are about a rollout, and none was asked for.",
            hint="Add --stage, --template or --to-all.",
            exit_code=2,
        )
    wanted: dict[str, Any] = {
        "commit_sha": commit, "version": version, "branch": branch, "notes": notes,
        "stages": [{}] if to_all else stages, "template": template, "role": role,
        # Everybody is also who comes later.
        "options": ({"allow_empty": True} if to_all else {}) | rollout_options(selector, label, option),
    }  # fmt: skip
    if repository is not None:
        wanted["access"] = release_commit.access(repository, commit)
    outlook = context.api.ask("add_release", **wanted, dry_run=True)
    if not context.as_json:
        print_outlook(outlook)
        print_access(outlook["release"])
    if dry_run:
        context.say(" ".join(filter(None, (unverified, "Nothing was added."))), {**outlook, "signer": signer})
        return
    if outlook["devices"] and not yes:
        confirm(f"give {outlook['release']['version']} to {counted(outlook['devices'])}", look="--dry-run")
    added = context.api.rpc("add_release", **wanted)
    made = added["release"]
    signed = f", signed by {signer}" if signer else ""
    sentences = [
        f"Added {made['version']} ({made['commit_sha'][:12]}{signed}) to branch {made['branch']}.",
        unverified,
    ]
    if added["delivery"] == "nobody":
        sentences.append(f"To give it to devices: fleetctl rollout create {made['version']}")
    context.say(
        " ".join(filter(None, sentences)),
        {
            **made,
            **{key: added[key] for key in ("delivery", "devices", "stages", "rollout_id")},
            "signer": signer,
        },
    )


def _verified(
    repository: Path | None, commit: str, allowed_signers: Path | None, *, unsigned: bool
) -> tuple[str | None, str]:
    """Who signed the commit; if nothing was verified, a sentence that says so, and why."""
    signers = allowed_signers or (release_commit.signers_of(repository) if repository is not None else None)
    if unsigned:
        why = "--unsigned was given"
    elif repository is None:
        why = "that takes --repository"
    elif signers is None:
        why = f"{repository} names no allowed_signers file, so add --allowed-signers"
    else:
        return release_commit.signer(repository, commit, signers), ""
    return None, f"Its signature was not verified here: {why}."


@command(app)
def withdraw(
    context: Context,
    release: _Name,
    on_branch: OnBranch = None,
    *,
    dry_run: DryRun = False,
    all_at_once: AllAtOnce = False,
    yes: Yes = False,
) -> None:
    """Withdraw a release. Devices that run it go back to what was said before, as slots allow."""
    row = find_release(context, release, on_branch)
    told = going_back(context, row["id"], all_at_once=all_at_once, by_halt=False)
    if dry_run:
        context.say(f"Would withdraw {row['version']}. {told['summary']}", {"dry_run": True, **told})
        return
    what = f"withdraw {row['version']}, which takes {counted(told['devices'])} back"
    if agreed(context, what, told["devices"], told, dry_run=False, yes=yes):
        _set_state(context, row, "withdrawn", all_at_once=all_at_once)


@command(app)
def restore(
    context: Context,
    release: _Name,
    on_branch: OnBranch = None,
    *,
    dry_run: DryRun = False,
    yes: Yes = False,
) -> None:
    """Offer a withdrawn release again, as its rollouts and its branch say."""
    row = find_release(context, release, on_branch)
    devices = _offered_to(context, row)
    what = f"offer {row['version']} again, to {counted(devices)}"
    if agreed(context, what, devices, {"devices": devices}, dry_run=dry_run, yes=yes):
        _set_state(context, row, "available")


def _offered_to(context: Context, release: Row) -> int:
    """How many devices an available release is given to that do not run it: by rollouts, or by its branch."""
    (branch,) = context.api.rows("branches", where(name=release["branch"]), order="name")
    if branch["delivery"] == "immediate" and not release["by_rollout_only"]:
        there = {"branch": release["branch"], "state": "active", "not_release": release["version"]}
        return int(context.api.ask("count_devices", selector=there))
    said = context.api.rows(
        "rollouts",
        is_one_of("state", ("running", "paused", "completed"), release_id=release["id"]),
        order="id",
    )
    progress = [context.api.ask("rollout_progress", rollout_id=row["id"]) for row in said]
    return max((one["devices"] - one["on_release"] for one in progress), default=0)


def _set_state(context: Context, release: Row, state: str, *, all_at_once: bool = False) -> None:
    columns = {"state": state, "all_at_once": all_at_once}
    changed = context.api.update("releases", columns, where(id=release["id"]))
    context.say(f"{release['version']} on branch {release['branch']} is now {state}.", changed[0])
