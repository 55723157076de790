"""`fleetctl halt`: the brakes. The emergency stop is `fleetctl halt fleet "what was seen"`."""

from __future__ import annotations

from enum import StrEnum
from typing import Annotated, Any

import typer

from fleetctl.commands.common.context import Fleet
from fleetctl.commands.common.format import SHORT_ID, counted, second
from fleetctl.commands.common.lookup import find_by_id, find_release, find_rollout
from fleetctl.commands.common.options import command
from fleetctl.errors import FleetctlError

app = typer.Typer(help="Brakes: stop updates, see why, go on.", no_args_is_help=True)

_Reason = Annotated[str, typer.Argument(help="In words, for whoever decides to lift it.")]
_DryRun = Annotated[bool, typer.Option("--dry-run", help="Say how many devices it stops, change nothing.")]


class Scope(StrEnum):
    """What can be halted apart from the fleet."""

    SEGMENT = "segment"
    ROLE = "role"
    BRANCH = "branch"
    RELEASE = "release"
    ROLLOUT = "rollout"


@command(app, "fleet")
def halt_fleet(fleet: Fleet, reason: _Reason) -> None:
    """The emergency stop: no device starts an update until it is lifted. It does not ask."""
    made = fleet.api.rpc("halt_fleet", reason=reason)
    fleet.say(f"The fleet is halted ({made['id']}).", made)


@command(app, "open")
def open_halt(
    fleet: Fleet,
    scope: Annotated[Scope, typer.Argument(help="What kind of thing.")],
    target: Annotated[str, typer.Argument(help="Its name; for a release also its version or commit.")],
    reason: _Reason,
    dry_run: _DryRun = False,
) -> None:
    """Halt one segment, role, branch, release or rollout."""
    called = target
    if scope is Scope.RELEASE:
        target = find_release(fleet, target)["id"]
    elif scope is Scope.ROLLOUT:
        target = find_rollout(fleet, target)["id"]
    if dry_run:
        stopped = _stopped(fleet, scope, target)
        fleet.say(
            f"Would halt {scope.value} {called}: {counted(stopped)}.",
            {"dry_run": True, "devices": [row["name"] for row in stopped]},
        )
        return
    made = fleet.api.insert("halts", {"scope": scope.value, "target": target, "reason": reason})
    fleet.say(f"{scope.value.capitalize()} {called} is halted ({made['id']}).", made)


def _stopped(fleet: Fleet, scope: Scope, target: str) -> list[dict[str, Any]]:
    """The active devices that would start no update (a release's, a rollout's) while it is halted."""
    if scope is Scope.ROLLOUT:
        rows = fleet.api.rpc("preview_rollout", rollout_id=target)
        return [row for row in rows if not row["already_there"]]
    column, value = scope.value, target
    if scope is Scope.RELEASE:
        column, value = "branch", find_release(fleet, target)["branch"]
    return fleet.api.rows(
        "devices", lambda query: query.eq("state", "active").eq(column, value), order="name"
    )


@command(app, "list")
def list_halts(
    fleet: Fleet,
    lifted: Annotated[bool, typer.Option("--lifted", help="Those that were lifted too.")] = False,
) -> None:
    """List open halts."""
    rows = fleet.api.rows(
        "halts", _any if lifted else _is_open, order="opened_at", newest_first=True, limit=100
    )
    fleet.show(
        "Halts",
        {
            "id": lambda row: row["id"][:SHORT_ID],
            "halted": lambda row: (
                row["scope"] if row["target"] is None else f"{row['scope']} {row['target']}"
            ),
            "reason": lambda row: row["reason"],
            "by": lambda row: row["cause"],
            "since": lambda row: second(row["opened_at"]),
            "lifted": lambda row: row["lift_reason"],
        },
        rows,
    )


@command(app)
def lift(
    fleet: Fleet,
    halt: Annotated[
        str, typer.Argument(help='The id from fleetctl halt list, or "fleet" for its open halts.')
    ],
    reason: _Reason,
) -> None:
    """Lift a halt; its row and both reasons stay."""
    opened = fleet.api.rows("halts", _is_open, order="opened_at")
    if halt == "fleet":
        ids = [row["id"] for row in opened if row["scope"] == "fleet"]
        if not ids:
            raise FleetctlError(
                "halt_unknown", "The fleet is not halted.", hint="See fleetctl halt list.", exit_code=5
            )
    else:
        ids = [find_by_id(opened, halt, "halt")["id"]]
    lifted = [fleet.api.rpc("lift_halt", halt_id=one, reason=reason) for one in ids]
    fleet.say(f"Lifted {len(lifted)} halt{'' if len(lifted) == 1 else 's'}.", lifted)


def _is_open(query: Any) -> Any:
    return query.is_("lifted_at", "null")


def _any(query: Any) -> Any:
    return query
