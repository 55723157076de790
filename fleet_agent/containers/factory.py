"""Which runtime a device uses. Chosen once: a device whose Docker is down must not start simulating."""

from __future__ import annotations

import os
import shutil
from pathlib import Path
from typing import Literal

from fleet_agent.containers.base import Runtime
from fleet_agent.paths import Paths

Choice = Literal["docker", "simulated"]


def choose(configured: Literal["docker", "simulated", "auto"], remembered: str | None) -> Choice:
    """`auto` is docker if the machine has a Docker client or socket, even one that does not answer now."""
    if configured != "auto":
        return configured
    if remembered is not None:
        return "docker" if remembered == "docker" else "simulated"
    has_docker = (
        shutil.which("docker") is not None
        or "DOCKER_HOST" in os.environ
        or Path("/var/run/docker.sock").exists()
    )
    return "docker" if has_docker else "simulated"


def make(choice: Choice, paths: Paths, *, compose: Path | None = None) -> Runtime:
    """The runtime itself; imports nothing heavy until it is used."""
    if choice == "simulated":
        from fleet_agent.containers.simulated import SimulatedRuntime

        return SimulatedRuntime(paths.state / "simulated.json")
    from fleet_agent.containers.compose import ComposeRuntime

    return ComposeRuntime([str(compose)] if compose else None, home=paths.compose_home)
