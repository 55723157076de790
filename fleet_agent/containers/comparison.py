"""What runs, compared whole with what should run: each service's containers with the resolved compose file.

Compose itself looks at less: of a container that is stopped it does not compare the networks, and one that it
left under a temporary name when it was killed keeps that name.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence, Set
from dataclasses import dataclass, replace
from typing import Any

from fleet_agent.containers import compose_file
from fleet_agent.containers.base import Container
from fleet_agent.support.words import counted

_RUNS = "running"


@dataclass(frozen=True)
class Difference:
    """One thing that is not as the compose file says; `phrase` is for people.

    `is_state`: the container is right and does not run. `recreate`: only another container helps, in place of
    the one whose id is `container`.
    """

    service: str
    phrase: str
    container: str = ""
    is_state: bool = False
    recreate: bool = False


def differences(
    compose: dict[str, Any],
    project: str,
    containers: Sequence[Container],
    networks: Set[str],
    *,
    hashes: Mapping[str, str] | None = None,
) -> list[Difference]:
    """What differs; empty if all is as it should be.

    `networks` are the ids of those that exist, `hashes` the configuration by service that Compose gave its
    containers when it started them, where that is known.
    """
    wanted = compose_file.services(compose)
    found: list[Difference] = []
    for service, settings in wanted.items():
        ours = [container for container in containers if container.service == service]
        found += _count(service, compose_file.replicas(settings), len(ours))
        for container in ours:
            found += [
                replace(one, container=container.id)
                for one in _container(compose, project, container, networks)
            ]
            if hashes and hashes.get(service, container.config_hash) != container.config_hash:
                found.append(Difference(service, f"{service} was started with another configuration"))
    strange = sorted({container.service for container in containers} - wanted.keys())
    return [*found, *(Difference(name, f"{name} is not part of the release") for name in strange)]


def _count(service: str, wanted: int, there: int) -> Iterator[Difference]:
    if there == wanted:
        return
    if there == 0:
        yield Difference(service, f"{service} has no container")
    elif there < wanted:
        yield Difference(service, f"{service} has {there} of {counted(wanted, 'container')}")
    else:
        yield Difference(service, f"{service} has {counted(there, 'container')}, and should have {wanted}")


def _container(
    compose: dict[str, Any], project: str, container: Container, networks: Set[str]
) -> Iterator[Difference]:
    service = container.service
    settings = compose_file.services(compose)[service]
    name = settings.get("container_name") or f"{project}-{service}-{container.number}"
    if container.name != name:
        yield Difference(service, f"the container {name} is named {container.name}", recreate=True)
    if container.image != settings.get("image"):
        phrase = f"{service} runs {container.image}, which is not in the release"
        yield Difference(service, phrase, recreate=True)
    yield from _networks(compose, settings, container, networks)
    yield from _mounts(compose, settings, container)
    published = compose_file.published(compose)
    fixed = {(port, protocol) for name, _, port, protocol in published if name == service}
    if not settings.get("network_mode"):
        for port, protocol in sorted(fixed - set(container.ports)):
            yield Difference(service, f"{service} does not publish port {port}/{protocol}", recreate=True)
    if container.state != _RUNS:
        yield Difference(service, f"{service} is {container.state}", is_state=True)


def _networks(
    compose: dict[str, Any], settings: dict[str, Any], container: Container, existing: Set[str]
) -> Iterator[Difference]:
    service, used = container.service, settings.get("networks")
    if settings.get("network_mode") or not used:
        return
    declared = compose.get("networks") or {}
    wanted = {str((declared.get(key) or {}).get("name") or key) for key in used}
    for name in sorted(wanted - container.networks.keys()):
        yield Difference(service, f"{service} is not on the network {name}", recreate=True)
    for name in sorted(container.networks.keys() - wanted):
        phrase = f"{service} is on the network {name}, which is not in the release"
        yield Difference(service, phrase, recreate=True)
    for name, network in sorted(container.networks.items()):
        # A container that was never started has no id yet.
        if name in wanted and network and network not in existing:
            phrase = f"{service} is on a network {name} that no longer exists"
            yield Difference(service, phrase, recreate=True)


def _mounts(compose: dict[str, Any], settings: dict[str, Any], container: Container) -> Iterator[Difference]:
    declared = compose.get("volumes") or {}
    for mount in settings.get("volumes") or []:
        source, target = str(mount.get("source") or ""), str(mount.get("target") or "")
        match mount.get("type"):
            case "bind" if not (mount.get("bind") or {}).get("create_host_path", True):
                # Ours. Of the device's own paths Docker may name another that leads to the same place.
                pass
            case "volume" if source:
                source = str((declared.get(source) or {}).get("name") or source)
            case _:
                continue
        if container.mounts.get(target.rstrip("/") or "/") != source:
            phrase = f"{container.service} does not mount what the release says at {target}"
            yield Difference(container.service, phrase, recreate=True)
