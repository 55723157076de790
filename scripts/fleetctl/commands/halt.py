"""`fleetctl halt`: stop updates. The emergency stop is `fleetctl halt fleet "what was seen"`."""

from __future__ import annotations

from collections.abc import Sequence
from enum import StrEnum
from typing import Annotated, Any

import typer

from fleetctl.client.query import Row, every_row, is_empty, where
from fleetctl.commands.common.context import Context
from fleetctl.commands.common.format import SHORT_ID, second
from fleetctl.commands.common.going_back import going_back
from fleetctl.commands.common.lookup import find_by_id, find_release, find_rollout, names_by_id
from fleetctl.commands.common.options import AllAtOnce, command
from fleetctl.console import counted
from fleetctl.errors import FleetctlError

app = typer.Typer(help="Halt updates, list halts, and lift them.", no_args_is_help=True)

_Reason = Annotated[str, typer.Argument(help="Why, for other operators.")]
_OPEN = is_empty("lifted_at")


class Scope(StrEnum):
    """What can be halted apart from the fleet."""

    SEGMENT = "segment"
    ROLE = "role"
    BRANCH = "branch"
    RELEASE = "release"
    ROLLOUT = "rollout"


@command(app, "fleet")
def halt_fleet(context: Context, reason: _Reason) -> None:
    """Emergency stop: no device starts an update until the halt is lifted. Does not ask for confirmation."""
    made = context.api.rpc("halt_fleet", reason=reason)
    context.say(f"Halted the fleet ({made['id']}).", made)


@command(app, "open")
def open_halt(
    context: Context,
    scope: Annotated[Scope, typer.Argument(help="What to halt.")],
    target: Annotated[str, typer.Argument(help="Its name; for a release, its version or commit.")],
    reason: _Reason,
    *,
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Count the devices, change nothing.")] = False,
    roll_back: Annotated[
        bool,
        typer.Option("--roll-back", help="Of a release or rollout: devices go back to what they ran before."),
    ] = False,
    all_at_once: AllAtOnce = False,
) -> None:
    """Halt one segment, role, branch, release or rollout. --roll-back takes devices back, as slots allow."""
    _check_way_back(scope, roll_back=roll_back, all_at_once=all_at_once)
    called = target
    release = rollout_id = None
    if scope is Scope.RELEASE:
        release = target = find_release(context, target)["id"]
    elif scope is Scope.ROLLOUT:
        rollout = find_rollout(context, target)
        release, target = rollout["release_id"], rollout["id"]
        rollout_id = rollout["id"]
    way = {"roll_back": roll_back, "all_at_once": all_at_once}
    if dry_run:
        stopped = _stopped(context, scope, target)
        told: dict[str, Any] = {"dry_run": True, "devices": [row["name"] for row in stopped]}
        sentence = f"Would halt {scope.value} {called}, which affects {counted(stopped)}."
        if roll_back and release is not None:
            told["going_back"] = going_back(
                context, release, all_at_once=all_at_once, by_halt=True, rollout_id=rollout_id
            )
            sentence = f"{sentence} {told['going_back']['summary']}"
        context.say(sentence, told)
        return
    made = context.api.insert("halts", {"scope": scope.value, "target": target, "reason": reason, **way})
    context.say(f"Halted {scope.value} {called} ({made['id']}).", made)


def _check_way_back(scope: Scope, *, roll_back: bool, all_at_once: bool) -> None:
    """The table refuses this, too, but --dry-run does not ask it."""
    if roll_back and scope not in (Scope.RELEASE, Scope.ROLLOUT):
        raise FleetctlError(
            "option_misplaced",
            f"--roll-back is for a release or a rollout, not for a {scope.value}.",
            hint="Halt the release that devices are to leave.",
            exit_code=2,
        )
    if all_at_once and not roll_back:
        raise FleetctlError(
            "option_misplaced",
            "--all-at-once is about devices that go back.",
            hint="Add --roll-back, or leave it out.",
            exit_code=2,
        )


def _stopped(context: Context, scope: Scope, target: str) -> list[Row]:
    """The active devices that would start no update (a release's, a rollout's) while it is halted."""
    if scope is Scope.ROLLOUT:
        rows = context.api.ask_rows("preview_rollout", order="stage,device_id", rollout_id=target)
        return [row for row in rows if not row["already_there"]]
    column, value = scope.value, target
    if scope is Scope.RELEASE:
        column, value = "branch", find_release(context, target)["branch"]
    return context.api.rows("devices", where(state="active", **{column: value}), order="name")


@command(app, "list")
def list_halts(
    context: Context,
    lifted: Annotated[bool, typer.Option("--lifted", help="Include lifted halts.")] = False,
) -> None:
    """List open halts, newest first."""
    narrow = every_row if lifted else _OPEN
    rows = context.api.rows("halts", narrow, order="opened_at,id", newest_first=True)
    called = names_by_id(context, "releases", _targets(rows, Scope.RELEASE), "version")
    called |= names_by_id(context, "rollouts", _targets(rows, Scope.ROLLOUT))
    context.show(
        "Halts",
        {
            "id": lambda row: row["id"][:SHORT_ID],
            "halted": lambda row: " ".join(
                filter(None, (row["scope"], called.get(row["target"], row["target"])))
            ),
            "reason": lambda row: row["reason"],
            "by": lambda row: row["cause"],
            "since": lambda row: second(row["opened_at"]),
            "lifted": lambda row: row["lift_reason"],
        },
        rows,
        if_none="No halts." if lifted else "No open halts.",
    )


def _targets(rows: Sequence[Row], scope: Scope) -> list[str]:
    return [row["target"] for row in rows if row["scope"] == scope.value]


@command(app)
def lift(
    context: Context,
    halt: Annotated[
        str, typer.Argument(help='Id from fleetctl halt list, or "fleet" for every halt of the whole fleet.')
    ],
    reason: _Reason,
) -> None:
    """Lift a halt. It stays in the history, with both reasons."""
    opened = context.api.rows("halts", _OPEN, order="opened_at,id")
    if halt == "fleet":
        ids = [row["id"] for row in opened if row["scope"] == "fleet"]
        if not ids:
            raise FleetctlError(
                "halt_unknown", "The fleet is not halted.", hint="See: fleetctl halt list", exit_code=5
            )
    else:
        ids = [find_by_id(opened, halt, "halt_unknown")["id"]]
    lifted = [context.api.rpc("lift_halt", halt_id=one, reason=reason) for one in ids]
    context.say(f"Lifted {counted(lifted, 'halt')}.", lifted)
