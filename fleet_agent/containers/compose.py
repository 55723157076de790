"""Docker for real: the Compose program to change what runs, the engine's API to look."""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from datetime import datetime
from pathlib import Path
from typing import Any

from fleet_agent.containers.base import (
    CommandResult,
    ComposeStack,
    Container,
    HostFacts,
    LogLine,
    OnProgress,
)
from fleet_agent.containers.compose_cli import ComposeCli
from fleet_agent.containers.docker_connection import DockerConnection
from fleet_agent.containers.docker_engine import DockerEngine
from fleet_agent.paths import DEFAULT_ROOT, Paths

#: Of the agent in its usual place.
_HOME = Paths(DEFAULT_ROOT).compose_home


class ComposeRuntime:
    """`program` is the Compose command, `home` its home and cache; limits are seconds.

    `up_limit_s` must leave room for a container that ignores SIGTERM until its grace period ends.
    """

    name = "docker"
    reachable = True

    def __init__(
        self,
        program: Sequence[str] | None = None,
        *,
        home: Path = _HOME,
        look_limit_s: float = 20,
        up_limit_s: float = 300,
        pull_limit_s: float = 3600,
    ) -> None:
        self._compose = ComposeCli(program, home=home, look_limit_s=look_limit_s, up_limit_s=up_limit_s)
        self._docker = DockerEngine(
            look_limit_s=look_limit_s, change_limit_s=up_limit_s, pull_limit_s=pull_limit_s
        )
        self._connection = DockerConnection(os.environ.get("DOCKER_HOST") or "unix:///var/run/docker.sock")

    def config(self, folder: Path, environment: Mapping[str, str], project: str) -> dict[str, Any]:
        return self._compose.config(folder, environment, project)

    def up(self, stack: ComposeStack) -> None:
        self._connection.open()
        self._compose.up(stack)

    def hashes(self, stack: ComposeStack) -> dict[str, str]:
        return self._compose.hashes(stack)

    def recreate(self, stack: ComposeStack, services: Sequence[str]) -> None:
        self._connection.open()
        self._compose.recreate(stack, services)

    def remove(self, containers: Sequence[str]) -> None:
        self._docker.remove(containers)

    def down(self, project: str) -> None:
        self._compose.down(project)

    def restart(self, stack: ComposeStack) -> None:
        self._compose.restart(stack)

    def restarted(self) -> bool:
        return self._connection.was_replaced()

    def missing_images(self, images: Sequence[str], *, thoroughly: bool = False) -> list[str]:
        return self._docker.missing_images(images, thoroughly=thoroughly)

    def pull(self, image: str, on_progress: OnProgress) -> None:
        self._docker.pull(image, on_progress)

    def foreign_images(self, images: Sequence[str]) -> dict[str, str]:
        return self._docker.foreign_images(images)

    def remove_image(self, image: str) -> bool:
        return self._docker.remove_image(image)

    def services(self, project: str) -> tuple[Container, ...]:
        return self._docker.services(project)

    def networks(self) -> frozenset[str]:
        return self._docker.networks()

    def host(self) -> HostFacts:
        return self._docker.host()

    def belongings(self, project: str) -> list[str]:
        return self._docker.belongings(project)

    def logs(self, project: str, *, lines: int, since: datetime | None = None) -> list[LogLine]:
        return self._docker.logs(project, lines=lines, since=since)

    def last_exits(self, project: str) -> dict[str, int]:
        return self._docker.last_exits(project)

    def execute(self, project: str, service: str, command: Sequence[str], timeout_s: float) -> CommandResult:
        return self._docker.execute(project, service, command, timeout_s)

    def published_ports(self, project: str) -> set[tuple[int, str]]:
        return self._docker.published_ports(project)
