"""The host: what a role mounts of it, and the rights it takes."""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path

from fleet_agent.containers import compose_file
from fleet_agent.errors import FleetError
from fleet_agent.paths import DEFAULT_CONFIG, DEFAULT_ROOT
from fleet_agent.roles import compose_source, host_access
from fleet_agent.roles.host_paths import Place
from fleet_agent.roles.host_table import ROOT
from fleet_agent.roles.variables import VariableType
from fleetctl.role_check.compose import SAMPLE_PATH, sample_values
from fleetctl.role_check.findings import Finding, error, refusal, warning
from fleetctl.role_check.subject import Subject, bind_sources


def mounts_stay_inside(subject: Subject) -> Iterator[Finding]:
    """Of the repository, a device has the role and `roles/common`."""
    roles = subject.role.folder.parent
    for name, source in bind_sources(subject):
        place = Path(os.path.normpath(source))
        if not place.is_relative_to(roles):
            continue
        shared = place.is_relative_to(roles / "common")
        if not shared and not place.is_relative_to(subject.role.folder):
            yield error("host_path", f"{name} mounts {source}, which belongs to another role.", name)
        elif not os.path.lexists(place):
            yield error(
                "mount_missing", f"{name} mounts {place.relative_to(roles)}, which does not exist.", name
            )


def access_is_declared(subject: Subject) -> Iterator[Finding]:
    """The table of what a role may take of a device is the one that devices use.

    They judge the file as it was written, too: Compose leaves out what no service uses.
    """
    place, access = _place(subject), subject.role.access
    written = compose_source.filled(subject.raw, sample_values(subject.role))
    refused = (host_access.refusals(file, place, access) for file in (subject.resolved, written))
    yield from dict.fromkeys(refusal(one) for several in refused for one in several)
    needed = host_access.needed(subject.resolved, place)
    for word in subject.role.access:
        if word not in needed and word != ROOT:
            yield warning("access_unused", f"role.yaml declares access to {word}, which nothing needs.")
    if ROOT in subject.role.access:
        reason = subject.role.access[ROOT]
        text = f"The role is as good as root on its devices: {reason.rstrip('.')}."
        yield warning("access_root", text)


def sizes_are_sane(subject: Subject) -> Iterator[Finding]:
    try:
        compose_file.check_size(subject.resolved)
    except FleetError as refused:
        yield error(refused.kind.value, refused.message)


def places_in_containers_are_possible(subject: Subject) -> Iterator[Finding]:
    try:
        compose_file.check_places(subject.resolved)
    except FleetError as refused:
        yield error(refused.kind.value, refused.message)


def _place(subject: Subject) -> Place:
    """A device in its usual place, whose owner named a path for each variable without a default."""
    variables = subject.role.variables.values()
    asked = any(one.type is VariableType.PATH and not one.default_text for one in variables)
    return Place(
        folder=str(subject.role.folder),
        release=(str(subject.role.folder.parent),),
        given=(SAMPLE_PATH,) if asked else (),
        agent=(str(DEFAULT_ROOT), str(DEFAULT_CONFIG.parent)),
    )
