"""A rollout's stages and options as people type them."""

from __future__ import annotations

import re
from typing import Annotated, Any

import typer

from fleetctl.client.query import Row
from fleetctl.commands.common.context import Context
from fleetctl.commands.common.lookup import find_device
from fleetctl.commands.common.parse import duration, pairs_of
from fleetctl.commands.common.selection import selector_of
from fleetctl.errors import FleetctlError

#: The options of whatever makes a rollout.
Stages = Annotated[
    list[str] | None,
    typer.Option(
        "--stage",
        metavar="STAGE",
        help="A stage instead of the template's; repeat it in order. A segment, share or device, then "
        "its rules, separated by commas: canary,soak=1h or 25%,max=50,success=0.95,approve or "
        "device=kitchen.",
    ),
]
Columns = Annotated[
    list[str] | None,
    typer.Option(
        "--set", metavar="KEY=VALUE", help="Any other column, e.g. max_in_flight=20 or on_bad=roll_back."
    ),
]

#: A stage's limits as they are typed -> the column of rollout_stages.
_LIMITS = {"max": "max_in_flight", "attempted": "min_attempted", "success": "min_success_ratio"}
_SHARE = re.compile(r"\d+(\.\d+)?%")
_COUNT_OR_RATIO = re.compile(r"\d+(\.\d+)?")
_SEGMENT = re.compile(r"[a-z0-9][a-z0-9-]*")


def parse_stage(context: Context, text: str) -> Row:
    """`canary,25%,soak=1h,approve` as a row. Raises FleetctlError `stage_malformed`, `device_unknown`."""
    row: Row = {}
    for part in text.split(","):
        match part.strip().partition("="):
            case (share, "", "") if _SHARE.fullmatch(share):
                row["percent"] = float(share[:-1])
            case ("approve", "", ""):
                row["needs_approval"] = True
            case ("soak", "=", time) if time:
                row["soak_s"] = int(duration(time).total_seconds())
            case ("device", "=", name) if name:
                row.setdefault("device_ids", []).append(find_device(context, name)["id"])
            case (limit, "=", number) if limit in _LIMITS and _COUNT_OR_RATIO.fullmatch(number):
                row[_LIMITS[limit]] = parse_value(number)
            case (segment, "", "") if _SEGMENT.fullmatch(segment):
                row["segment"] = segment
            case _:
                raise FleetctlError(
                    "stage_malformed",
                    f"{part.strip() or text} is not a valid part of a stage.",
                    hint="Use a segment, 25%, device=NAME, soak=1h, max=50, attempted=5, success=0.95 or "
                    "approve.",
                    exit_code=2,
                )
    return row


def parse_value(text: str) -> Any:
    """Numbers and booleans as such, so that jsonb holds what the column is; empty is null."""
    if re.fullmatch(r"-?\d+(\.\d+)?", text):
        return float(text) if "." in text else int(text)
    return {"true": True, "false": False, "": None}.get(text, text)


def rollout_options(selector: str | None, label: list[str] | None, option: list[str] | None) -> Row:
    """`--selector`, `--label` and `--set` as columns of rollouts."""
    options: Row = {key: parse_value(text) for key, text in pairs_of(option or ()).items()}
    if selected := selector_of(selector, label):
        options["selector"] = selected
    return options
