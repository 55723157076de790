"""What a resolved compose file needs of this machine, and whether it is there."""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from fleet_agent import errors
from fleet_agent.containers import compose_file
from fleet_agent.containers.base import HostFacts
from fleet_agent.errors import FleetError, Kind, ValidationError

#: Other names of architectures, in Docker's words.
_ALIASES = {"x86_64": "amd64", "x86-64": "amd64", "aarch64": "arm64", "armhf": "arm", "armel": "arm"}


def problems(compose: dict[str, Any], facts: HostFacts, *, look_at_files: bool) -> Iterator[FleetError]:
    """Each thing that is not as the file needs it.

    With `look_at_files` also paths of this machine; without them it is a simulated one.
    """
    yield from _platforms(compose, facts)
    yield from _external(compose, "networks", facts.networks)
    yield from _external(compose, "volumes", facts.volumes)
    yield from _changed_volumes(compose, facts)
    yield from _names(compose)
    if look_at_files:
        yield from _paths(compose)


def _platforms(compose: dict[str, Any], facts: HostFacts) -> Iterator[FleetError]:
    for name, service in compose_file.services(compose).items():
        wanted = str(service.get("platform") or "")
        if wanted and facts.platform and _normal(wanted) != _normal(facts.platform):
            yield ValidationError(
                Kind.PLATFORM_MISMATCH,
                f"{name} is for the platform {wanted}, and this device is {facts.platform}.",
                hint="Use an image for several platforms, or keep the role from this device.",
            )


def _normal(platform: str) -> tuple[str, str]:
    """System and architecture; a variant (arm64/v8) may differ."""
    parts = platform.lower().split("/")
    system, architecture = parts[:2] if len(parts) > 1 else ("linux", parts[0])
    return system, _ALIASES.get(architecture, architecture)


def _external(compose: dict[str, Any], section: str, there: Any) -> Iterator[FleetError]:
    what = section.removesuffix("s")
    used = {key for service in compose_file.services(compose).values() for key in _used(service, section)}
    for key, entry in (compose.get(section) or {}).items():
        if not isinstance(entry, dict) or not entry.get("external") or key not in used:
            continue
        name = str(entry.get("name") or key)
        if name not in there:
            yield ValidationError(
                Kind.RESOURCE_MISSING,
                f"The external {what} {name} is not on this device.",
                hint=f"Create it on the device (docker {what} create {name}), or remove `external`.",
                retryable=True,
            )


def _used(service: dict[str, Any], section: str) -> Iterator[str]:
    if section == "networks":
        yield from service.get("networks") or {}
        return
    for mount in service.get("volumes") or []:
        if isinstance(mount, dict) and mount.get("type") == "volume":
            yield str(mount.get("source"))


def _changed_volumes(compose: dict[str, Any], facts: HostFacts) -> Iterator[FleetError]:
    """Docker never changes a volume that is there, and Compose goes on with the old one."""
    used = {key for service in compose_file.services(compose).values() for key in _used(service, "volumes")}
    for key, entry in (compose.get("volumes") or {}).items():
        settings = entry or {}
        known = facts.volumes.get(str(settings.get("name") or key))
        if known is None or settings.get("external") or key not in used:
            continue
        name = str(settings.get("name") or key)
        driver = str(settings.get("driver") or "local")
        options = {str(k): str(v) for k, v in (settings.get("driver_opts") or {}).items()}
        if (driver, options) != (known.driver, dict(known.options)):
            here, asked = _said(known.driver, known.options), _said(driver, options)
            yield ValidationError(
                Kind.VOLUME_DIFFERS,
                f"The volume {name} is on this device with other options ({here}) than the release asks for "
                f"({asked}), and Docker does not change a volume.",
                hint="Give the volume another name in the compose file; or save its data, and remove it on "
                f"the device: docker volume rm {name}",
            )


def _said(driver: str, options: Any) -> str:
    return ", ".join([driver, *(f"{key}={value}" for key, value in sorted(options.items()))])


def _names(compose: dict[str, Any]) -> Iterator[FleetError]:
    for name, service in compose_file.services(compose).items():
        if service.get("container_name") and compose_file.replicas(service) > 1:
            yield errors.compose_invalid(
                f"{name} has {compose_file.replicas(service)} replicas and one container_name",
                hint="Remove container_name.",
            )


def _paths(compose: dict[str, Any]) -> Iterator[FleetError]:
    for name, service in compose_file.services(compose).items():
        for source in (*_devices(service), *_host_paths(service)):
            if not os.path.lexists(source):
                yield ValidationError(
                    Kind.RESOURCE_MISSING,
                    f"{name} needs {source}, which is not on this device.",
                    hint="Connect or create it, or give the service another path in the device's .env.",
                    retryable=True,
                )


def _devices(service: dict[str, Any]) -> Iterator[Path]:
    for device in service.get("devices") or []:
        source = str(device.get("source") if isinstance(device, dict) else str(device).partition(":")[0])
        # Anything else is the name of a device that a driver provides.
        if source.startswith("/"):
            yield Path(source)


def _host_paths(service: dict[str, Any]) -> Iterator[Path]:
    """Those that Docker does not create if they are missing."""
    for mount in service.get("volumes") or []:
        bind = mount.get("bind") or {}
        if mount.get("type") == "bind" and not bind.get("create_host_path", True):
            yield Path(str(mount.get("source")))
