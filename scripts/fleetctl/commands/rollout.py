"""`fleetctl rollout`: the staged delivery of a release."""

from __future__ import annotations

import time
from typing import Annotated

import typer

from fleetctl.client.query import Row, where
from fleetctl.commands.common.confirm import confirm
from fleetctl.commands.common.context import Context
from fleetctl.commands.common.format import SHORT_ID, minute
from fleetctl.commands.common.lookup import find_release, find_rollout, names_by_id
from fleetctl.commands.common.options import Labels, Limit, OnBranch, SelectorText, Yes, command
from fleetctl.commands.common.parse import duration, pairs_of
from fleetctl.commands.common.selector import selector_text
from fleetctl.commands.rollout_stages import (
    Columns,
    Stages,
    parse_stage,
    parse_value,
    rollout_options,
)
from fleetctl.commands.rollout_view import picture, print_access, print_preview, print_progress
from fleetctl.console import counted, out, print_json
from fleetctl.errors import FleetctlError

app = typer.Typer(help="Deliver a release stage by stage.", no_args_is_help=True)

_POLL_S = 2.0
_OVER = ("completed", "superseded", "cancelled")
_Name = Annotated[str, typer.Argument(metavar="ROLLOUT", help="Id, name, or version of its release.")]


@command(app)
def create(
    context: Context,
    *,
    release: Annotated[str, typer.Argument(help="Version, commit or id.")],
    on_branch: OnBranch = None,
    role: Annotated[str | None, typer.Option(help="Only devices with this role.")] = None,
    selector: SelectorText = None,
    label: Labels = None,
    template: Annotated[str | None, typer.Option(help="Take stages and limits from this template.")] = None,
    stage: Stages = None,
    option: Columns = None,
) -> None:
    """Create a draft. Check it with `rollout preview`, then run `rollout start`."""
    wanted = find_release(context, release, on_branch)
    _say_if_out(context, wanted)
    made = context.api.rpc(
        "create_rollout",
        release_id=wanted["id"], role=role, template=template,
        stages=[parse_stage(context, text) for text in stage] if stage else None,
        options=rollout_options(selector, label, option),
    )  # fmt: skip
    short = made["id"][:SHORT_ID]
    context.say(
        f"Created draft {short} for {wanted['version']}. Start it with: fleetctl rollout start {short}", made
    )


@command(app, "list")
def list_rollouts(context: Context, limit: Limit = 20) -> None:
    """List rollouts, newest first."""
    rows = context.api.rows("rollouts", order="created_at,id", newest_first=True, limit=limit)
    versions = names_by_id(context, "releases", [row["release_id"] for row in rows], "version")
    context.show(
        "Rollouts",
        {
            "id": lambda row: row["id"][:SHORT_ID],
            "name": lambda row: row["name"],
            "release": lambda row: versions.get(row["release_id"]),
            "branch": lambda row: row["branch"],
            "role": lambda row: row["role"] or "all",
            "selector": lambda row: selector_text(row["selector"]) or "all",
            "state": lambda row: row["state"],
            "started": lambda row: minute(row["started_at"]),
        },
        rows,
        if_none="No rollouts.",
    )


@command(app)
def preview(context: Context, rollout: _Name) -> None:
    """Show which devices would get the release, stage by stage, and when at the earliest. Starts nothing."""
    found = find_rollout(context, rollout)
    devices = context.api.ask_rows("preview_rollout", order="stage,device_id", rollout_id=found["id"])
    if context.as_json:
        print_json(devices)
    else:
        release = _release_of(context, found)
        _say_if_out(context, release)
        print_access(release)
        print_preview(devices)


@command(app)
def start(
    context: Context,
    rollout: _Name,
    yes: Yes = False,
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Count the devices, start nothing.")] = False,
) -> None:
    """Start a draft, after showing how many devices it is for."""
    found = find_rollout(context, rollout)
    progress = context.api.ask("rollout_progress", rollout_id=found["id"])
    devices, stages = counted(progress["devices"]), counted(len(progress["stages"]), "stage")
    what = f"start {progress['version']} for {devices} in {stages}"
    release = _release_of(context, found)
    _say_if_out(context, release)
    if not context.as_json:
        print_access(release)
    if dry_run:
        context.say(f"Would {what}.", {"dry_run": True, **progress})
        return
    if not yes:
        confirm(what, look="fleetctl rollout preview")
    started = context.api.rpc("start_rollout", rollout_id=found["id"])
    context.say(f"Started {progress['version']} for {devices}.", started)


@command(app)
def pause(context: Context, rollout: _Name) -> None:
    """Pause: start no more devices; updates in progress finish."""
    _change_state(context, rollout, "pause_rollout")


@command(app)
def resume(context: Context, rollout: _Name) -> None:
    """Resume a paused rollout."""
    _change_state(context, rollout, "resume_rollout")


@command(app)
def cancel(context: Context, rollout: _Name) -> None:
    """Cancel the rollout; devices keep their current release."""
    _change_state(context, rollout, "cancel_rollout")


@command(app)
def approve(
    context: Context,
    rollout: _Name,
    stage: Annotated[int, typer.Argument(help="Number of the stage.")],
) -> None:
    """Approve a stage, so that it opens when it is due."""
    approved = context.api.rpc("approve_stage", rollout_id=find_rollout(context, rollout)["id"], stage=stage)
    context.say(f"Approved stage {stage}.", approved)


@command(app)
def progress(context: Context, rollout: _Name) -> None:
    """Show progress stage by stage, and what is blocking it."""
    now = context.api.ask("rollout_progress", rollout_id=find_rollout(context, rollout)["id"])
    if context.as_json:
        print_json(now)
    else:
        print_progress(now)


@command(app)
def replay(
    context: Context,
    rollout: _Name,
    rule: Annotated[
        list[str] | None,
        typer.Option(
            "--set",
            metavar="KEY=VALUE",
            help="halt_failure_ratio, halt_min_attempted, halt_max_failures or halt_consecutive_failures; "
            "an empty value turns it off.",
        ),
    ] = None,
) -> None:
    """Show where this halt rule, or another one, would have stopped a rollout. Changes nothing."""
    values = {key: parse_value(text) for key, text in pairs_of(rule or ()).items()}
    tried = context.api.ask("replay_halt_rule", rollout_id=find_rollout(context, rollout)["id"], rule=values)
    context.say(tried["summary"], tried)


@command(app)
def watch(
    context: Context,
    rollout: _Name,
    through_halts: Annotated[
        bool, typer.Option("--through-halts", help="Keep watching while it is halted.")
    ] = False,
    give_up_after: Annotated[
        str | None, typer.Option(metavar="DURATION", help="Stop watching after this long, e.g. 2h.")
    ] = None,
) -> None:
    """Follow a rollout until it ends. Exits with 1 if it is halted, cancelled or superseded."""
    from rich.live import Live

    rollout_id = find_rollout(context, rollout)["id"]
    end = time.monotonic() + duration(give_up_after).total_seconds() if give_up_after else None
    with Live(console=out, auto_refresh=False, transient=context.as_json) as live:
        while True:
            now = context.api.ask("rollout_progress", rollout_id=rollout_id)
            live.update(picture(now), refresh=True)
            if now["state"] in _OVER or (now["halts"] and not through_halts):
                break
            if end is not None and time.monotonic() >= end:
                raise FleetctlError(
                    "watch_ended", f"Still not finished after {give_up_after}: {now['summary']}"
                )
            time.sleep(_POLL_S)
    if context.as_json:
        print_json(now)
    if now["halts"]:
        halt = now["halts"][0]
        raise FleetctlError(
            "rollout_halted",
            f"Halted: {halt['reason']}",
            hint=f"To lift the halt: fleetctl halt lift {halt['id'][:SHORT_ID]} 'why'",
        )
    if now["state"] != "completed":
        raise FleetctlError("rollout_given_up", f"The rollout was {now['state']}.")


def _release_of(context: Context, rollout: Row) -> Row:
    return context.api.rows("releases", where(id=rollout["release_id"]), order="id")[0]


def _say_if_out(context: Context, release: Row) -> None:
    """Say that devices have the release already, or are being given it by an immediate branch."""
    if context.as_json:
        return
    (branch,) = context.api.rows("branches", where(name=release["branch"]), order="name")
    running = where(current_release=release["id"])
    devices = context.api.count("device_status", running)
    why = []
    if devices:
        why.append(f"{counted(devices)} {'runs' if devices == 1 else 'run'} it")
    if branch["delivery"] == "immediate" and not release["by_rollout_only"]:
        why.append(
            f"branch {branch['name']} is immediate and gives it to every device until it has a rollout"
        )
    if why:
        out.print(f"{release['version']} is out already: {', and '.join(why)}.", markup=False, soft_wrap=True)


def _change_state(context: Context, rollout: str, function: str) -> None:
    changed = context.api.rpc(function, rollout_id=find_rollout(context, rollout)["id"])
    context.say(f"The rollout is now {changed['state']}.", changed)
