"""The host: what a role mounts of it, and the rights it takes."""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path

from fleetctl.role_check.compose import SAMPLE_PATH
from fleetctl.role_check.findings import Finding, error, warning
from fleetctl.role_check.subject import Subject, bind_sources

#: Places of the device that a role may mount as they are; any other needs a declared variable of type `path`.
HOST_PATHS = ("/dev", "/sys", "/proc", "/run/udev", "/run/dbus", "/etc/localtime", "/etc/timezone")


def mounts_stay_inside(subject: Subject) -> Iterator[Finding]:
    roles = subject.role.folder.parent
    for name, source in bind_sources(subject):
        place = Path(os.path.normpath(source))
        if "docker.sock" in place.name:
            yield error(
                "docker_socket", f"{name} mounts the Docker socket, which gives it root on the device.", name
            )
        elif place.is_relative_to(roles):
            shared = place.is_relative_to(roles / "common")
            if not shared and not place.is_relative_to(subject.role.folder):
                yield error("host_path", f"{name} mounts {source}, which belongs to another role.", name)
            elif not os.path.lexists(place):
                yield error(
                    "mount_missing", f"{name} mounts {place.relative_to(roles)}, which does not exist.", name
                )
        elif not any(place.is_relative_to(allowed) for allowed in (*HOST_PATHS, SAMPLE_PATH)):
            yield error(
                "host_path",
                f"{name} mounts {source}; use a variable of type path, or a named volume.",
                name,
            )


def nothing_is_privileged(subject: Subject) -> Iterator[Finding]:
    for name, service in subject.services.items():
        for key, bad in (("privileged", True), ("network_mode", "host"), ("pid", "host"), ("ipc", "host")):
            if service.get(key) == bad:
                yield warning("privileged", f"{name} uses {key}: {str(bad).lower()}.", name)
