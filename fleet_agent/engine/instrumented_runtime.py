"""A runtime whose every call is a named effect, and whose every error is free of secrets."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from datetime import datetime
from pathlib import Path
from typing import Any, TypeVar

from fleet_agent.containers.base import (
    CommandResult,
    ComposeStack,
    Container,
    HostFacts,
    LogLine,
    OnProgress,
    Runtime,
)
from fleet_agent.engine.dependencies import Effects
from fleet_agent.errors import ContainerError, FleetError

T = TypeVar("T")


class InstrumentedRuntime:
    """Delegates to `runtime`. `clean` takes the secrets out of an error: Compose quotes its input."""

    def __init__(self, runtime: Runtime, effects: Effects, clean: Callable[[FleetError], object]) -> None:
        self._runtime, self._effects, self._clean = runtime, effects, clean
        self.name, self.reachable = runtime.name, runtime.reachable

    def config(self, folder: Path, environment: Mapping[str, str], project: str) -> dict[str, Any]:
        return self._perform("compose config", lambda: self._runtime.config(folder, environment, project))

    def missing_images(self, images: Sequence[str], *, thoroughly: bool = False) -> list[str]:
        return self._perform(
            "docker images", lambda: self._runtime.missing_images(images, thoroughly=thoroughly)
        )

    def pull(self, image: str, on_progress: OnProgress) -> None:
        self._perform("docker pull", lambda: self._runtime.pull(image, on_progress))

    def up(self, stack: ComposeStack) -> None:
        self._perform("compose up", lambda: self._runtime.up(stack))

    def hashes(self, stack: ComposeStack) -> dict[str, str]:
        return self._perform("compose hashes", lambda: self._runtime.hashes(stack))

    def recreate(self, stack: ComposeStack, services: Sequence[str]) -> None:
        self._perform("compose recreate", lambda: self._runtime.recreate(stack, services))

    def remove(self, containers: Sequence[str]) -> None:
        self._perform("docker remove", lambda: self._runtime.remove(containers))

    def down(self, project: str) -> None:
        self._perform("compose down", lambda: self._runtime.down(project))

    def restart(self, stack: ComposeStack) -> None:
        self._perform("compose restart", lambda: self._runtime.restart(stack))

    def restarted(self) -> bool:
        # Not an effect: it only notices that a connection has ended.
        return self._runtime.restarted()

    def services(self, project: str) -> tuple[Container, ...]:
        return self._perform("docker list", lambda: self._runtime.services(project))

    def networks(self) -> frozenset[str]:
        return self._perform("docker networks", self._runtime.networks)

    def host(self) -> HostFacts:
        return self._perform("docker info", self._runtime.host)

    def belongings(self, project: str) -> list[str]:
        return self._perform("docker belongings", lambda: self._runtime.belongings(project))

    def logs(self, project: str, *, lines: int, since: datetime | None = None) -> list[LogLine]:
        return self._perform("docker logs", lambda: self._runtime.logs(project, lines=lines, since=since))

    def last_exits(self, project: str) -> dict[str, int]:
        return self._perform("docker events", lambda: self._runtime.last_exits(project))

    def execute(self, project: str, service: str, command: Sequence[str], timeout_s: float) -> CommandResult:
        return self._perform(
            "docker exec", lambda: self._runtime.execute(project, service, command, timeout_s)
        )

    def published_ports(self, project: str) -> set[tuple[int, str]]:
        return self._perform("docker ports", lambda: self._runtime.published_ports(project))

    def foreign_images(self, images: Sequence[str]) -> dict[str, str]:
        return self._perform("docker images", lambda: self._runtime.foreign_images(images))

    def remove_image(self, image: str) -> bool:
        return self._perform("docker rmi", lambda: self._runtime.remove_image(image))

    def _perform(self, name: str, action: Callable[[], T]) -> T:
        try:
            return self._effects.perform(name, action)
        except ContainerError as error:
            self._clean(error)
            raise
