"""`fleetctl history`: what the devices attempted, and how it ended."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import datetime
from enum import StrEnum
from typing import Annotated, Any

import typer

from fleetctl.client.query import Row, batches, is_one_of, where
from fleetctl.commands.common.context import Context
from fleetctl.commands.common.format import second
from fleetctl.commands.common.lookup import names_by_id
from fleetctl.commands.common.options import Limit, command
from fleetctl.commands.common.selection import Selection


class Outcome(StrEnum):
    """`update_history.outcome`."""

    SUCCEEDED = "succeeded"
    FAILED = "failed"
    ROLLED_BACK = "rolled_back"
    SKIPPED = "skipped"


def add_to(app: typer.Typer) -> None:
    command(app)(history)


def history(
    context: Context,
    selection: Selection,
    limit: Limit = 20,
    outcome: Annotated[Outcome | None, typer.Option(help="Only with this outcome.")] = None,
) -> None:
    """Show update attempts, newest first, for the whole fleet or for selected devices."""
    narrows = [where(outcome=outcome)]
    if selection.narrows:
        ids = [row["id"] for row in selection.devices(context, all_by_default=True)]
        narrows = [is_one_of("device_id", part, outcome=outcome) for part in batches(ids)]
    rows = [
        row
        for narrow in narrows
        for row in context.api.rows(
            "update_history", narrow, order="started_at,id", newest_first=True, limit=limit
        )
    ]
    # Each batch was cut by itself; times are of one form, so that they compare as text.
    rows = sorted(rows, key=lambda row: (row["started_at"], row["id"]), reverse=True)[:limit]
    rows = with_versions(context, rows)
    if not context.as_json:
        names = names_by_id(context, "devices", [row["device_id"] for row in rows])
        rows = [{**row, "device": names.get(row["device_id"], row["device_id"])} for row in rows]
    context.show(
        "Attempts", {"device": lambda row: row["device"], **ATTEMPT_COLUMNS}, rows, if_none="No attempts."
    )


def with_versions(context: Context, attempts: Sequence[Row]) -> list[Row]:
    """Attempts with `from_version` and `to_version`; None for the commit of no release."""
    commits = sorted({row[column] for row in attempts for column in ("from_commit", "to_commit")} - {None})
    releases = context.api.rows_of(
        "releases", "commit_sha", commits, select="id,commit_sha,version", order="created_at,id"
    )
    called = {release[key]: release["version"] for release in releases for key in ("id", "commit_sha")}
    return [
        {
            **row,
            "from_version": called.get(row["from_commit"]),
            # One commit may be a release of two branches.
            "to_version": called.get(row["release_id"]) or called.get(row["to_commit"]),
        }
        for row in attempts
    ]


def _took(row: Row) -> str:
    seconds = datetime.fromisoformat(row["finished_at"]) - datetime.fromisoformat(row["started_at"])
    return f"{seconds.total_seconds():.1f} s"


def _why(row: Row) -> str:
    if not row["error_kind"]:
        return ""
    phase = f" while {row['failed_phase']}" if row["failed_phase"] else ""
    return f"{row['error_kind']}{phase}: {row['error']}{_ended_with(row['evidence'], row['error'] or '')}"


def _ended_with(evidence: Any, said: str) -> str:
    """The exit codes of services that crashed, unless the sentence has them; a device wrote the evidence."""
    containers = evidence.get("containers") if isinstance(evidence, dict) else None
    ended = {
        str(one.get("service")): one["exit_code"]
        for one in (containers if isinstance(containers, list) else ())
        if isinstance(one, dict) and isinstance(one.get("exit_code"), int) and one["exit_code"] != 0
    }
    if not ended or "exit code" in said:
        return ""
    return " " + " ".join(f"{service} ended with exit code {code}." for service, code in ended.items())


ATTEMPT_COLUMNS = {
    "started": lambda row: second(row["started_at"]),
    "took": _took,
    "from": lambda row: row["from_version"] or (row["from_commit"] or "nothing")[:12],
    "to": lambda row: row["to_version"] or row["to_commit"][:12],
    "outcome": lambda row: row["outcome"],
    "why": _why,
}
