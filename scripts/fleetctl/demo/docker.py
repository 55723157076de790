"""What this machine has to offer to a demo: an engine for containers."""

from __future__ import annotations

import shutil
import subprocess

from fleetctl.demo.busybox_image import ensure_busybox


def docker_missing() -> str | None:
    """Why real containers are not used, or None."""
    if shutil.which("docker") is None:
        return "no docker client"
    try:
        version = subprocess.run(["docker", "version"], capture_output=True, timeout=20, check=False)
    except subprocess.TimeoutExpired:
        return "the Docker engine does not answer"
    return "no Docker engine answers" if version.returncode else ensure_busybox()
