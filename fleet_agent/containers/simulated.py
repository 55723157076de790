"""Containers that exist only in a file, for fleets of thousands and for machines without Docker.

A service's label `fleet.simulate` says how it behaves: `unhealthy`, `crash` (exits at once), `done` (the
same, with exit code 0), `crash-later=N` (exits at the N-th look), `slow=N` (healthy from the N-th look),
`no-start` (Compose fails). Time is counted in looks, so a simulation needs no waiting. State survives the
agent, as Docker's does, in `state/simulated.json`.
"""

from __future__ import annotations

import hashlib
import json
import os
from collections.abc import Mapping, Sequence
from dataclasses import replace
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import yaml
from pydantic import BaseModel, Field
from pydantic import ValidationError as PydanticValidationError

from fleet_agent import errors
from fleet_agent.containers.base import (
    CommandResult,
    ComposeStack,
    Container,
    HostFacts,
    LogLine,
    OnProgress,
    VolumeFacts,
)
from fleet_agent.containers.compose_file import replicas
from fleet_agent.errors import ContainerError, FleetError, Kind, docker_unavailable
from fleet_agent.roles import variables
from fleet_agent.roles.references import replaced

LABEL = "fleet.simulate"


class SimulatedContainer(BaseModel):
    """One simulated container. `looks` counts the looks since its start."""

    service: str
    image: str
    config_hash: str
    behavior: str = ""
    has_check: bool = False
    started_at: datetime
    id: int
    looks: int = 0
    ports: list[tuple[int, str]] = Field(default_factory=list)
    mounts: dict[str, str] = Field(default_factory=dict)
    name: str = ""
    number: int = 1
    #: The id of each network that it is on, by name.
    networks: dict[str, str] = Field(default_factory=dict)
    #: By Compose or by hand, not by what it does itself.
    stopped: bool = False

    @staticmethod
    def fingerprint(service: dict[str, Any]) -> str:
        """Changes with anything about a service, like Compose's config hash."""
        return hashlib.sha256(json.dumps(service, sort_keys=True).encode()).hexdigest()


class SimulatedNetwork(BaseModel):
    id: str
    config_hash: str = ""


class World(BaseModel):
    """What a Docker engine would know. The registry does not have `absent_images`.

    `damaged_images` are here: only a thorough look finds that, and no container can be made from them.
    """

    containers: dict[str, dict[str, SimulatedContainer]] = Field(default_factory=dict)
    images: set[str] = Field(default_factory=set)
    absent_images: set[str] = Field(default_factory=set)
    damaged_images: set[str] = Field(default_factory=set)
    networks: dict[str, SimulatedNetwork] = Field(default_factory=dict)
    next_id: int = 1
    down: bool = False


class SimulatedRuntime:
    name = "simulated"
    reachable = False

    def __init__(self, file: Path) -> None:
        self._file = file

    def config(self, folder: Path, environment: Mapping[str, str], project: str) -> dict[str, Any]:
        """Only what the simulation needs of Compose: YAML, anchors, `${NAME}`, absolute bind mounts."""
        try:
            raw = yaml.safe_load((folder / "compose.yaml").read_text())
            if not isinstance(raw, dict) or not isinstance(raw.get("services"), dict):
                raise errors.compose_invalid("it has no services", error=ContainerError)
            settled = _settle({k: v for k, v in raw.items() if not str(k).startswith("x-")}, environment)
            settled["services"] = {
                name: _normal(service, folder) for name, service in settled["services"].items()
            }
        except (OSError, ValueError, TypeError, AttributeError, yaml.YAMLError) as error:
            raise errors.compose_invalid(error, error=ContainerError) from error
        except FleetError as error:
            raise errors.compose_invalid(error.message.rstrip("."), error=ContainerError) from error
        return {"name": project, **settled, **_networks(settled, project)}

    def up(self, stack: ComposeStack) -> None:
        compose: dict[str, Any] = json.loads(stack.file.read_text())
        self._look()
        self._make_networks(stack.project, compose)
        wanted = {}
        for name, service in compose["services"].items():
            for number in range(1, replicas(service) + 1):
                key = name if number == 1 else f"{name}#{number}"
                wanted[key] = name
                if name in stack.done:
                    continue
                # One write a container: a kill in between leaves some started, as with the real thing.
                self._start(stack.project, key, number, name, compose)
        with _Changing(self) as world:
            running = world.containers.get(stack.project, {})
            world.containers[stack.project] = {n: c for n, c in running.items() if n in wanted}

    def hashes(self, stack: ComposeStack) -> dict[str, str]:
        services = json.loads(stack.file.read_text())["services"]
        return {name: SimulatedContainer.fingerprint(service) for name, service in services.items()}

    def recreate(self, stack: ComposeStack, services: Sequence[str]) -> None:
        with _Changing(self) as world:
            running = world.containers.get(stack.project, {})
            world.containers[stack.project] = {n: c for n, c in running.items() if c.service not in services}
        others = json.loads(stack.file.read_text())["services"].keys() - set(services)
        SimulatedRuntime.up(self, replace(stack, done=tuple(sorted(others))))

    def remove(self, containers: Sequence[str]) -> None:
        with _Changing(self) as world:
            for project, running in world.containers.items():
                world.containers[project] = {
                    name: one for name, one in running.items() if _state(one).id not in containers
                }

    def _make_networks(self, project: str, compose: dict[str, Any]) -> None:
        """As Compose does: containers stop and leave a network that changed; then it is replaced.

        It does not put them on the new one unless they are created anew: started again, they have none.
        """
        declared = compose.get("networks") or {}
        services = compose["services"].values()
        for key in sorted({key for service in services for key in service.get("networks", {})}):
            entry = declared.get(key) or {}
            name, fingerprint = str(entry.get("name") or key), SimulatedContainer.fingerprint(entry)
            known = self._look().networks.get(name)
            if entry.get("external"):
                if known is None:
                    sentence = f"Compose could not start the services: network {name} not found."
                    raise ContainerError(Kind.COMPOSE_FAILED, sentence)
                continue
            if known is not None and known.config_hash == fingerprint:
                continue
            if known is not None:
                self._remove_network(project, name)
            with _Changing(self) as world:
                world.networks[name] = SimulatedNetwork(id=f"n{world.next_id}", config_hash=fingerprint)
                world.next_id += 1

    def _remove_network(self, project: str, name: str) -> None:
        with _Changing(self) as world:
            for container in world.containers.get(project, {}).values():
                # One that has ended stays as it ended.
                if container.networks.pop(name, None) is not None and _state(container).state == "running":
                    container.stopped = True
        with _Changing(self) as world:
            del world.networks[name]

    def down(self, project: str) -> None:
        with _Changing(self) as world:
            world.containers.pop(project, None)
            for name in [name for name in world.networks if name.startswith(f"{project}_")]:
                del world.networks[name]

    def networks(self) -> frozenset[str]:
        return frozenset(network.id for network in self._look().networks.values())

    def restart(self, stack: ComposeStack) -> None:
        with _Changing(self) as world:
            for container in world.containers.get(stack.project, {}).values():
                if container.service not in stack.done:
                    container.started_at, container.looks, container.stopped = datetime.now(UTC), 0, False

    def missing_images(self, images: Sequence[str], *, thoroughly: bool = False) -> list[str]:
        world = self._look()
        damaged = world.damaged_images if thoroughly else set()
        return [image for image in images if image not in world.images or image in damaged]

    def pull(self, image: str, on_progress: OnProgress) -> None:
        with _Changing(self) as world:
            if image in world.absent_images:
                raise ContainerError(
                    Kind.IMAGE_MISSING, f"{image} is not on this device and cannot be pulled.", retryable=True
                )
            on_progress(f"{image}: simulated")
            world.images.add(image)
            world.damaged_images.discard(image)

    def foreign_images(self, images: Sequence[str]) -> dict[str, str]:
        del images
        return {}

    def remove_image(self, image: str) -> bool:
        with _Changing(self) as world:
            used = any(c.image == image for p in world.containers.values() for c in p.values())
            if used or image not in world.images:
                return False
            world.images.discard(image)
            return True

    def restarted(self) -> bool:
        return False

    def services(self, project: str) -> tuple[Container, ...]:
        if not self._look().containers.get(project):
            return ()
        with _Changing(self) as world:
            states = []
            for container in world.containers.get(project, {}).values():
                # A simulation at rest is not written again and again: an idle device writes nothing.
                if container.looks < _count(container.behavior):
                    container.looks += 1
                states.append(_state(container))
        return tuple(sorted(states, key=lambda state: (state.service, state.number)))

    def host(self) -> HostFacts:
        """Of any platform: a simulation runs what another machine will."""
        return HostFacts(platform="", networks=frozenset(self._look().networks), volumes=_AnyVolume())

    def belongings(self, project: str) -> list[str]:
        return [f"the container {c.name}" for c in self._look().containers.get(project, {}).values()]

    def logs(self, project: str, *, lines: int, since: datetime | None = None) -> list[LogLine]:
        del lines, since
        return [
            LogLine(container.service, f"simulated {container.behavior}")
            for container in self._look().containers.get(project, {}).values()
            if container.behavior
        ]

    def last_exits(self, project: str) -> dict[str, int]:
        found = [_state(container) for container in self._look().containers.get(project, {}).values()]
        return {container.id: container.exit_code for container in found if container.exit_code is not None}

    def execute(self, project: str, service: str, command: Sequence[str], timeout_s: float) -> CommandResult:
        del command, timeout_s
        container = self._look().containers.get(project, {}).get(service)
        if container is None:
            return CommandResult(125, f"service {service} has no container")
        well = _state(container).health in (None, "healthy")
        return CommandResult(0 if well else 1, "simulated")

    def published_ports(self, project: str) -> set[tuple[int, str]]:
        return {port for c in self._look().containers.get(project, {}).values() for port in c.ports}

    def _start(self, project: str, key: str, number: int, name: str, compose: dict[str, Any]) -> None:
        service = compose["services"][name]
        if _behavior(service) == "no-start":
            raise ContainerError(
                Kind.COMPOSE_FAILED,
                f"Compose could not start the services: {name} is simulated to fail.",
            )
        with _Changing(self) as world:
            running = world.containers.setdefault(project, {})
            if not _kept(
                running.get(key), SimulatedContainer.fingerprint(service), _networks_of(name, compose)
            ):
                running[key] = _created(world, project, number, name, compose)

    def _look(self) -> World:
        try:
            world = World.model_validate_json(self._file.read_bytes())
        except FileNotFoundError:
            return World()
        except PydanticValidationError:
            # As if Docker's data folder had been wiped: nothing runs, nothing is stored.
            return World()
        if world.down:
            raise docker_unavailable()
        return world


class _AnyVolume(dict[str, VolumeFacts]):
    """Volumes are not simulated: any external one is there, and none differs."""

    def __contains__(self, name: object) -> bool:
        return True


class _Changing:
    """Read the world, change it, write it if it changed: one atomic step, like one call to Docker."""

    def __init__(self, runtime: SimulatedRuntime) -> None:
        self._runtime = runtime

    def __enter__(self) -> World:
        self._world = self._runtime._look()
        self._before = self._world.model_dump_json()
        return self._world

    def __exit__(self, kind: type[BaseException] | None, *_: object) -> None:
        after = self._world.model_dump_json()
        if kind is None and after != self._before:
            file = self._runtime._file
            file.parent.mkdir(parents=True, exist_ok=True)
            # Not synced: this stands for the world outside the agent, which has its own disk.
            temporary = file.with_suffix(".new")
            temporary.write_text(after)
            temporary.replace(file)


def _networks_of(name: str, compose: dict[str, Any]) -> list[str]:
    declared = compose.get("networks") or {}
    wanted = compose["services"][name].get("networks", {})
    return [str((declared.get(key) or {}).get("name") or key) for key in wanted]


def _kept(known: SimulatedContainer | None, config_hash: str, networks: Sequence[str]) -> bool:
    """Whether Compose leaves this container as it is, or only starts it again."""
    if known is None or known.config_hash != config_hash:
        return False
    if known.stopped:
        known.started_at, known.looks, known.stopped = datetime.now(UTC), 0, False
        return True
    return _state(known).state == "running" and set(networks) <= known.networks.keys()


def _created(
    world: World, project: str, number: int, name: str, compose: dict[str, Any]
) -> SimulatedContainer:
    service = compose["services"][name]
    if service["image"] not in world.images:
        raise ContainerError(Kind.IMAGE_MISSING, f"{service['image']} is not on this device.")
    if service["image"] in world.damaged_images:
        raise ContainerError(Kind.COMPOSE_FAILED, f"Cannot create {name}: a layer is missing.")
    container = SimulatedContainer(
        service=name,
        name=f"{project}-{name}-{number}",
        number=number,
        networks={one: world.networks[one].id for one in _networks_of(name, compose)},
        image=service["image"],
        config_hash=SimulatedContainer.fingerprint(service),
        behavior=_behavior(service),
        has_check="healthcheck" in service,
        started_at=datetime.now(UTC),
        id=world.next_id,
        mounts={
            str(mount.get("target")): _volume(compose, str(mount.get("source")))
            for mount in service.get("volumes", [])
        },
        ports=[
            (int(port["published"]), port.get("protocol", "tcp"))
            for port in service.get("ports", [])
            if str(port.get("published", "")).isdigit()
        ],
    )
    world.next_id += 1
    return container


def _state(container: SimulatedContainer) -> Container:
    kind, count = container.behavior.partition("=")[0], _count(container.behavior)
    exited = (
        container.stopped or kind in ("crash", "done") or (kind == "crash-later" and container.looks >= count)
    )
    health = None
    if container.has_check or kind in ("unhealthy", "slow"):
        health = "healthy"
        if kind == "unhealthy":
            health = "unhealthy"
        elif kind == "slow" and container.looks < count:
            health = "starting"
    return Container(
        id=str(container.id),
        created_at=container.started_at,
        service=container.service,
        image=container.image,
        state="exited" if exited else "running",
        health=None if exited else health,
        exit_code=int(kind != "done" or container.stopped) if exited else None,
        started_at=container.started_at,
        mounts=container.mounts,
        name=container.name,
        number=container.number,
        config_hash=container.config_hash,
        networks=container.networks,
        ports=tuple(sorted(container.ports)),
    )


def _volume(compose: dict[str, Any], source: str) -> str:
    """The full name of a volume; a path is its own."""
    return str(((compose.get("volumes") or {}).get(source) or {}).get("name") or source)


def _count(behavior: str) -> int:
    """After how many looks a behavior shows; 0 if it does not change."""
    kind, _, number = behavior.partition("=")
    if kind not in ("slow", "crash-later"):
        return 0
    return int(number) if number.isdigit() else 3


def _behavior(service: dict[str, Any]) -> str:
    labels = service.get("labels") or {}
    if isinstance(labels, list):
        labels = dict(str(label).partition("=")[::2] for label in labels)
    return str(labels.get(LABEL, ""))


def _settle(value: Any, environment: Mapping[str, str]) -> Any:
    if isinstance(value, dict):
        return {str(k): _settle(v, environment) for k, v in value.items()}
    if isinstance(value, list):
        return [_settle(v, environment) for v in value]
    if not isinstance(value, str):
        return value
    # `${NAME:?message}`: a name without a value is refused anyway.
    plain = replaced(value, lambda one: f"${{{one.name}}}" if one.rest.lstrip(":")[:1] == "?" else one.text)
    return variables.interpolate(plain, environment)


def _normal(service: dict[str, Any], folder: Path) -> dict[str, Any]:
    """Short forms of ports and bind mounts as Compose would spell them out."""
    result = dict(service)
    mounts = [_mount(mount, folder) for mount in service.get("volumes") or []]
    if mounts:
        result["volumes"] = mounts
    ports = []
    for port in service.get("ports") or []:
        if isinstance(port, dict):
            ports.append(port)
            continue
        address, _, target = str(port).rpartition(":")
        host, _, published = address.rpartition(":")
        inside, _, protocol = target.partition("/")
        ports.append(
            {"target": int(inside), "published": published, "host_ip": host, "protocol": protocol or "tcp"}
        )
    if ports:
        result["ports"] = ports
    return result


def _networks(settled: dict[str, Any], project: str) -> dict[str, Any]:
    """Services on the default network unless they say otherwise, and every network by its full name."""
    for service in settled["services"].values():
        if "network_mode" not in service:
            used = service.get("networks") or ["default"]
            service["networks"] = used if isinstance(used, dict) else dict.fromkeys(used)
    declared = {"default": None, **(settled.get("networks") or {})}
    return {
        "networks": {
            key: {"name": key if (entry or {}).get("external") else f"{project}_{key}", **(entry or {})}
            for key, entry in declared.items()
        }
    }


def _mount(mount: Any, folder: Path) -> dict[str, Any]:
    if isinstance(mount, dict):
        return mount
    source, target, options, *_ = [*str(mount).split(":"), "", ""]
    bound = source.startswith((".", "/"))
    result: dict[str, Any] = {"type": "bind" if bound else "volume", "source": source, "target": target}
    if bound:
        # Not resolved: like Compose, and a link is the content store's to follow.
        result["source"] = os.path.normpath(folder / source)
    if "ro" in options.split(","):
        result["read_only"] = True
    return result
