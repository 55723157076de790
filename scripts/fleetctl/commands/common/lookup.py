"""One row by what people call it: a device's name, a release's version, the first digits of an id."""

from __future__ import annotations

import re
from collections.abc import Sequence
from difflib import get_close_matches
from uuid import UUID

from fleetctl.client.query import Narrow, Query, Row, batches, is_one_of, where
from fleetctl.commands.common.context import Context
from fleetctl.commands.common.format import SHORT_ID
from fleetctl.errors import FleetctlError

#: What a device may be called.
_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,62}")


def find_device(context: Context, name: str) -> Row:
    """One device by name or id. Raises FleetctlError `device_unknown`."""
    return find_devices(context, (name,))[0]


def find_devices(context: Context, names: Sequence[str]) -> list[Row]:
    """Devices by name or id, each once. Raises FleetctlError `device_unknown`."""
    found: dict[str, Row] = {}
    for row in context.api.rows_of(
        "devices", "id", [name.lower() for name in names if _is_id(name)], order="id"
    ):
        found[row["id"]] = row
    wanted = {name.lower() for name in names if not _is_id(name)}
    for part in batches(sorted(name for name in wanted if _NAME.fullmatch(name))):
        for row in context.api.rows("devices", _is_called(part), order="id"):
            called = row["name"].lower()
            # A retired device's name may be another's by now.
            if called in wanted and (row["state"] != "retired" or called not in found):
                found[called] = row
    for name in names:
        if name.lower() not in found:
            raise _unknown(context, "device_unknown", name)
    return list({row["id"]: row for row in found.values()}.values())


def _is_called(names: Sequence[str]) -> Narrow:
    """Devices with these names, in capitals or not, and some more: `_` is any character here."""
    return lambda query: query.any_of(*(f"name.ilike.{name}" for name in names))


def find_release(context: Context, name: str, branch: str | None = None) -> Row:
    """One release by id, version or the first 7 or more digits of its commit; the branch decides between two.

    Raises FleetctlError: `release_unknown`, `release_ambiguous`.
    """

    def narrow(query: Query) -> Query:
        query = where(branch=branch)(query)
        if _is_id(name):
            return query.eq("id", name)
        if re.fullmatch(r"[0-9a-f]{7,64}", name):
            return query.any_of(f"version.eq.{name}", f"commit_sha.like.{name}*")
        return query.eq("version", name)

    found = context.api.rows("releases", narrow, order="created_at,id", newest_first=True, limit=10)
    if not found:
        raise _unknown(context, "release_unknown", name)
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
    ways = [where(name=name)]
    if (called := id_begins(name)) is not None:
        ways.append(called)
    releases = [row["id"] for row in context.api.rows("releases", where(version=name), order="id")]
    ways.append(is_one_of("release_id", releases))
    for narrow in ways:
        if found := context.api.rows("rollouts", narrow, order="created_at,id", newest_first=True, limit=1):
            return found[0]
    raise _unknown(context, "rollout_unknown", name)


def id_begins(text: str) -> Narrow | None:
    """The rows whose id is `text` or begins with it, as lists show it; None if no id does."""
    digits = text.replace("-", "").lower()
    if len(text) < SHORT_ID or not re.fullmatch(r"[0-9a-f]{8,32}", digits):
        return None
    first, last = (str(UUID(digits.ljust(32, fill))) for fill in "0f")
    return lambda query: query.gte("id", first).lte("id", last)


def find_by_id(rows: Sequence[Row], text: str, unknown: str) -> Row:
    """The one row whose id is `text` or begins with it (8 characters or more, as lists show it).

    Raises FleetctlError of the kind `unknown`.
    """
    found = [row for row in rows if _has_id(row, text)]
    if len(found) == 1:
        return found[0]
    known = ", ".join(row["id"][:SHORT_ID] for row in rows[:_SOME])
    raise _unknown_error(
        unknown, text, f" Known: {known}{', …' if len(rows) > _SOME else ''}." if known else ""
    )


def names_by_id(
    context: Context, table: str, ids: Sequence[str | None], name: str = "name"
) -> dict[str, str]:
    """The column `name` of the rows with these ids; None among them is passed over."""
    wanted = sorted({one for one in ids if one})
    rows = context.api.rows_of(table, "id", wanted, select=f"id,{name}", order="id")
    return {row["id"]: row[name] for row in rows}


#: Names in a message, and how many are looked at for it.
_SOME, _LOOKED_AT = 5, 1000


def _unknown(context: Context, kind: str, name: str) -> FleetctlError:
    """With the names that come closest, or the newest."""
    table, column, order = {
        "device_unknown": ("devices", "name", "name,id"),
        "release_unknown": ("releases", "version", "created_at,id"),
        "rollout_unknown": ("rollouts", "name", "created_at,id"),
    }[kind]
    rows = context.api.rows(table, select=column, order=order, newest_first=True, limit=_LOOKED_AT)
    names = list(dict.fromkeys(str(row[column]) for row in rows if row[column]))
    if close := get_close_matches(name, names, n=_SOME):
        return _unknown_error(kind, name, f" Similar: {', '.join(close)}.")
    return _unknown_error(kind, name, _some(names))


def _some(names: Sequence[str]) -> str:
    more = ", …" if len(names) > _SOME else ""
    return f" Known: {', '.join(names[:_SOME])}{more}." if names else ""


def _unknown_error(kind: str, name: str, known: str) -> FleetctlError:
    """`device_unknown`: the kind says what was looked for, and which command lists them."""
    what = kind.removesuffix("_unknown").replace("_", "-")
    noun = "known-bad entry" if what == "known-bad" else what
    hint = f"See: fleetctl {what} list"
    return FleetctlError(kind, f"There is no {noun} {name}.{known}", hint=hint, exit_code=5)


def _has_id(row: Row, text: str) -> bool:
    """Whether `text` is the row's id, or begins it as lists show it."""
    found: bool = row["id"] == text or (len(text) >= SHORT_ID and row["id"].startswith(text))
    return found


def _is_id(text: str) -> bool:
    try:
        return str(UUID(text)) == text.lower()
    except ValueError:
        return False
