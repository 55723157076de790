"""What the engine needs of a container runtime, in the engine's words."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from typing import Any, Protocol

from pydantic import Field

from fleet_agent.model import ServiceState

#: Called with a phrase while something takes long.
OnProgress = Callable[[str], None]


@dataclass(frozen=True)
class ComposeStack:
    """A resolved Compose file on disk and the constant project it runs as.

    `done` are services that ended well and must not run again: starting leaves them alone.
    """

    project: str
    file: Path
    done: tuple[str, ...] = ()


class Container(ServiceState):
    """A service's container as the engine sees it; reports carry only the ServiceState of it."""

    id: str
    created_at: datetime | None = None
    name: str = ""
    #: Among the containers of its service, from 1.
    number: int = 1
    #: Compose's hash of the configuration that it was made from.
    config_hash: str = ""
    #: The id of each network that it is on, by the network's name; empty until it was started.
    networks: dict[str, str] = Field(default_factory=dict)
    #: (port, protocol) on this machine that it was made to publish.
    ports: tuple[tuple[int, str], ...] = ()
    #: What it mounts: path or volume by where it is in the container.
    mounts: dict[str, str] = Field(default_factory=dict)


@dataclass(frozen=True)
class VolumeFacts:
    driver: str
    options: Mapping[str, str]


@dataclass(frozen=True)
class HostFacts:
    """What Docker on this machine has: networks by name and id, volumes. No platform: any."""

    platform: str
    networks: frozenset[str]
    volumes: Mapping[str, VolumeFacts]


@dataclass(frozen=True)
class LogLine:
    service: str
    text: str
    at: datetime | None = None


@dataclass(frozen=True)
class CommandResult:
    exit_code: int
    output: str


class Runtime(Protocol):
    """All calls block, are limited in time and raise ContainerError only.

    `docker_unavailable` is always retryable: nothing is known about the containers then.
    """

    #: `docker` or `simulated`.
    name: str
    #: Whether a network probe from this machine reaches the services.
    reachable: bool

    def config(self, folder: Path, environment: Mapping[str, str], project: str) -> dict[str, Any]:
        """The folder's compose.yaml with every value filled in. Raises ContainerError (`compose_invalid`)."""

    def missing_images(self, images: Sequence[str], *, thoroughly: bool = False) -> list[str]:
        """Those of `images` that are not on this machine, or damaged: `thoroughly` finds every lost layer."""

    def pull(self, image: str, on_progress: OnProgress) -> None:
        """Bring one image here; replace it if it is damaged.

        Raises ContainerError: `image_missing`, `registry_unreachable`, `image_damaged`, `disk_full`.
        """

    def up(self, stack: ComposeStack) -> None:
        """Make `stack` run: start what is missing or changed, remove what it lacks, touch nothing else."""

    def hashes(self, stack: ComposeStack) -> dict[str, str]:
        """By service, the `config_hash` that its containers get or have if nothing about it changed."""

    def recreate(self, stack: ComposeStack, services: Sequence[str]) -> None:
        """Replace every container of these services, whatever it looks like; their volumes stay."""

    def remove(self, containers: Sequence[str]) -> None:
        """Stop and remove these containers, by id: `up` makes anew what is then missing, and only that."""

    def down(self, project: str) -> None:
        """Stop and remove the project's containers, if there are any; volumes stay."""

    def restart(self, stack: ComposeStack) -> None:
        """Stop and start every service of `stack` that is not done."""

    def restarted(self) -> bool:
        """Whether Docker itself was restarted since the last `up`, or since this last returned true.

        What it ran may have ended with it, through no fault of its own, and may not come back by itself.
        """

    def services(self, project: str) -> tuple[Container, ...]:
        """Every container of the project, by service name."""

    def networks(self) -> frozenset[str]:
        """The ids of all networks on this machine."""

    def host(self) -> HostFacts:
        """What is on this machine that a release may need."""

    def belongings(self, project: str) -> list[str]:
        """What is left of a project, each as a phrase: containers, volumes, networks."""

    def logs(self, project: str, *, lines: int, since: datetime | None = None) -> list[LogLine]:
        """The last lines of each container of the project."""

    def last_exits(self, project: str) -> dict[str, int]:
        """Exit code by container id of those that ended, even if they were started again since."""

    def execute(self, project: str, service: str, command: Sequence[str], timeout_s: float) -> CommandResult:
        """Run a command inside a service's container."""

    def published_ports(self, project: str) -> set[tuple[int, str]]:
        """(port, protocol) on this machine that the project uses now."""

    def foreign_images(self, images: Sequence[str]) -> dict[str, str]:
        """Those of `images` that this machine cannot run, with their platform. All of them are here."""

    def remove_image(self, image: str) -> bool:
        """Remove an image that nothing uses; False if it stays."""
