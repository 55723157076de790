"""One row by what people call it: a device's name, a release's version, the first digits of an id."""

from __future__ import annotations

import re
from collections.abc import Sequence
from typing import Any
from uuid import UUID

from fleetctl.client.query import Row
from fleetctl.commands.common.context import Fleet
from fleetctl.commands.common.format import SHORT_ID
from fleetctl.errors import FleetctlError


def find_device(fleet: Fleet, name: str) -> Row:
    """One device by name or id. Raises FleetctlError `device_unknown`."""
    return find_devices(fleet, (name,))[0]


def find_devices(fleet: Fleet, names: Sequence[str]) -> list[Row]:
    """Devices by name or id, each once. Raises FleetctlError `device_unknown`."""
    found = {}
    for column in ("name", "id"):
        values = [name for name in names if _is_id(name) == (column == "id")]
        for row in fleet.api.rows_of("devices", column, values, order="name"):
            found[row[column]] = row
    for name in names:
        if name.lower() not in found and name not in found:
            raise FleetctlError(
                "device_unknown", f"There is no device {name}.", hint="See fleetctl device list.", exit_code=5
            )
    return list({row["id"]: row for row in found.values()}.values())


def find_release(fleet: Fleet, name: str, branch: str | None = None) -> Row:
    """One release by id, version or the first 7 or more digits of its commit; the branch decides between two.

    Raises FleetctlError: `release_unknown`, `release_ambiguous`.
    """

    def narrow(query: Any) -> Any:
        if branch is not None:
            query = query.eq("branch", branch)
        if _is_id(name):
            return query.eq("id", name)
        if re.fullmatch(r"[0-9a-f]{7,64}", name):
            return query.or_(f'version.eq."{name}",commit_sha.like.{name}*')
        return query.eq("version", name)

    found = fleet.api.rows("releases", narrow, order="created_at", newest_first=True, limit=10)
    if not found:
        raise FleetctlError(
            "release_unknown", f"There is no release {name}.", hint="See fleetctl release list.", exit_code=5
        )
    if len(found) > 1:
        choices = ", ".join(f"{row['version']} {row['commit_sha'][:12]} ({row['branch']})" for row in found)
        raise FleetctlError(
            "release_ambiguous",
            f"{name} could be {choices}.",
            hint="Give the commit or the id, or --on-branch.",
            exit_code=2,
        )
    return found[0]


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


def find_by_id(rows: Sequence[Row], text: str, what: str) -> Row:
    """The one row whose id is `text` or begins with it (8 characters or more, as lists show it).

    Raises FleetctlError `<what>_unknown`.
    """
    found = [
        row for row in rows if row["id"] == text or (len(text) >= SHORT_ID and row["id"].startswith(text))
    ]
    if len(found) == 1:
        return found[0]
    raise FleetctlError(
        f"{what.replace('-', '_')}_unknown",
        f"There is no {what} {text}.",
        hint=f"See fleetctl {what} list.",
        exit_code=5,
    )


def _is_id(text: str) -> bool:
    try:
        return str(UUID(text)) == text.lower()
    except ValueError:
        return False
