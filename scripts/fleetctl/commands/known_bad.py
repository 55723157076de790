"""`fleetctl known-bad`: releases that devices with certain attributes must not get."""

from __future__ import annotations

from typing import Annotated, Any

import typer

from fleetctl.client.query import every_row, is_empty
from fleetctl.commands.common.context import Context
from fleetctl.commands.common.format import SHORT_ID, second
from fleetctl.commands.common.lookup import find_by_id, find_release, names_by_id
from fleetctl.commands.common.options import OnBranch, command
from fleetctl.commands.common.parse import pairs_of
from fleetctl.console import counted
from fleetctl.errors import FleetctlError

app = typer.Typer(help="Block a release for devices with given attributes.", no_args_is_help=True)

_ATTRIBUTES = ("hardware_model", "os", "agent_version", "role", "segment")
_LABEL = "label."
_OPEN = is_empty("lifted_at")
_DryRun = Annotated[bool, typer.Option("--dry-run", help="Count the devices, change nothing.")]


@command(app, "list")
def list_patterns(
    context: Context,
    lifted: Annotated[bool, typer.Option("--lifted", help="Include lifted entries.")] = False,
) -> None:
    """List blocked releases: for which devices, since when, and why."""
    narrow = every_row if lifted else _OPEN
    rows = context.api.rows("known_bad_patterns", narrow, order="opened_at", newest_first=True, limit=100)
    versions = names_by_id(context, "releases", [row["release_id"] for row in rows], "version")
    context.show(
        "Known bad",
        {
            "id": lambda row: row["id"][:SHORT_ID],
            "release": lambda row: versions.get(row["release_id"]),
            "for devices with": lambda row: _words(row["selector"]),
            "reason": lambda row: row["reason"],
            "by": lambda row: row["cause"],
            "since": lambda row: second(row["opened_at"]),
            "lifted": lambda row: row["lift_reason"],
        },
        rows,
        if_none="No known-bad entries." if lifted else "No open known-bad entries.",
    )


@command(app)
def add(
    context: Context,
    *,
    release: Annotated[str, typer.Argument(help="Version, commit or id.")],
    reason: Annotated[str, typer.Argument(help="Why, for other operators.")],
    match: Annotated[
        list[str],
        typer.Option(
            metavar="KEY=VALUE",
            help="What the devices have in common: hardware_model, os, agent_version, role, segment or "
            "label.NAME, e.g. label.site=rome. May be repeated; a device must match all of them.",
        ),
    ],
    on_branch: OnBranch = None,
    allow_empty: Annotated[
        bool, typer.Option("--allow-empty", help="Accept it though no device matches yet.")
    ] = False,
    dry_run: _DryRun = False,
) -> None:
    """Block a release for every matching device that does not run it yet."""
    wanted = find_release(context, release, on_branch)
    attributes = _match_of(pairs_of(match))
    devices = context.api.rpc("matching_devices", selector=attributes)
    if dry_run:
        context.say(
            f"Would keep {wanted['version']} from {counted(devices)} with {_words(attributes)}.",
            {"dry_run": True, "selector": attributes, "devices": [row["name"] for row in devices]},
        )
        return
    made = context.api.rpc(
        "mark_known_bad",
        release_id=wanted["id"], selector=attributes, reason=reason, allow_empty=allow_empty,
    )  # fmt: skip
    context.say(
        f"{wanted['version']} is now known bad for {counted(devices)} with {_words(attributes)} "
        f"({made['id'][:SHORT_ID]}).",
        made,
    )


@command(app)
def lift(
    context: Context,
    pattern: Annotated[str, typer.Argument(help="Id from fleetctl known-bad list.")],
    reason: Annotated[str, typer.Argument(help="Why, for other operators.")],
    dry_run: _DryRun = False,
) -> None:
    """Allow the release for these devices again. The entry stays in the history, with both reasons."""
    opened = context.api.rows("known_bad_patterns", _OPEN, order="opened_at")
    found = find_by_id(opened, pattern, "known_bad_unknown")
    if dry_run:
        devices = context.api.rpc("matching_devices", selector=found["selector"])
        context.say(
            f"Would allow it again for {counted(devices)} with {_words(found['match'])}.",
            {"dry_run": True, "selector": found["selector"], "devices": [row["name"] for row in devices]},
        )
        return
    lifted = context.api.rpc("lift_known_bad", pattern_id=found["id"], reason=reason)
    context.say(f"Lifted {found['id'][:SHORT_ID]}.", lifted)


def _match_of(pairs: dict[str, str]) -> dict[str, Any]:
    """The pattern as the table has it. Raises FleetctlError `match_unknown`."""
    match: dict[str, Any] = {}
    for name, value in pairs.items():
        if name.startswith(_LABEL) and len(name) > len(_LABEL):
            match.setdefault("labels", {})[name.removeprefix(_LABEL)] = value
        elif name in _ATTRIBUTES:
            match[name] = value
        else:
            raise FleetctlError(
                "match_unknown",
                f"Devices have no attribute {name}.",
                hint=f"Use {', '.join(_ATTRIBUTES)} or label.NAME.",
                exit_code=2,
            )
    return match


def _words(match: dict[str, Any]) -> str:
    """`hardware_model Pi 3 and label site rome`, in the gate's words."""
    named = {name: value for name, value in match.items() if name != "labels"}
    named |= {f"label {name}": value for name, value in match.get("labels", {}).items()}
    return " and ".join(f"{name} {value}" for name, value in sorted(named.items()))
