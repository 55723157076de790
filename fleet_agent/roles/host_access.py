"""What of the device a role neither declares nor can have.

    host_uses   what its compose file takes of the device
    host_table  what of that is free, and what must be declared
    host_paths  what its paths mean there

Here they meet, with the words that the role declares. Pure: only `Place.real` may look at a disk.
"""

from __future__ import annotations

import posixpath
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from fleet_agent.errors import Kind
from fleet_agent.roles.host_paths import Place, below, normal
from fleet_agent.roles.host_table import FREE, NEVER, ROOT, Row, Subject, Use, row_of
from fleet_agent.roles.host_uses import listed, mapping, uses
from fleet_agent.roles.refusal import Refusal


def refusals(
    compose: Mapping[str, Any],
    place: Place,
    access: Mapping[str, str],
    *,
    file: str = "compose.yaml",
) -> list[Refusal]:
    """What the file takes that the role neither declares nor can have."""
    return refused(uses(compose, place), place, access, file=file)


def refused(
    used: Iterable[Use], place: Place, access: Mapping[str, str], *, file: str = "compose.yaml"
) -> list[Refusal]:
    """What of these the role neither declares nor can have, each once."""
    found: dict[tuple[str, str, str], Refusal] = {}
    for use in used:
        row = _worst(use, place)
        if row.needs == FREE or row.needs in access or (ROOT in access and row.needs != NEVER):
            continue
        found.setdefault((use.service, use.key, use.value), _refusal(use, row, file))
    return list(found.values())


def needed(compose: Mapping[str, Any], place: Place) -> set[str]:
    """The words of `access:` that the file needs."""
    return {_worst(use, place).needs for use in uses(compose, place)} - {FREE, NEVER}


def covered(compose: Mapping[str, Any], agent: Sequence[str]) -> dict[str, Any]:
    """A resolved file in which the agent's own folders are empty wherever a mount contains them.

    Whoever may mount `/` is root, but does not come upon the device's key by searching its files.
    """
    volumes = mapping(compose.get("volumes"))
    services = {}
    for name, service in mapping(compose.get("services")).items():
        mounts = listed(service.get("volumes"))
        covers = [
            {
                "type": "tmpfs",
                "target": posixpath.join(str(mount.get("target")), posixpath.relpath(own, source)),
            }
            for mount in mounts
            if (source := _bound_to(mount, volumes))
            for own in agent
            if own != source and below(own, source)
        ]
        services[name] = {**service, "volumes": [*mounts, *covers]} if covers else service
    return {**compose, "services": services}


def _bound_to(mount: Any, volumes: Mapping[str, Any]) -> str:
    """The path of the device that a mount of the long form has; empty if none."""
    entry = mapping(mount)
    source = str(entry.get("source") or "")
    if entry.get("type") == "volume":
        source = str(mapping(mapping(volumes.get(source)).get("driver_opts")).get("device") or "")
    elif entry.get("type") != "bind":
        source = ""
    return normal(source) if source.startswith("/") else ""


def _worst(use: Use, place: Place) -> Row:
    """The row of a path and of what it leads to on the device."""
    row = row_of(use)
    if use.subject is not Subject.MOUNT or not use.value.startswith("/"):
        return row
    real = normal(place.real(use.value))
    if any(below(path, own) for path in (use.value, real) for own in place.agent):
        return Row(Subject.MOUNT, "", NEVER, Kind.HOST_PATH, "the agent's own files")
    if row.needs == FREE:
        return row
    if real != use.value:
        there = row_of(Use(use.subject, use.service, use.key, real, use.read_only))
        row = there if there.pattern or not row.pattern else row
    # In no row: the owner of the device may have named this folder.
    if not row.pattern and any(below(use.value, given) for given in _givable(place)):
        return Row(Subject.MOUNT, "", FREE, Kind.HOST_PATH, "a folder that the device's owner named")
    return row


def _givable(place: Place) -> list[str]:
    """The paths that the owner named, without those of the table: below `/` is everything."""
    paths = [normal(path) for path in place.given]
    return [path for path in paths if not row_of(Use(Subject.MOUNT, "", "", path)).pattern]


def _refusal(use: Use, row: Row, file: str) -> Refusal:
    mode = ", read-only" if use.read_only else ""
    taken = f"it takes {use.value[:100]}{mode}"
    if row.needs == NEVER:
        return Refusal(
            row.kind, _where(use, file), f"{taken}: {row.what}, which no role can have.",
            "Remove it.", use.service,
        )  # fmt: skip
    if row.needs == ROOT:
        why = f"{taken}: {row.what}, which is as good as root on the device."
    else:
        why = f"{taken}: {row.what}, which the role does not declare."
    return Refusal(
        row.kind, _where(use, file), why,
        f"Do without it, or declare it in role.yaml: access: {{{row.needs}: the reason}}.", use.service,
    )  # fmt: skip


def _where(use: Use, file: str) -> str:
    return f"{file} ({use.service}, {use.key})"
