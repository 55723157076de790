"""`fleetctl rollout`: the staged delivery of a release."""

from __future__ import annotations

import time
from typing import Annotated

import typer

from fleetctl.client.query import Row, where
from fleetctl.commands.common.confirm import agreed
from fleetctl.commands.common.context import Context
from fleetctl.commands.common.format import SHORT_ID, minute
from fleetctl.commands.common.lookup import find_release, find_rollout, names_by_id
from fleetctl.commands.common.options import DryRun, Labels, Limit, OnBranch, SelectorText, Yes, command
from fleetctl.commands.common.parse import duration, pairs_of
from fleetctl.commands.common.selection import some_names
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
def start(context: Context, rollout: _Name, yes: Yes = False, dry_run: DryRun = False) -> None:
    """Start a draft, after showing how many devices it is for. One that is paused is resumed, not started."""
    found = find_rollout(context, rollout)
    if found["state"] == "paused":
        raise FleetctlError(
            "rollout_paused",
            f"This rollout is paused{_by_whom(context, found)}.",
            hint=f"If the reason is gone, resume it: fleetctl rollout resume {found['id'][:SHORT_ID]}",
        )
    progress = _progress(context, found)
    devices, stages = counted(progress["devices"]), counted(len(progress["stages"]), "stage")
    release = _release_of(context, found)
    _say_if_out(context, release)
    if not context.as_json:
        print_access(release)
    what = f"start {progress['version']} for {devices} in {stages}"
    if agreed(context, what, progress["devices"], progress, dry_run=dry_run, yes=yes, always_ask=True):
        started = context.api.rpc("start_rollout", rollout_id=found["id"])
        context.say(f"Started {progress['version']} for {devices}.", started)


@command(app)
def pause(context: Context, rollout: _Name) -> None:
    """Pause: start no more devices; updates in progress finish. Does not ask for confirmation."""
    found = find_rollout(context, rollout)
    paused = context.api.rpc("pause_rollout", rollout_id=found["id"])
    context.say(f"The rollout is now paused: {_where_it_stands(context, found)}.", paused)


@command(app)
def resume(context: Context, rollout: _Name, yes: Yes = False, dry_run: DryRun = False) -> None:
    """Resume a paused rollout, after showing how many devices it still goes to."""
    found = find_rollout(context, rollout)
    progress = _progress(context, found)
    to_come = progress["devices"] - progress["on_release"]
    what = f"resume {progress['version']} for {counted(to_come)} without it"
    if agreed(context, what, to_come, progress, dry_run=dry_run, yes=yes):
        resumed = context.api.rpc("resume_rollout", rollout_id=found["id"])
        context.say(f"The rollout is now running, for {counted(to_come)} more.", resumed)


@command(app)
def cancel(context: Context, rollout: _Name, yes: Yes = False, dry_run: DryRun = False) -> None:
    """Cancel the rollout; devices keep their current release. A completed one is said to nobody else then."""
    found = find_rollout(context, rollout)
    progress = _progress(context, found)
    over = found["state"] == "completed"
    told = {**progress, "without": _names_without(context, found) if over else []}
    stands = f"{progress['on_release']} of {counted(progress['devices'])} run it and keep it"
    what = f"cancel {progress['version']} ({stands})"
    if over:
        # It is what they are still told to run.
        whom = f"{counted(told['without'])}{some_names(told['without'])}"
        what += f", which takes it from {whom} and from any that come later"
    # A rollout that is not over yet only stops.
    if agreed(context, what, 0, told, dry_run=dry_run, yes=yes, always_ask=over):
        cancelled = context.api.rpc("cancel_rollout", rollout_id=found["id"])
        context.say(f"The rollout is now cancelled: {_where_it_stands(context, found)}.", cancelled)


@command(app)
def approve(
    context: Context,
    rollout: _Name,
    stage: Annotated[
        int | None, typer.Argument(help="Number of the stage; by default the one that waits.")
    ] = None,
    *,
    yes: Yes = False,
    dry_run: DryRun = False,
) -> None:
    """Approve a stage, so that it opens when it is due, after showing how many devices it is for."""
    found = find_rollout(context, rollout)
    progress = _progress(context, found)
    stages = {row["position"]: row for row in progress["stages"]}
    number = _stage_that_waits(progress) if stage is None else stage
    devices = stages[number]["devices"] - stages[number]["on_release"] if number in stages else 0
    what = f"approve stage {number} of {progress['version']}, which gives it to {counted(devices)}"
    told = {"stage": number, "devices": devices}
    if agreed(context, what, devices, told, dry_run=dry_run, yes=yes):
        approved = context.api.rpc("approve_stage", rollout_id=found["id"], stage=number)
        context.say(f"Approved stage {number}, for {counted(devices)}.", approved)


def _stage_that_waits(progress: Row) -> int:
    """The stage that nothing but an approval may keep shut.

    Raises FleetctlError: `stage_unknown`, `stage_not_said`.
    """
    shut = [row for row in progress["stages"] if row["opened_at"] is None]
    waiting = [row for row in shut if row["needs_approval"] and row["approved_at"] is None]
    if not waiting:
        raise FleetctlError(
            "stage_unknown",
            f"No stage of {progress['version']} waits for approval.",
            hint=f"See: fleetctl rollout progress {progress['rollout_id'][:SHORT_ID]}",
            exit_code=5,
        )
    if len(waiting) > 1 and waiting[0] is not shut[0]:
        numbers = ", ".join(str(row["position"]) for row in waiting)
        raise FleetctlError(
            "stage_not_said",
            f"Several stages of {progress['version']} need approval: {numbers}.",
            hint="Give the number of one.",
            exit_code=2,
        )
    return int(waiting[0]["position"])


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


def _progress(context: Context, rollout: Row) -> Row:
    progress: Row = context.api.ask("rollout_progress", rollout_id=rollout["id"])
    return progress


def _where_it_stands(context: Context, rollout: Row) -> str:
    """`3 of 40 devices run 2.1.0, 2 are in flight and finish`."""
    now = _progress(context, rollout)
    finish = f", {now['in_flight']} in flight finish" if now["in_flight"] else ""
    return f"{now['on_release']} of {counted(now['devices'])} run {now['version']}{finish}"


def _by_whom(context: Context, rollout: Row) -> str:
    """The person who paused it and the time, from the audit log."""
    changes = where(table_name="rollouts", row_id=rollout["id"])
    for row in context.api.rows("audit_log", changes, order="id", newest_first=True, limit=20):
        if (row["after"] or {}).get("state") == "paused":
            return f": {row['actor']} paused it at {minute(row['at'])} UTC"
    return ""


def _names_without(context: Context, rollout: Row) -> list[str]:
    """The devices that a rollout is for and that do not run its release."""
    devices = context.api.ask_rows("preview_rollout", order="stage,device_id", rollout_id=rollout["id"])
    return sorted(row["name"] for row in devices if not row["already_there"])
