"""`fleetctl known-bad`: releases that devices with certain attributes must not get."""

from __future__ import annotations

from typing import Annotated

import typer

from fleetctl.client.query import every_row, is_empty
from fleetctl.commands.common.confirm import agreed
from fleetctl.commands.common.context import Context
from fleetctl.commands.common.format import SHORT_ID, second
from fleetctl.commands.common.lookup import find_by_id, find_release, names_by_id
from fleetctl.commands.common.options import DryRun, OnBranch, Reason, ReasonOption, Yes, command
from fleetctl.commands.common.reason import reason_of
from fleetctl.commands.common.selection import matching_devices
from fleetctl.commands.common.selector import parse_selector, selector_text
from fleetctl.console import counted

app = typer.Typer(help="Block a release for devices with given attributes.", no_args_is_help=True)

_OPEN = is_empty("lifted_at")


@command(app, "list")
def list_patterns(
    context: Context,
    lifted: Annotated[bool, typer.Option("--lifted", help="Include lifted entries.")] = False,
) -> None:
    """List blocked releases: for which devices, since when, and why."""
    narrow = every_row if lifted else _OPEN
    rows = context.api.rows("known_bad_patterns", narrow, order="opened_at,id", newest_first=True)
    versions = names_by_id(context, "releases", [row["release_id"] for row in rows], "version")
    context.show(
        "Known bad",
        {
            "id": lambda row: row["id"][:SHORT_ID],
            "release": lambda row: versions.get(row["release_id"]),
            "selector": lambda row: selector_text(row["selector"]),
            "reason": lambda row: row["reason"],
            "by": lambda row: row["cause"],
            "since": lambda row: second(row["opened_at"]),
            "lifted": lambda row: row["lift_reason"],
        },
        rows,
        if_none="No known-bad entries." if lifted else "No open known-bad entries.",
    )


@command(app, "open")
def open_pattern(
    context: Context,
    *,
    release: Annotated[str, typer.Argument(help="Version, commit or id.")],
    reason: Reason = None,
    reason_option: ReasonOption = None,
    selector: Annotated[
        str,
        typer.Option(
            metavar="SELECTOR",
            help="What the devices have in common, e.g. 'hardware_model=\"Pi 3\" label.site=rome'.",
        ),
    ],
    on_branch: OnBranch = None,
    allow_empty: Annotated[
        bool, typer.Option("--allow-empty", help="Accept it though no device matches yet.")
    ] = False,
    dry_run: DryRun = False,
) -> None:
    """Block a release for every matching device that does not run it yet. Does not ask for confirmation."""
    why = reason_of(reason, reason_option, "A known-bad entry")
    wanted = find_release(context, release, on_branch)
    wanted_devices = parse_selector(selector)
    shown = selector_text(wanted_devices)
    # A dry run refuses what would be refused.
    made = context.api.rpc(
        "mark_known_bad",
        release_id=wanted["id"], selector=wanted_devices, reason=why, allow_empty=allow_empty,
        dry_run=dry_run,
    )  # fmt: skip
    if dry_run:
        devices = matching_devices(context, wanted_devices)
        context.say(
            f"Would keep {wanted['version']} from {counted(devices)} that match {shown}.",
            {"dry_run": True, "selector": wanted_devices, "devices": [row["name"] for row in devices]},
        )
        return
    number = context.api.ask("count_devices", selector=wanted_devices)
    context.say(
        f"{wanted['version']} is now known bad for {counted(number)} that match {shown} "
        f"({made['id'][:SHORT_ID]}).",
        made,
    )


@command(app)
def lift(
    context: Context,
    pattern: Annotated[str, typer.Argument(help="Id from fleetctl known-bad list.")],
    reason: Reason = None,
    *,
    reason_option: ReasonOption = None,
    dry_run: DryRun = False,
    yes: Yes = False,
) -> None:
    """Allow the release for these devices again. The entry stays in the history, with both reasons."""
    why = reason_of(reason, reason_option, "Lifting a known-bad entry")
    opened = context.api.rows("known_bad_patterns", _OPEN, order="opened_at,id")
    found = find_by_id(opened, pattern, "known_bad_unknown")
    devices = matching_devices(context, found["selector"])
    told = {"selector": found["selector"], "devices": [row["name"] for row in devices]}
    whom = f"{counted(devices)} that match {selector_text(found['selector'])}"
    if agreed(context, f"allow it again for {whom}", len(devices), told, dry_run=dry_run, yes=yes):
        lifted = context.api.rpc("lift_known_bad", pattern_id=found["id"], reason=why)
        context.say(f"Lifted {found['id'][:SHORT_ID]}: {whom} may get it again.", lifted)
