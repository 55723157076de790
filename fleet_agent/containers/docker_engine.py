"""The Docker engine through its own API: what runs, its logs, its images."""

from __future__ import annotations

import contextlib
import re
import time
from collections.abc import Iterator, Sequence
from datetime import datetime
from typing import TYPE_CHECKING, Any

from loguru import logger

from fleet_agent.containers import docker_errors, docker_exec, docker_images
from fleet_agent.containers.base import CommandResult, Container, HostFacts, LogLine, OnProgress, VolumeFacts

if TYPE_CHECKING:
    from docker import DockerClient
    from docker.models.containers import Container as DockerContainer

#: Labels by which Compose marks its containers.
_PROJECT, _SERVICE = "com.docker.compose.project", "com.docker.compose.service"
_NUMBER, _CONFIG_HASH = "com.docker.compose.container-number", "com.docker.compose.config-hash"


class DockerEngine:
    """Looks at containers, handles images, runs commands inside. Limits are seconds."""

    def __init__(self, *, look_limit_s: float, change_limit_s: float, pull_limit_s: float) -> None:
        self._look_limit_s = look_limit_s
        self._change_limit_s = change_limit_s
        self._pull_limit_s = pull_limit_s

    def missing_images(self, images: Sequence[str], *, thoroughly: bool) -> list[str]:
        with self._client() as client:
            return docker_images.missing(client, images, thoroughly=thoroughly)

    def pull(self, image: str, on_progress: OnProgress) -> None:
        with self._client(self._pull_limit_s, pass_refusals=True) as client:
            docker_images.pull(client, image, on_progress)

    def foreign_images(self, images: Sequence[str]) -> dict[str, str]:
        with self._client() as client:
            return docker_images.foreign(client, images)

    def remove_image(self, image: str) -> bool:
        from docker.errors import APIError, ImageNotFound

        with self._client() as client:
            try:
                client.images.remove(image)
            except ImageNotFound:
                return False
            except APIError as error:
                logger.debug("cannot remove {image}: {why}", image=image, why=error.explanation)
                return False
        return True

    def remove(self, containers: Sequence[str]) -> None:
        from docker.errors import NotFound

        with self._client(self._change_limit_s) as client:
            for container in containers:
                try:
                    found = client.containers.get(container)
                    found.stop()
                    found.remove(force=True)
                except NotFound:
                    continue

    def services(self, project: str) -> tuple[Container, ...]:
        with self._client() as client:
            found = [_state(container) for container in _containers(client, project)]
        return tuple(sorted(found, key=lambda container: (container.service, container.number)))

    def networks(self) -> frozenset[str]:
        with self._client() as client:
            return frozenset(str(network.id) for network in client.networks.list())

    def host(self) -> HostFacts:
        with self._client() as client:
            version = client.version()
            networks = client.networks.list()
            volumes = client.volumes.list()
        return HostFacts(
            platform=f"{version.get('Os', 'linux')}/{version['Arch']}" if version.get("Arch") else "",
            networks=frozenset(str(key) for one in networks for key in (one.name, one.id)),
            volumes={
                str(one.name): VolumeFacts(str(one.attrs.get("Driver")), one.attrs.get("Options") or {})
                for one in volumes
            },
        )

    def belongings(self, project: str) -> list[str]:
        label: dict[str, Any] = {"label": f"{_PROJECT}={project}"}
        with self._client() as client:
            containers = client.containers.list(all=True, filters=label, ignore_removed=True)
            volumes = client.volumes.list(filters=label)
            networks = client.networks.list(filters=label)
        return [
            *sorted(f"the container {one.name}" for one in containers),
            *sorted(f"the volume {one.name}" for one in volumes),
            *sorted(f"the network {one.name}" for one in networks),
        ]

    def logs(self, project: str, *, lines: int, since: datetime | None = None) -> list[LogLine]:
        from docker.errors import NotFound

        options: dict[str, Any] = {"tail": lines, "timestamps": True}
        if since is not None:
            options["since"] = since.timestamp()
        found = []
        with self._client() as client:
            for container in _containers(client, project):
                try:
                    raw = container.logs(**options)
                except NotFound:
                    # Replaced since we listed what there is.
                    continue
                service = str(container.labels.get(_SERVICE, container.name))
                found += [_log_line(service, text) for text in raw.decode(errors="replace").splitlines()]
        return found

    def last_exits(self, project: str) -> dict[str, int]:
        """From the few hundred events that Docker keeps: once restarted, a container has no exit code."""
        label = f"{_PROJECT}={project}"
        # Up to now: without an end the stream would not stop, and whole seconds would leave out the last.
        until: Any = f"{time.time():.6f}"
        with self._client() as client:
            events = client.events(
                since=0, until=until, decode=True, filters={"event": "die", "label": label}
            )
            return {e["Actor"]["ID"]: int(e["Actor"]["Attributes"]["exitCode"]) for e in events}

    def execute(self, project: str, service: str, command: Sequence[str], timeout_s: float) -> CommandResult:
        with self._client() as client:
            for container in _containers(client, project):
                if container.labels.get(_SERVICE) == service:
                    return docker_exec.run(client, str(container.id), command, timeout_s)
        return CommandResult(125, f"service {service} has no container")

    def published_ports(self, project: str) -> set[tuple[int, str]]:
        held = set()
        with self._client() as client:
            for container in _containers(client, project):
                for inside, outside in (container.ports or {}).items():
                    protocol = inside.partition("/")[2] or "tcp"
                    held |= {(int(binding["HostPort"]), protocol) for binding in outside or []}
        return held

    @contextlib.contextmanager
    def _client(self, limit_s: float | None = None, *, pass_refusals: bool = False) -> Iterator[DockerClient]:
        with docker_errors.translated(pass_refusals=pass_refusals):
            import docker

            with contextlib.closing(
                docker.from_env(timeout=int(max(1, limit_s or self._look_limit_s)))
            ) as client:
                yield client


def _containers(client: DockerClient, project: str) -> list[DockerContainer]:
    # One that vanishes while we list is not there: `ignore_removed`.
    return client.containers.list(
        all=True,
        filters={"label": [f"{_PROJECT}={project}", "com.docker.compose.oneoff=False"]},
        ignore_removed=True,
    )


def _state(container: DockerContainer) -> Container:
    attributes = container.attrs
    state = attributes["State"]
    running = state["Status"] in ("running", "restarting", "paused")
    return Container(
        id=str(container.id),
        created_at=_moment(attributes.get("Created")),
        service=str(container.labels.get(_SERVICE, container.name)),
        image=attributes["Config"]["Image"],
        state=state["Status"],
        health=(state.get("Health") or {}).get("Status"),
        restarts=attributes.get("RestartCount", 0),
        exit_code=None if running else state.get("ExitCode"),
        started_at=_moment(state.get("StartedAt")),
        name=str(container.name),
        number=_number(container.labels.get(_NUMBER)),
        config_hash=str(container.labels.get(_CONFIG_HASH, "")),
        networks={
            name: str(network.get("NetworkID") or "")
            for name, network in (attributes["NetworkSettings"].get("Networks") or {}).items()
        },
        ports=tuple(sorted(_bound_ports(attributes))),
        mounts={
            mount["Destination"]: mount.get("Name") or mount.get("Source") or ""
            for mount in attributes.get("Mounts") or []
        },
    )


def _number(label: str | None) -> int:
    return int(label) if label and label.isdigit() else 1


def _bound_ports(attributes: dict[str, Any]) -> Iterator[tuple[int, str]]:
    for inside, outside in (attributes["HostConfig"].get("PortBindings") or {}).items():
        for binding in outside or []:
            if str(binding.get("HostPort") or "").isdigit():
                yield int(binding["HostPort"]), inside.partition("/")[2] or "tcp"


def _moment(text: str | None) -> datetime | None:
    """Docker's nanoseconds, cut to microseconds; its zero time means none."""
    if not text or text.startswith("0001-"):
        return None
    try:
        return datetime.fromisoformat(re.sub(r"(\.\d{6})\d*", r"\1", text).replace("Z", "+00:00"))
    except ValueError:
        return None


def _log_line(service: str, text: str) -> LogLine:
    stamp, _, rest = text.partition(" ")
    at = _moment(stamp)
    return LogLine(service, rest, at) if at is not None else LogLine(service, text)
