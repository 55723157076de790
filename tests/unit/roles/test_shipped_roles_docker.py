"""The roles that we ship, on a real engine: they serve what they say, and stop at once."""

from __future__ import annotations

import json
import os
import subprocess
import time
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from fleet_agent.containers.compose_program import find_compose
from fleetctl.stack.ports import free_ports
from tests.support.patience import PATIENCE_S

ROLES = Path(__file__).resolve().parents[3] / "roles"
pytestmark = pytest.mark.docker


@contextmanager
def up(folder: Path, project: str, values: dict[str, str]) -> Iterator[list[str]]:
    """The stack of `folder`, healthy; yields the Compose command to ask more of it."""
    compose = find_compose()
    assert compose is not None
    command = [*compose, "--project-name", project, "--file", str(folder / "compose.yaml")]
    environment = {"PATH": os.environ["PATH"], "HOME": os.environ.get("HOME", "/"), **values}
    try:
        run([*command, "up", "--detach", "--wait", "--wait-timeout", "60"], environment)
        yield command
    finally:
        run([*command, "down", "--timeout", "0"], environment)


def run(command: list[str], environment: dict[str, str] | None = None) -> str:
    done = subprocess.run(
        command, env=environment, capture_output=True, text=True, check=False, timeout=2 * PATIENCE_S
    )
    assert done.returncode == 0, done.stderr
    return done.stdout


def get(port: int, path: str) -> str:
    """The body; a service that was just started is waited for."""
    deadline = time.monotonic() + PATIENCE_S
    while True:
        try:
            with urllib.request.urlopen(f"http://127.0.0.1:{port}{path}", timeout=5) as answer:
                return str(answer.read().decode())
        except OSError:
            if time.monotonic() > deadline:
                raise
            time.sleep(0.1)


def stop(project: str, service: str) -> int:
    """Stop as an update does; the exit code is 137 where it had to be killed after its grace period."""
    name = f"{project}-{service}-1"
    run(["docker", "stop", name])
    return int(run(["docker", "inspect", "--format", "{{.State.ExitCode}}", name]))


def test_the_beacon_serves_its_version_and_the_time_and_stops_when_told() -> None:
    web, clock = free_ports(2)
    values = {"BEACON_PORT": str(web), "BEACON_CLOCK_PORT": str(clock), "FLEET_RELEASE_VERSION": "v42"}
    with up(ROLES / "beacon", "rel-beacon", values):
        assert get(web, "/version") == "v42\n"
        assert "<h1>This device runs</h1>" in get(web, "/")
        assert time.strptime(get(clock, "/time").strip(), "%Y-%m-%dT%H:%M:%SZ")
        # Some engines give a tmpfs its mode only at the first start: a reboot must not end a service.
        run(["docker", "restart", "rel-beacon-web-1", "rel-beacon-clock-1"])
        assert get(web, "/version") == "v42\n"
        assert time.strptime(get(clock, "/time").strip(), "%Y-%m-%dT%H:%M:%SZ")
        assert [stop("rel-beacon", service) for service in ("web", "clock")] == [0, 0]


def test_safe_mode_shows_what_the_agent_writes_without_a_restart(tmp_path: Path) -> None:
    status = tmp_path / "status.json"
    status.write_text(json.dumps({"reason": "first"}))
    tmp_path.chmod(0o755)
    (port,) = free_ports(1)
    values = {
        "SAFE_MODE_PORT": str(port),
        "FLEET_SAFE_MODE_STATE": str(tmp_path),
        "FLEET_DEVICE_NAME": "till 7",
    }
    with up(ROLES / "common" / "safe-mode", "rel-safe", values):
        assert "<h1>Safe mode" in get(port, "/")
        assert get(port, "/name") == "till 7"
        assert json.loads(get(port, "/status.json")) == {"reason": "first"}
        newer = tmp_path / ".new"
        newer.write_text(json.dumps({"reason": "second"}))
        newer.replace(status)
        assert json.loads(get(port, "/status.json")) == {"reason": "second"}
        run(["docker", "restart", "rel-safe-status-1"])
        assert get(port, "/name") == "till 7"
        assert stop("rel-safe", "status") == 0
