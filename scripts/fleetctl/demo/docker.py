"""The demo's use of Docker: whether it is there, and leaving nothing behind."""

from __future__ import annotations

import shutil
import subprocess

from fleetctl.demo.busybox_image import ensure_busybox


def docker_missing() -> str | None:
    """Why real containers are not used, or None."""
    if shutil.which("docker") is None:
        return "Docker is not installed"
    try:
        version = subprocess.run(["docker", "version"], capture_output=True, timeout=20, check=False)
    except subprocess.TimeoutExpired:
        return "the Docker engine does not respond"
    return "no Docker engine responds" if version.returncode else ensure_busybox()


def remove_project(project: str) -> None:
    """Remove every container and network of one Compose project of the demo, and of its safe mode."""
    for name in (project, f"{project}-safe"):
        label = f"label=com.docker.compose.project={name}"
        for kind, remove in (("ps -aq", "rm -f"), ("network ls -q", "network rm")):
            found = subprocess.run(
                ["docker", *kind.split(), "--filter", label], capture_output=True, text=True, check=False
            ).stdout.split()
            if found:
                subprocess.run(["docker", *remove.split(), *found], capture_output=True, check=False)
