"""What a resolved Compose file says: its services, their images, the ports they publish.

Values in memory are literal. In a file that Compose reads, each `$` is written twice (`as_json`).
"""

from __future__ import annotations

import json
import posixpath
import re
from typing import Any

from fleet_agent import errors
from fleet_agent.errors import Kind, ValidationError

#: A tag other than `latest`, or a digest. The name may hold a registry's port.
_PINNED = re.compile(r"(?P<name>[^@]+?)(:(?P<tag>[\w][\w.-]{0,127}))?(?P<digest>@sha256:[0-9a-f]{64})?")

#: What one stack may have; a device that could start more is not known.
SERVICES_LIMIT, CONTAINERS_LIMIT, PORTS_LIMIT = 200, 500, 2000


def images(compose: dict[str, Any]) -> list[str]:
    """Every image of the file, in order, once.

    Raises ValidationError: `compose_invalid` for a service that must be built, `image_unpinned` for a tag
    that can change.
    """
    found: dict[str, None] = {}
    for name, service in services(compose).items():
        image = service.get("image")
        if not image:
            raise errors.compose_invalid(
                f"service {name} has no image, and devices do not build images",
                hint="Build and push the image elsewhere, and give its tag or digest here.",
            )
        if not is_pinned(image):
            raise ValidationError(
                Kind.IMAGE_UNPINNED,
                f"Service {name} uses {image}, a tag that can change.",
                hint="Use a tag other than latest, or a digest.",
            )
        found[image] = None
    return list(found)


def is_pinned(image: str) -> bool:
    """True for a digest, or a tag that is not `latest`."""
    match = _PINNED.fullmatch(image.rpartition("/")[2])
    if match is None:
        return False
    return match["digest"] is not None or match["tag"] not in (None, "latest")


def services(compose: dict[str, Any]) -> dict[str, dict[str, Any]]:
    """The services by name. Raises ValidationError (`compose_invalid`) if there are none."""
    found = compose.get("services")
    if not isinstance(found, dict) or not found:
        raise errors.compose_invalid("it has no services")
    return found


def published(compose: dict[str, Any]) -> list[tuple[str, str, int, str]]:
    """(service, host address, port, protocol) of each fixed port that the file publishes."""
    found = []
    for name, service in services(compose).items():
        for port in service.get("ports") or []:
            text = str(port.get("published") or "")
            first, _, last = text.partition("-")
            # A range, or no number at all, lets Docker choose: nothing to collide with.
            if re.fullmatch(r"[0-9]{1,5}", first) and last in ("", first) and int(first) > 0:
                found.append((name, port.get("host_ip") or "", int(first), port.get("protocol") or "tcp"))
    return found


def replicas(service: dict[str, Any]) -> int:
    """How many containers a service should have."""
    for said in (service.get("scale"), (service.get("deploy") or {}).get("replicas")):
        if said is not None:
            return _number(said)
    return 1


def _number(said: Any) -> int:
    text = str(said) if isinstance(said, int | str) and len(str(said)) <= 30 else ""
    if not re.fullmatch(r"[0-9]+", text):
        raise errors.compose_invalid(
            "how many containers a service has is not a number",
            hint="Correct scale, or deploy.replicas.",
        )
    return int(text)


def check_size(compose: dict[str, Any]) -> None:
    """Refuse what no device can start. Raises ValidationError (`compose_too_costly`, `compose_invalid`)."""
    found = services(compose)
    numbers = {
        "services": (len(found), SERVICES_LIMIT),
        "containers": (sum(replicas(service) for service in found.values()), CONTAINERS_LIMIT),
        "published ports": (sum(map(_ports, found.values())), PORTS_LIMIT),
    }
    for what, (number, limit) in numbers.items():
        _at_most(number, limit, what)


def check_ranges(content: dict[str, Any]) -> None:
    """Refuse ranges of ports that Compose would write out one by one, in a file as it was written."""
    found = content.get("services")
    several = found.values() if isinstance(found, dict) else ()
    number = sum(_ports(service) for service in several if isinstance(service, dict))
    _at_most(number, PORTS_LIMIT, "published ports")


def _at_most(number: int, limit: int, what: str) -> None:
    if number > limit:
        raise ValidationError(
            Kind.COMPOSE_TOO_COSTLY,
            f"compose.yaml has more {what} than a device can start: {number:.9g}, at most {limit}.",
            hint="Correct scale, replicas, or the range of ports.",
        )


def _ports(service: dict[str, Any]) -> int:
    """How many ports a service publishes, each of a range."""
    ports = service.get("ports") or []
    return sum(_width(port) for port in ports) if isinstance(ports, list) else 0


def _width(port: Any) -> int:
    text = f"{port.get('published')} {port.get('target')}" if isinstance(port, dict) else str(port)
    ranges = re.findall(r"(?<![0-9.])([0-9]{1,5})-([0-9]{1,5})(?![0-9.])", text)
    return max([1, *(int(last) - int(first) + 1 for first, last in ranges)])


def check_places(compose: dict[str, Any]) -> None:
    """Refuse places in a container that Docker refuses only at the start: relative ones, two that are one.

    Raises ValidationError (`compose_invalid`).
    """
    for name, service in services(compose).items():
        mounted = [*_targets(service.get("volumes")), *_targets(service.get("tmpfs"))]
        # Anything else is the name of a device that a driver provides.
        devices = _targets([one for one in service.get("devices") or [] if _source(one).startswith("/")])
        working_dir = [str(service["working_dir"])] if service.get("working_dir") else []
        for target in (*mounted, *devices, *working_dir):
            if not target.startswith("/"):
                raise errors.compose_invalid(
                    f"{name} has {target} as a place in its container, which is not an absolute path",
                    hint="A mount is written source:/target, and a place in a container begins with a slash.",
                )
        places = [posixpath.normpath(target) for target in mounted]
        if "/" in places:
            raise errors.compose_invalid(
                f"{name} mounts something over the root of its container",
                hint="Mount it at a folder of its own.",
            )
        for place in places:
            if places.count(place) > 1:
                raise errors.compose_invalid(
                    f"{name} mounts two things at {place}", hint="Give each mount a place of its own."
                )


def _source(device: Any) -> str:
    return str(device.get("source") if isinstance(device, dict) else device)


def _targets(mounts: Any) -> list[str]:
    """The places in the container, of mounts in their long or short form."""
    several = [mounts] if isinstance(mounts, str) else mounts if isinstance(mounts, list) else []
    found = []
    for mount in several:
        if isinstance(mount, dict):
            found.append(str(mount.get("target") or ""))
        else:
            source, _, rest = str(mount).partition(":")
            # `/run:size=64m` is a tmpfs with options, `/data` an anonymous volume.
            target = rest.partition(":")[0]
            found.append(source if not target or "=" in target else target)
    return [target for target in found if target]


def awaited(compose: dict[str, Any]) -> set[str]:
    """The services that others wait for to end well."""
    waits = [service.get("depends_on") for service in services(compose).values()]
    return {
        name
        for one in waits
        if isinstance(one, dict)
        for name, how in one.items()
        if isinstance(how, dict) and how.get("condition") == "service_completed_successfully"
    }


def as_json(compose: dict[str, Any]) -> bytes:
    """The file's content, as Compose reads it."""
    return json.dumps(_escaped(compose), indent=1, sort_keys=True).encode()


def from_json(content: bytes) -> Any:
    """What a file that `as_json` or Compose made says. Raises ValueError."""
    # A dollar sign means nothing to JSON: undone in the text it is undone in every string.
    return json.loads(content.replace(b"$$", b"$"))


def _escaped(value: Any) -> Any:
    if isinstance(value, str):
        return value.replace("$", "$$")
    if isinstance(value, dict):
        # Compose leaves keys as they are.
        return {key: _escaped(item) for key, item in value.items()}
    return [_escaped(item) for item in value] if isinstance(value, list) else value
