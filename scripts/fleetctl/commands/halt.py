"""`fleetctl halt`: stop updates. The emergency stop is `fleetctl halt fleet "what was seen"`."""

from __future__ import annotations

from collections.abc import Sequence
from enum import StrEnum
from typing import Annotated, Any

import typer

from fleetctl.client.query import Row, every_row, is_empty, where
from fleetctl.commands.common.confirm import agreed
from fleetctl.commands.common.context import Context
from fleetctl.commands.common.format import SHORT_ID, second
from fleetctl.commands.common.going_back import going_back
from fleetctl.commands.common.lookup import find_by_id, find_release, find_rollout, names_by_id
from fleetctl.commands.common.options import AllAtOnce, DryRun, Reason, ReasonOption, Yes, command
from fleetctl.commands.common.reason import reason_of
from fleetctl.console import counted
from fleetctl.errors import FleetctlError

app = typer.Typer(help="Halt updates, list halts, and lift them.", no_args_is_help=True)

_OPEN = is_empty("lifted_at")


class Scope(StrEnum):
    """What can be halted."""

    FLEET = "fleet"
    SEGMENT = "segment"
    ROLE = "role"
    BRANCH = "branch"
    RELEASE = "release"
    ROLLOUT = "rollout"


@command(app, "fleet")
def halt_fleet(context: Context, reason: Reason = None, reason_option: ReasonOption = None) -> None:
    """Emergency stop, short for `halt open fleet`. Does not ask for confirmation.

    No device starts an update until the halt is lifted.
    """
    why = reason_of(reason, reason_option, "A halt")
    made = context.api.rpc("halt_fleet", reason=why)
    context.say(f"Halted the fleet ({made['id']}){_stopped_now(context, made)}.", made)


@command(app, "open")
def open_halt(
    context: Context,
    *,
    scope: Annotated[Scope, typer.Argument(help="What to halt.")],
    target: Annotated[
        str | None,
        typer.Argument(help="Its name; for a release, its version or commit. The fleet has none."),
    ] = None,
    reason: Reason = None,
    reason_option: ReasonOption = None,
    roll_back: Annotated[
        bool,
        typer.Option("--roll-back", help="Of a release or rollout: devices go back to what they ran before."),
    ] = False,
    all_at_once: AllAtOnce = False,
    dry_run: DryRun = False,
    yes: Yes = False,
) -> None:
    """Halt the fleet, or one segment, role, branch, release or rollout. Asks only with --roll-back.

    --roll-back takes devices back to what they ran before, as slots allow.
    """
    _check_way_back(scope, roll_back=roll_back, all_at_once=all_at_once)
    if scope is Scope.FLEET:
        if target is not None and reason is not None:
            raise FleetctlError(
                "option_misplaced",
                "The fleet is halted as a whole, so it has no target.",
                hint="Leave the target out, or put the reason into quotes.",
                exit_code=2,
            )
        target, reason = None, target
    elif target is None:
        raise FleetctlError(
            "target_missing", f"Which {scope.value} is not said.", hint=f"Name it after {scope.value}.",
            exit_code=2,
        )  # fmt: skip
    why = reason_of(reason, reason_option, "A halt")
    called = f"{scope.value} {target}" if target else "the fleet"
    release = None
    if scope is Scope.RELEASE:
        release = target = find_release(context, str(target))["id"]
    elif scope is Scope.ROLLOUT:
        rollout = find_rollout(context, str(target))
        release, target = rollout["release_id"], rollout["id"]
    if (dry_run or roll_back) and not _agreed_to(
        context, called, scope.value, target, release if roll_back else None,
        all_at_once=all_at_once, dry_run=dry_run, yes=yes,
    ):  # fmt: skip
        return
    row = {"scope": scope.value, "target": target, "reason": why}
    made = context.api.insert("halts", {**row, "roll_back": roll_back, "all_at_once": all_at_once})
    context.say(f"Halted {called} ({made['id']}){_stopped_now(context, made)}.", made)


def _agreed_to(
    context: Context,
    called: str,
    scope: str,
    target: str | None,
    release: str | None,
    *,
    all_at_once: bool,
    dry_run: bool,
    yes: bool,
) -> bool:
    """`release`: the one that devices would be taken back from."""
    stopped = _stopped(context, scope, target)
    told: dict[str, Any] = {"devices": [row["name"] for row in stopped]}
    what = f"halt {called}, which affects {counted(stopped)}"
    if release is None:
        return agreed(context, what, 0, told, dry_run=dry_run, yes=yes)
    told["going_back"] = back = going_back(
        context,
        release,
        all_at_once=all_at_once,
        by_halt=True,
        rollout_id=target if scope == Scope.ROLLOUT else None,
    )
    if dry_run:
        context.say(f"Would {what}. {back['summary']}", {"dry_run": True, **told})
        return False
    what = f"{what}, and take {counted(back['devices'])} back from {back['version']}"
    return agreed(context, what, back["devices"], told, dry_run=False, yes=yes)


def _stopped_now(context: Context, halt: Row) -> str:
    """How many devices a halt that is open now concerns. It is open, whatever becomes of the question."""
    try:
        if halt["scope"] == Scope.FLEET:
            devices = context.api.ask("count_devices", selector={"state": "active"})
        else:
            devices = len(_stopped(context, halt["scope"], halt["target"]))
    except FleetctlError:
        return ""
    return f": {counted(devices)} {'starts' if devices == 1 else 'start'} no update"


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


def _stopped(context: Context, scope: str, target: str | None) -> list[Row]:
    """The active devices that would start no update (a release's, a rollout's) while it is halted."""
    if scope == Scope.FLEET:
        return context.api.rows("devices", where(state="active"), select="id,name", order="name")
    if scope == Scope.ROLLOUT:
        rows = context.api.ask_rows("preview_rollout", order="stage,device_id", rollout_id=target)
        return [row for row in rows if not row["already_there"]]
    column, value = scope, target
    if scope == Scope.RELEASE:
        column, value = "branch", find_release(context, str(target))["branch"]
    narrow = where(state="active", **{column: value})
    return context.api.rows("devices", narrow, select="id,name", order="name")


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
    reason: Reason = None,
    *,
    reason_option: ReasonOption = None,
    dry_run: DryRun = False,
    yes: Yes = False,
) -> None:
    """Lift a halt. It stays in the history, with both reasons. Asks first: devices may update again."""
    why = reason_of(reason, reason_option, "Lifting a halt")
    opened = context.api.rows("halts", _OPEN, order="opened_at,id")
    if halt == "fleet":
        lifting = [row for row in opened if row["scope"] == "fleet"]
        if not lifting:
            raise FleetctlError(
                "halt_unknown", "The fleet is not halted.", hint="See: fleetctl halt list", exit_code=5
            )
    else:
        lifting = [find_by_id(opened, halt, "halt_unknown")]
    # Several are all of the fleet.
    freed = _stopped(context, lifting[0]["scope"], lifting[0]["target"])
    what = f"lift {counted(lifting, 'halt')}, so that {counted(freed)} may update again"
    told = {"halts": [row["id"] for row in lifting], "devices": [row["name"] for row in freed]}
    if agreed(context, what, len(freed), told, dry_run=dry_run, yes=yes):
        lifted = [context.api.rpc("lift_halt", halt_id=one["id"], reason=why) for one in lifting]
        context.say(f"Lifted {counted(lifted, 'halt')}: {counted(freed)} may update again.", lifted)
