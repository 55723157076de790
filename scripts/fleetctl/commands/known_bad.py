"""`fleetctl known-bad`: a release that is not for devices with certain attributes."""

from __future__ import annotations

from typing import Annotated, Any

import typer

from fleetctl.commands.common.context import Fleet
from fleetctl.commands.common.format import SHORT_ID, counted, second
from fleetctl.commands.common.lookup import find_by_id, find_release
from fleetctl.commands.common.options import command
from fleetctl.commands.common.parse import pairs_of
from fleetctl.errors import FleetctlError

app = typer.Typer(
    help="Releases known bad for devices with certain attributes: hold those back.", no_args_is_help=True
)

_ATTRIBUTES = ("hardware_model", "os", "agent_version", "role", "segment")
_LABEL = "label."
_DryRun = Annotated[bool, typer.Option("--dry-run", help="Say which devices it is about, change nothing.")]


@command(app, "list")
def list_patterns(
    fleet: Fleet,
    lifted: Annotated[bool, typer.Option("--lifted", help="Those that were lifted too.")] = False,
) -> None:
    """List what is kept from whom, by a person or by the halt rule, and why."""
    rows = fleet.api.rows(
        "known_bad_patterns",
        (lambda query: query) if lifted else _is_open,
        order="opened_at",
        newest_first=True,
        limit=100,
    )
    ids = sorted({row["release_id"] for row in rows})
    versions = {row["id"]: row["version"] for row in fleet.api.rows_of("releases", "id", ids, order="id")}
    fleet.show(
        "Known bad",
        {
            "id": lambda row: row["id"][:SHORT_ID],
            "release": lambda row: versions.get(row["release_id"]),
            "for devices with": lambda row: _words(row["match"]),
            "reason": lambda row: row["reason"],
            "by": lambda row: row["cause"],
            "since": lambda row: second(row["opened_at"]),
            "lifted": lambda row: row["lift_reason"],
        },
        rows,
    )


@command(app)
def add(
    fleet: Fleet,
    *,
    release: Annotated[str, typer.Argument(help="Version, commit or id.")],
    reason: Annotated[str, typer.Argument(help="In words, for whoever decides to lift it.")],
    match: Annotated[
        list[str],
        typer.Option(
            metavar="KEY=VALUE",
            help="What the devices share: hardware_model, os, agent_version, role, segment or label.NAME, "
            "like label.site=rome. Several: those that have all of them.",
        ),
    ],
    on_branch: Annotated[str | None, typer.Option(help="Where two branches share a name.")] = None,
    dry_run: _DryRun = False,
) -> None:
    """Keep a release from every device that matches and does not run it yet."""
    wanted = find_release(fleet, release, on_branch)
    attributes = _match_of(pairs_of(match))
    devices = fleet.api.rpc("matching_devices", match=attributes)
    if dry_run:
        fleet.say(
            f"Would keep {wanted['version']} from {counted(devices)} with {_words(attributes)}.",
            {"dry_run": True, "match": attributes, "devices": [row["name"] for row in devices]},
        )
        return
    made = fleet.api.rpc("mark_known_bad", release_id=wanted["id"], match=attributes, reason=reason)
    fleet.say(
        f"{wanted['version']} is known bad for {counted(devices)} with {_words(attributes)} "
        f"({made['id'][:SHORT_ID]}).",
        made,
    )


@command(app)
def lift(
    fleet: Fleet,
    pattern: Annotated[str, typer.Argument(help="The id from fleetctl known-bad list.")],
    reason: Annotated[str, typer.Argument(help="Why they may have it.")],
    dry_run: _DryRun = False,
) -> None:
    """Let the devices have the release again; the row and both reasons stay."""
    opened = fleet.api.rows("known_bad_patterns", _is_open, order="opened_at")
    found = find_by_id(opened, pattern, "known-bad")
    if dry_run:
        devices = fleet.api.rpc("matching_devices", match=found["match"])
        fleet.say(
            f"Would let {counted(devices)} with {_words(found['match'])} have it.",
            {"dry_run": True, "match": found["match"], "devices": [row["name"] for row in devices]},
        )
        return
    lifted = fleet.api.rpc("lift_known_bad", pattern_id=found["id"], reason=reason)
    fleet.say(f"Lifted {found['id'][:SHORT_ID]}.", lifted)


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
    """`hardware_model Pi 3 and label site rome`, as the gate says it."""
    named = {name: value for name, value in match.items() if name != "labels"}
    named |= {f"label {name}": value for name, value in match.get("labels", {}).items()}
    return " and ".join(f"{name} {value}" for name, value in sorted(named.items()))


def _is_open(query: Any) -> Any:
    return query.is_("lifted_at", "null")
