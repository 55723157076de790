"""`fleetctl halt`: the brakes. The emergency stop is `fleetctl halt fleet "what was seen"`."""

from __future__ import annotations

from enum import StrEnum
from typing import Annotated, Any

import typer

from fleetctl.commands.frame import SHORT_ID, Fleet, command, find_by_id, find_release
from fleetctl.errors import FleetctlError

app = typer.Typer(help="Brakes: stop updates, see why, go on.", no_args_is_help=True)

_Reason = Annotated[str, typer.Argument(help="In words, for whoever decides to lift it.")]


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
) -> None:
    """Halt one segment, role, branch, release or rollout."""
    if scope is Scope.RELEASE:
        target = find_release(fleet, target)["id"]
    made = fleet.api.insert("halts", {"scope": scope.value, "target": target, "reason": reason})
    fleet.say(f"{scope.value.capitalize()} {target} is halted ({made['id']}).", made)


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
            "since": lambda row: row["opened_at"][:19].replace("T", " "),
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
