"""One row by what people call it: a device's name, a release's version, the first digits of an id."""

from __future__ import annotations

import re
from collections.abc import Sequence
from typing import Any
from uuid import UUID

from fleetctl.client.query import Row, where
from fleetctl.commands.common.context import Context
from fleetctl.commands.common.format import SHORT_ID
from fleetctl.errors import FleetctlError


def find_device(context: Context, name: str) -> Row:
    """One device by name or id. Raises FleetctlError `device_unknown`."""
    return find_devices(context, (name,))[0]


def find_devices(context: Context, names: Sequence[str]) -> list[Row]:
    """Devices by name or id, each once. Raises FleetctlError `device_unknown`."""
    found = {}
    for column in ("name", "id"):
        values = [name for name in names if _is_id(name) == (column == "id")]
        for row in context.api.rows_of("devices", column, values, order="name"):
            # A retired device's name may be another's by now.
            if row["state"] != "retired" or row[column] not in found:
                found[row[column]] = row
    for name in names:
        if name.lower() not in found and name not in found:
            raise _unknown("device_unknown", name)
    return list({row["id"]: row for row in found.values()}.values())


def find_release(context: Context, name: str, branch: str | None = None) -> Row:
    """One release by id, version or the first 7 or more digits of its commit; the branch decides between two.

    Raises FleetctlError: `release_unknown`, `release_ambiguous`.
    """

    def narrow(query: Any) -> Any:
        query = where(branch=branch)(query)
        if _is_id(name):
            return query.eq("id", name)
        if re.fullmatch(r"[0-9a-f]{7,64}", name):
            return query.or_(f'version.eq."{name}",commit_sha.like.{name}*')
        return query.eq("version", name)

    found = context.api.rows("releases", narrow, order="created_at", newest_first=True, limit=10)
    if not found:
        raise _unknown("release_unknown", name)
    if len(found) > 1:
        choices = ", ".join(f"{row['version']} {row['commit_sha'][:12]} ({row['branch']})" for row in found)
        raise FleetctlError(
            "release_ambiguous",
            f"{name} could be any of {choices}.",
            hint="Give the commit or the id, or add --on-branch.",
            exit_code=2,
        )
    return found[0]


def find_rollout(context: Context, name: str) -> Row:
    """The newest rollout with this id (8 digits or more), name, or version of its release.

    Raises FleetctlError `rollout_unknown`.
    """
    rows = context.api.rows("rollouts", order="created_at", newest_first=True, limit=1000)
    for row in rows:
        if name == row["name"] or _is_called(row, name):
            return row
    releases = {row["id"] for row in context.api.rows("releases", where(version=name), order="id")}
    for row in rows:
        if row["release_id"] in releases:
            return row
    raise _unknown("rollout_unknown", name)


def find_by_id(rows: Sequence[Row], text: str, unknown: str) -> Row:
    """The one row whose id is `text` or begins with it (8 characters or more, as lists show it).

    Raises FleetctlError of the kind `unknown`.
    """
    found = [row for row in rows if _is_called(row, text)]
    if len(found) == 1:
        return found[0]
    raise _unknown(unknown, text)


def names_by_id(
    context: Context, table: str, ids: Sequence[str | None], name: str = "name"
) -> dict[str, str]:
    """The column `name` of the rows with these ids; None among them is passed over."""
    wanted = sorted({one for one in ids if one})
    rows = context.api.rows_of(table, "id", wanted, select=f"id,{name}", order="id")
    return {row["id"]: row[name] for row in rows}


def _unknown(kind: str, name: str) -> FleetctlError:
    """`device_unknown`: the kind says what was looked for, and which command lists them."""
    what = kind.removesuffix("_unknown").replace("_", "-")
    noun = "known-bad entry" if what == "known-bad" else what
    hint = f"See: fleetctl {what} list"
    return FleetctlError(kind, f"There is no {noun} {name}.", hint=hint, exit_code=5)


def _is_called(row: Row, text: str) -> bool:
    """Whether `text` is the row's id, or begins it as lists show it."""
    found: bool = row["id"] == text or (len(text) >= SHORT_ID and row["id"].startswith(text))
    return found


def _is_id(text: str) -> bool:
    try:
        return str(UUID(text)) == text.lower()
    except ValueError:
        return False
