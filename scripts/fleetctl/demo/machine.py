"""What this machine has to offer to a demo: an engine for containers, and free ports."""

from __future__ import annotations

import shutil
import socket
import subprocess
from contextlib import ExitStack

from fleetctl.demo.image import ensure_busybox


def free_ports(count: int) -> list[int]:
    """Ports of loopback that nobody listens on now."""
    with ExitStack() as held:
        sockets = [held.enter_context(socket.socket()) for _ in range(count)]
        for one in sockets:
            one.bind(("127.0.0.1", 0))
        return [one.getsockname()[1] for one in sockets]


def docker_missing() -> str | None:
    """Why real containers are not used, or None."""
    if shutil.which("docker") is None:
        return "no docker client"
    try:
        version = subprocess.run(["docker", "version"], capture_output=True, timeout=20, check=False)
    except subprocess.TimeoutExpired:
        return "the Docker engine does not answer"
    return "no Docker engine answers" if version.returncode else ensure_busybox()
