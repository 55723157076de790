"""`fleetctl rollout`: the staged delivery of a release."""

from __future__ import annotations

import re
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from typing import Annotated, Any

import typer

from fleetctl.commands.common.options import (
    SHORT_ID,
    Fleet,
    command,
    duration,
    find_device,
    find_release,
    pairs_of,
)
from fleetctl.console import out, print_json, print_table
from fleetctl.errors import FleetctlError

app = typer.Typer(help="Rollouts: a release, stage by stage.", no_args_is_help=True)

_ASK_EVERY_S = 2.0
_OVER = ("completed", "superseded", "cancelled")
_Name = Annotated[str, typer.Argument(metavar="ROLLOUT", help="Id, name, or version of its release.")]
_Yes = Annotated[bool, typer.Option("--yes", "-y", help="Do not ask.")]
_DryRun = Annotated[bool, typer.Option("--dry-run", help="Say what it would do, change nothing.")]


@command(app)
def create(
    fleet: Fleet,
    *,
    release: Annotated[str, typer.Argument(help="Version, commit or id.")],
    on_branch: Annotated[str | None, typer.Option(help="Where two branches share a name.")] = None,
    role: Annotated[str | None, typer.Option(help="Only devices of this role.")] = None,
    label: Annotated[
        list[str] | None, typer.Option(metavar="KEY=VALUE", help="Only devices with this label.")
    ] = None,
    template: Annotated[str | None, typer.Option(help="Stages and limits of this template.")] = None,
    stage: Annotated[
        list[str] | None,
        typer.Option(
            metavar="STAGE",
            help="In order, instead of the template's: segment, share, devices, rules; commas between, "
            "like canary,soak=1h or 25%,max=50,success=0.95,approve or device=kitchen.",
        ),
    ] = None,
    option: Annotated[
        list[str] | None,
        typer.Option(
            "--set", metavar="KEY=VALUE", help="Any other column, like max_in_flight=20, on_bad=roll_back."
        ),
    ] = None,
) -> None:
    """Make a draft. Look at it with `rollout preview`, then `rollout start`."""
    wanted = find_release(fleet, release, on_branch)
    options: dict[str, Any] = {key: _value(text) for key, text in pairs_of(option or ()).items()}
    if label:
        options["label_selector"] = pairs_of(label)
    made = fleet.api.rpc(
        "create_rollout",
        release_id=wanted["id"], role=role, template=template,
        stages=[_stage(fleet, text) for text in stage] if stage else None, options=options,
    )  # fmt: skip
    fleet.say(f"Draft {made['id'][:SHORT_ID]} for {wanted['version']}; start it with rollout start.", made)


@command(app, "list")
def list_rollouts(
    fleet: Fleet,
    limit: Annotated[int, typer.Option(min=1, max=1000, help="So many, newest first.")] = 20,
) -> None:
    """List rollouts, newest first."""
    rows = fleet.api.rows("rollouts", order="created_at", newest_first=True, limit=limit)
    ids = sorted({row["release_id"] for row in rows})
    versions = {row["id"]: row["version"] for row in fleet.api.rows_of("releases", "id", ids, order="id")}
    fleet.show(
        "Rollouts",
        {
            "id": lambda row: row["id"][:SHORT_ID],
            "name": lambda row: row["name"],
            "release": lambda row: versions.get(row["release_id"]),
            "branch": lambda row: row["branch"],
            "role": lambda row: row["role"] or "all",
            "labels": lambda row: ", ".join(f"{key}={text}" for key, text in row["label_selector"].items()),
            "state": lambda row: row["state"],
            "started": lambda row: (row["started_at"] or "")[:16].replace("T", " "),
        },
        rows,
    )


@command(app)
def preview(fleet: Fleet, rollout: _Name) -> None:
    """Who would get it, stage by stage, and when at the earliest. Starts nothing."""
    rows = fleet.api.rpc("preview_rollout", rollout_id=find_rollout(fleet, rollout)["id"])
    if fleet.as_json:
        print_json(rows)
        return
    stages = sorted({row["stage"] for row in rows})
    table = []
    for number in stages:
        here = [row for row in rows if row["stage"] == number]
        times = sorted(row["earliest"] for row in here if row["earliest"])
        table.append(
            (
                number, len(here),
                *(sum(row[column] for row in here) for column in ("already_there", "known_bad", "held")),
                times[0][:16].replace("T", " ") if times else "",
                _names(here),
            )
        )  # fmt: skip
    print_table(
        f"{len(rows)} devices", ["stage", "devices", "there", "known bad", "held", "earliest", ""], table
    )


@command(app)
def start(fleet: Fleet, rollout: _Name, yes: _Yes = False, dry_run: _DryRun = False) -> None:
    """Start a draft, once you have seen how many devices it is for."""
    found = find_rollout(fleet, rollout)
    progress = fleet.api.rpc("rollout_progress", rollout_id=found["id"])
    stages, devices = len(progress["stages"]), progress["devices"]
    said = f"start {progress['version']} for {devices} device{'' if devices == 1 else 's'} in {stages} stages"
    if dry_run:
        fleet.say(f"Would {said}.", {"dry_run": True, **progress})
        return
    if not yes:
        if not sys.stdin.isatty():
            raise FleetctlError(
                "confirmation_needed",
                f"This would {said}.",
                hint="See rollout preview, then add --yes.",
                exit_code=2,
            )
        typer.confirm(f"{said[0].upper()}{said[1:]}?", abort=True)
    started = fleet.api.rpc("start_rollout", rollout_id=found["id"])
    fleet.say(f"Started {progress['version']} for {devices} devices.", started)


@command(app)
def pause(fleet: Fleet, rollout: _Name) -> None:
    """Give no new slots; devices that are at it finish."""
    _move(fleet, rollout, "pause_rollout")


@command(app)
def resume(fleet: Fleet, rollout: _Name) -> None:
    """Go on with a paused rollout."""
    _move(fleet, rollout, "resume_rollout")


@command(app)
def cancel(fleet: Fleet, rollout: _Name) -> None:
    """Give a rollout up; devices keep what they run."""
    _move(fleet, rollout, "cancel_rollout")


@command(app)
def approve(
    fleet: Fleet,
    rollout: _Name,
    stage: Annotated[int, typer.Argument(help="The stage's position.")],
) -> None:
    """Let a stage that waits for approval open when it is due."""
    approved = fleet.api.rpc("approve_stage", rollout_id=find_rollout(fleet, rollout)["id"], stage=stage)
    fleet.say(f"Stage {stage} is approved.", approved)


@command(app)
def progress(fleet: Fleet, rollout: _Name) -> None:
    """Where a rollout stands, and what holds it."""
    now = fleet.api.rpc("rollout_progress", rollout_id=find_rollout(fleet, rollout)["id"])
    if fleet.as_json:
        print_json(now)
        return
    out.print(now["summary"], markup=False)
    for halt in now["halts"]:
        out.print(f"Halt {halt['id'][:SHORT_ID]} ({halt['cause']}): {halt['reason']}", markup=False)
    print_table("", list(_STAGE_COLUMNS), _stage_rows(now))


@command(app)
def replay(
    fleet: Fleet,
    rollout: _Name,
    rule: Annotated[
        list[str] | None,
        typer.Option(
            "--set",
            metavar="KEY=VALUE",
            help="halt_failure_ratio, halt_min_attempted, halt_max_failures or halt_consecutive_failures; "
            "empty switches it off.",
        ),
    ] = None,
) -> None:
    """Where its halt rule, or another one, would have stopped a rollout. Changes nothing."""
    values = {key: _value(text) for key, text in pairs_of(rule or ()).items()}
    tried = fleet.api.rpc("replay_halt_rule", rollout_id=find_rollout(fleet, rollout)["id"], rule=values)
    fleet.say(tried["summary"], tried)


@command(app)
def watch(
    fleet: Fleet,
    rollout: _Name,
    through_halts: Annotated[
        bool, typer.Option("--through-halts", help="Keep watching while halted.")
    ] = False,
    give_up_after: Annotated[
        str | None, typer.Option(metavar="DURATION", help="Stop watching after, like 2h.")
    ] = None,
) -> None:
    """Follow a rollout until it is over; exits 1 when it is halted, cancelled or superseded."""
    from rich.live import Live

    rollout_id = find_rollout(fleet, rollout)["id"]
    end = time.monotonic() + duration(give_up_after).total_seconds() if give_up_after else None
    with Live(console=out, auto_refresh=False, transient=fleet.as_json) as live:
        while True:
            now = fleet.api.rpc("rollout_progress", rollout_id=rollout_id)
            live.update(_picture(now), refresh=True)
            if now["state"] in _OVER or (now["halts"] and not through_halts):
                break
            if end is not None and time.monotonic() >= end:
                raise FleetctlError("watch_ended", f"Not over after {give_up_after}: {now['summary']}")
            time.sleep(_ASK_EVERY_S)
    if fleet.as_json:
        print_json(now)
    if now["halts"]:
        halt = now["halts"][0]
        raise FleetctlError(
            "rollout_halted",
            f"Halted: {halt['reason']}",
            hint=f"fleetctl halt lift {halt['id'][:SHORT_ID]} '…'",
        )
    if now["state"] != "completed":
        raise FleetctlError("rollout_given_up", f"The rollout was {now['state']}.")


def find_rollout(fleet: Fleet, name: str) -> dict[str, Any]:
    """The newest rollout with this id (8 digits or more), name, or version of its release.

    Raises FleetctlError `rollout_unknown`.
    """
    rows = fleet.api.rows("rollouts", order="created_at", newest_first=True, limit=1000)
    for row in rows:
        if name in (row["id"], row["name"]) or (len(name) >= SHORT_ID and row["id"].startswith(name)):
            return row
    releases = {
        row["id"] for row in fleet.api.rows("releases", lambda query: query.eq("version", name), order="id")
    }
    for row in rows:
        if row["release_id"] in releases:
            return row
    raise FleetctlError(
        "rollout_unknown", f"There is no rollout {name}.", hint="See fleetctl rollout list.", exit_code=5
    )


def _move(fleet: Fleet, rollout: str, function: str) -> None:
    changed = fleet.api.rpc(function, rollout_id=find_rollout(fleet, rollout)["id"])
    fleet.say(f"The rollout is {changed['state']}.", changed)


#: A stage's rules as they are written here -> the column of rollout_stages.
_RULES = {"max": "max_in_flight", "attempted": "min_attempted", "success": "min_success_ratio"}


def _stage(fleet: Fleet, text: str) -> dict[str, Any]:
    """`canary,25%,soak=1h,approve` as a row. Raises FleetctlError `stage_malformed`, `device_unknown`."""
    row: dict[str, Any] = {}
    for part in text.split(","):
        key, _, value = part.strip().partition("=")
        if not value and re.fullmatch(r"\d+(\.\d+)?%", key):
            row["percent"] = float(key[:-1])
        elif not value and key == "approve":
            row["needs_approval"] = True
        elif key == "soak" and value:
            row["soak_s"] = int(duration(value).total_seconds())
        elif key == "device" and value:
            row.setdefault("device_ids", []).append(find_device(fleet, value)["id"])
        elif key in _RULES and re.fullmatch(r"\d+(\.\d+)?", value):
            row[_RULES[key]] = float(value) if "." in value else int(value)
        elif not value and re.fullmatch(r"[a-z0-9][a-z0-9-]*", key):
            row["segment"] = key
        else:
            raise FleetctlError(
                "stage_malformed",
                f"{part.strip() or text} says nothing about a stage.",
                hint="A segment, 25%, soak=1h, max=50, attempted=5, success=0.95, approve, device=NAME.",
                exit_code=2,
            )
    return row


def _value(text: str) -> Any:
    """Numbers and booleans as such, so that jsonb holds what the column is; empty is null."""
    if re.fullmatch(r"-?\d+(\.\d+)?", text):
        return float(text) if "." in text else int(text)
    return {"true": True, "false": False, "": None}.get(text, text)


def _who(stage: dict[str, Any]) -> str:
    share = f"{stage['percent']:g}%" if stage["percent"] is not None else ""
    return " ".join(part for part in (stage["segment"], share) if part) or "all"


def _stand(stage: dict[str, Any]) -> str:
    if stage["opened_at"] is None:
        waits = stage["needs_approval"] and stage["approved_at"] is None
        return "needs approval" if waits else "not open"
    return "proved" if stage["proved_at"] else "open"


_STAGE_COLUMNS: dict[str, Callable[[dict[str, Any]], object]] = {
    "stage": lambda stage: stage["position"],
    "who": _who,
    "": _stand,
    "devices": lambda stage: stage["devices"],
    "on it": lambda stage: stage["on_release"],
    "in flight": lambda stage: stage["in_flight"],
    "failed": lambda stage: stage["failed"],
    "waiting": lambda stage: stage["waiting"],
    "offline": lambda stage: stage["offline"],
}


def _stage_rows(now: dict[str, Any]) -> Iterator[Sequence[object]]:
    for stage in now["stages"]:
        yield [cell(stage) for cell in _STAGE_COLUMNS.values()]


def _picture(now: dict[str, Any]) -> Any:
    """What `watch` redraws: the summary, a bar and the stages."""
    from rich.console import Group
    from rich.markup import escape
    from rich.progress_bar import ProgressBar
    from rich.table import Table

    table = Table(header_style="bold")
    for column in _STAGE_COLUMNS:
        table.add_column(column)
    for row in _stage_rows(now):
        table.add_row(*("" if cell is None else escape(str(cell)) for cell in row))
    total = max(1, now["devices"])
    return Group(
        escape(now["summary"]), ProgressBar(total=total, completed=now["on_release"], width=60), table
    )


def _names(rows: Sequence[dict[str, Any]]) -> str:
    names = [row["name"] for row in rows[:4]]
    return ", ".join(names) + (", …" if len(rows) > len(names) else "")
