"""A machine with a real systemd and the agent installed on it by its own command, enrolled and running."""

from __future__ import annotations

import importlib.util
import json
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import psycopg
import pytest
from psycopg.rows import dict_row

from fleet_agent.host.systemd import SERVICE
from fleetctl.demo.beacon import BeaconRepo
from fleetctl.stack.local_stack import LocalStack
from fleetctl.stack.ports import free_ports
from tests.conftest import ROOT, required
from tests.support.stack import make_immediate, running_stack
from tests.support.systemd_machine import Machine, ensure_image, install_packages

PYTHON = "/opt/fleet-agent/bin/python"
PACKAGES, COMPOSE, REPOSITORY = "/srv/agent-packages", "/srv/compose/compose", "/srv/fleet"
CONFIG = "/etc/fleet/device.json"
#: The units as installed, only less patient.
HASTE = "[Service]\nWatchdogSec=3\nRestartSec=500ms\n"


@dataclass
class Device:
    """The machine, and the control plane's side of its agent."""

    machine: Machine
    repo: BeaconRepo
    db: psycopg.Connection[dict[str, Any]]
    settings: dict[str, Any]

    def configure(self, **changes: Any) -> None:
        self.settings.update(changes)
        self.machine.write(CONFIG, json.dumps(self.settings))

    def publish(self, version: str) -> str:
        """A release for this device; returns its commit."""
        commit = self.repo.release(version)
        self.db.execute(
            "insert into releases (commit_sha, branch, version) values (%s, 'main', %s)", (commit, version)
        )
        return commit

    def reported(self) -> str | None:
        """The version that the control plane was told this device runs."""
        row = self.db.execute(
            "select r.version from device_status s join releases r on r.id = s.current_release"
        ).fetchone()
        return row["version"] if row else None

    @property
    def pid(self) -> int:
        return int(self.machine.show(SERVICE, "MainPID")["MainPID"])

    @property
    def restarts(self) -> int:
        return int(self.machine.show(SERVICE, "NRestarts")["NRestarts"])

    def is_active(self) -> bool:
        return self.machine.show(SERVICE, "ActiveState", "SubState") == {
            "ActiveState": "active", "SubState": "running",
        }  # fmt: skip

    def runs_as_another_process_than(self, pid: int) -> bool:
        """systemd calls a service of Type=notify active only once it said READY itself."""
        return self.is_active() and self.pid not in (0, pid)


@pytest.fixture(scope="module")
def image() -> None:
    reason = ensure_image()
    if reason is not None:
        if "docker" in required():
            pytest.fail(reason, pytrace=False)
        pytest.skip(reason)


@pytest.fixture(scope="module")
def folder() -> Iterator[Path]:
    # Not tmp_path: as root, Postgres runs as another user, and pytest closes its folders to others.
    made = Path(tempfile.mkdtemp(prefix="fleet-systemd-"))
    made.chmod(0o755)
    yield made
    shutil.rmtree(made)


@pytest.fixture(scope="module")
def stack() -> Iterator[LocalStack]:
    with running_stack(table_editor=False) as running:
        make_immediate(running)
        yield running


@pytest.fixture(scope="module")
def packages(folder: Path) -> Path:
    wheels, target = folder / "wheels", folder / "packages"
    build = [sys.executable, "-m", "hatchling", "build", "-t", "wheel", "-d", str(wheels)]
    subprocess.run(build, cwd=ROOT, check=True, capture_output=True)
    (wheel,) = wheels.glob("*.whl")
    install_packages(target, [sys.executable, "-m", "uv"], wheel, ROOT / "requirements-agent.lock")
    return target


@pytest.fixture(scope="module")
def device(image: None, folder: Path, stack: LocalStack, packages: Path) -> Iterator[Device]:
    """An enrolled device on release 1.0.0, its agent installed by its own command and running."""
    repo = BeaconRepo.create(folder / "fleet" / "repo")
    compose = importlib.util.find_spec("compose")
    assert compose is not None
    assert compose.submodule_search_locations
    machine = Machine.boot(
        {
            packages: PACKAGES,
            Path(compose.submodule_search_locations[0]): COMPOSE,
            folder / "fleet": REPOSITORY,
            Path("/var/run/docker.sock").resolve(): "/run/docker.sock",
        }
    )
    with psycopg.connect(stack.db_url, autocommit=True, row_factory=dict_row) as db:
        try:
            settings = {
                "api_url": stack.api_url,
                "publishable_key": stack.publishable_key,
                "git_url": f"file://{REPOSITORY}/repo",
                "allowed_signers": "allowed_signers",
                "name": "in-a-container",
                "runtime": "simulated",
            }
            made = Device(machine, repo, db, settings)
            _set_up(made)
            made.publish("1.0.0")
            machine.must("systemctl", "start", SERVICE)
            machine.until(lambda: made.reported() == "1.0.0", "the first release")
            yield made
        finally:
            machine.remove()


def _set_up(device: Device) -> None:
    machine = device.machine
    machine.must("python3", "-m", "venv", "--without-pip", "/opt/fleet-agent")
    machine.write(
        "/opt/fleet-agent/lib/python3.11/site-packages/agent.pth", f"{PACKAGES}\n{Path(COMPOSE).parent}\n"
    )
    device.configure()
    machine.write("/etc/fleet/allowed_signers", device.repo.allowed_signers.read_text())
    web, clock = free_ports(2)
    machine.write("/opt/fleet/.env", f"BEACON_PORT={web}\nBEACON_CLOCK_PORT={clock}\n")
    row = device.db.execute(
        "select * from create_provisioning_token(role => 'beacon', segment => 'stable', branch => 'main')"
    ).fetchone()
    assert row is not None
    said = next(iter(row.values()))
    token = said["token"] if isinstance(said, dict) else row["token"]
    machine.must(PYTHON, "-m", "fleet_agent", "enroll", "--token", str(token))
    machine.must(PYTHON, "-m", "fleet_agent", "install")
    machine.write(f"/etc/systemd/system/{SERVICE}.d/haste.conf", HASTE)
    machine.must("systemctl", "daemon-reload")
