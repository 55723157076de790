"""The agent as a service of a real systemd: PID 1 of a small Debian in a container.

The agent inside is the wheel with the packages of its lock, installed by `fleet-agent install`; its control
plane is an embedded stack on this machine, its containers are simulated.
"""

from __future__ import annotations

import importlib.util
import json
import shutil
import socket
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

from fleet_agent.systemd import ONCE_SERVICE, ONCE_TIMER, SERVICE
from fleetctl.fleet_repo import FleetRepo
from fleetctl.stack import Stack
from tests.conftest import ROOT, required
from tests.docker.systemd_machine import Machine, ensure_image, install_packages

pytestmark = pytest.mark.docker

PYTHON = "/opt/fleet-agent/bin/python"
PACKAGES, COMPOSE, REPOSITORY = "/srv/agent-packages", "/srv/compose/compose", "/srv/fleet"
CONFIG = "/etc/fleet/device.json"
#: The units as installed, only less patient.
HASTE = "[Service]\nWatchdogSec=3\nRestartSec=500ms\n"
HASTY_TIMER = (
    "[Timer]\nOnBootSec=\nOnUnitInactiveSec=\nOnActiveSec=100ms\nOnUnitInactiveSec=500ms\n"
    "RandomizedDelaySec=0\nAccuracySec=50ms\n"
)


@dataclass
class Device:
    """The machine, and the control plane's side of its agent."""

    machine: Machine
    repo: FleetRepo
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
def stack(folder: Path) -> Iterator[Stack]:
    with Stack.start(data=folder / "data", port=0, web=False, table_editor=False, durable=False) as running:
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
def device(image: None, folder: Path, stack: Stack, packages: Path) -> Iterator[Device]:
    """An enrolled device on release 1.0.0, its agent installed by its own command and running."""
    repo = FleetRepo.create(folder / "fleet" / "repo")
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
    web, clock = _free_ports(2)
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


def _free_ports(count: int) -> list[int]:
    probes = [socket.create_server(("127.0.0.1", 0)) for _ in range(count)]
    ports = [probe.getsockname()[1] for probe in probes]
    for probe in probes:
        probe.close()
    return ports


@pytest.fixture(autouse=True)
def running(device: Device) -> None:
    """Each test begins with the daemon running, whatever the one before did."""
    device.machine.must("systemctl", "reset-failed")
    device.machine.must("systemctl", "start", SERVICE)


def test_it_is_enabled_ready_and_says_what_it_does(device: Device) -> None:
    enabled = device.machine.must("systemctl", "is-enabled", SERVICE, ONCE_TIMER).split()
    assert enabled == ["enabled", "enabled"]
    assert device.is_active()
    assert device.machine.show(SERVICE, "StatusText")["StatusText"].startswith("healthy, on 1.0.0")


def test_systemd_has_nothing_to_say_against_the_units(device: Device) -> None:
    said = device.machine.run("systemd-analyze", "verify", "--man=no", SERVICE, ONCE_SERVICE, ONCE_TIMER)
    assert [line for line in said.stderr.splitlines() if "fleet-agent" in line] == []


def test_installing_again_changes_nothing(device: Device) -> None:
    pid = device.pid
    said = device.machine.must(PYTHON, "-m", "fleet_agent", "install", "--now")
    assert [line.rpartition(" ")[2] for line in said.splitlines()] == ["unchanged"] * 3
    assert device.pid == pid
    device.machine.must("systemctl", "stop", ONCE_TIMER)


def test_the_log_is_in_the_journal_under_its_priorities(device: Device) -> None:
    own = [entry for entry in device.machine.journal(SERVICE) if entry["SYSLOG_IDENTIFIER"] == "fleet-agent"]
    (start, *_) = (entry for entry in own if "starts, control plane" in entry["MESSAGE"])
    assert start["PRIORITY"] == "6"
    assert not start["MESSAGE"].startswith("<")
    assert [entry["MESSAGE"] for entry in own if "sb_secret_" in entry["MESSAGE"]] == []


def test_a_reload_rereads_the_configuration_in_the_same_process(device: Device) -> None:
    pid, since = device.pid, device.machine.since()
    device.configure(poll_interval_s=4321)
    device.machine.must("systemctl", "reload", SERVICE)
    device.machine.until(
        lambda: any(
            message.endswith("configuration re-read, changed: poll_interval_s")
            for message in device.machine.messages(SERVICE, since)
        ),
        "the configuration being re-read",
    )
    device.machine.until(device.is_active, "the end of the reload")
    assert device.pid == pid


def test_a_reload_with_a_bad_configuration_fails_and_keeps_the_daemon(device: Device) -> None:
    pid, since = device.pid, device.machine.since()
    device.machine.write(CONFIG, json.dumps({**device.settings, "poll_intervall_s": 60}))
    try:
        assert device.machine.run("systemctl", "reload", SERVICE).returncode != 0
        complaints = device.machine.messages(SERVICE, since)
        assert any("`poll_intervall_s` is not a known key" in message for message in complaints)
        assert device.is_active()
        assert device.pid == pid
    finally:
        device.configure()


def test_a_restart_stops_in_order_and_starts_anew(device: Device) -> None:
    pid, since = device.pid, device.machine.since()
    device.machine.must("systemctl", "restart", SERVICE)
    assert device.runs_as_another_process_than(pid)
    messages = device.machine.messages(SERVICE, since)
    assert any(message.endswith("agent stops") for message in messages)
    assert device.restarts == 0  # those of systemd's own accord


def test_a_stop_leaves_no_process_and_no_failure(device: Device) -> None:
    device.machine.must("systemctl", "stop", SERVICE)
    assert device.machine.show(SERVICE, "ActiveState", "Result") == {
        "ActiveState": "inactive", "Result": "success",
    }  # fmt: skip
    assert "fleet_agent" not in device.machine.must("sh", "-c", "cat /proc/[0-9]*/cmdline | tr '\\0' ' '")


def test_a_killed_daemon_is_started_again(device: Device) -> None:
    pid, restarts = device.pid, device.restarts
    device.machine.must("sh", "-c", f"kill -KILL {pid}")
    device.machine.until(lambda: device.runs_as_another_process_than(pid), "the daemon after a crash")
    assert device.restarts == restarts + 1


def test_a_frozen_daemon_is_killed_by_the_watchdog_and_started_again(device: Device) -> None:
    pid, restarts, since = device.pid, device.restarts, device.machine.since()
    device.machine.must("sh", "-c", f"kill -STOP {pid}")
    device.machine.until(lambda: device.runs_as_another_process_than(pid), "the daemon after the watchdog")
    assert device.restarts == restarts + 1
    messages = device.machine.messages(SERVICE, since)
    assert any("Watchdog timeout" in message for message in messages)


def test_a_resting_daemon_is_not_killed_by_the_watchdog(device: Device) -> None:
    """Its limit is 3 s here; the loop would look up every 15 s by itself."""
    pid, fed = device.pid, "WatchdogTimestampMonotonic"
    begin = int(device.machine.show(SERVICE, fed)[fed])
    device.machine.until(
        lambda: int(device.machine.show(SERVICE, fed)[fed]) > begin + 4_000_000, "four seconds of feeding"
    )
    assert device.pid == pid


def test_the_backstop_waits_while_the_daemon_runs_and_converges_when_it_does_not(device: Device) -> None:
    machine = device.machine
    machine.write(f"/etc/systemd/system/{ONCE_TIMER}.d/haste.conf", HASTY_TIMER)
    machine.must("systemctl", "daemon-reload")
    since = machine.since()
    try:
        machine.must("systemctl", "restart", ONCE_TIMER)

        def skipped() -> int:
            messages = machine.messages(ONCE_SERVICE, since)
            return sum("Skipped due to 'exec-condition'" in message for message in messages)

        machine.until(lambda: skipped() >= 2, "the timer being skipped, and coming round again")
        own = machine.journal(ONCE_SERVICE, since, "SYSLOG_IDENTIFIER=fleet-agent")
        assert own == []
        machine.must("systemctl", "stop", SERVICE)
        device.publish("2.0.0")
        machine.until(lambda: device.reported() == "2.0.0", "the release that only the backstop could bring")
        assert not device.is_active()
    finally:
        machine.must("systemctl", "stop", ONCE_TIMER)
        machine.must("rm", "-r", f"/etc/systemd/system/{ONCE_TIMER}.d")
        machine.must("systemctl", "daemon-reload")


@pytest.mark.parametrize("how", ["reboot", "lose_power"])
def test_after_a_boot_the_daemon_runs_and_knows_its_release(device: Device, how: str) -> None:
    before = json.loads(device.machine.must(PYTHON, "-m", "fleet_agent", "status", "--json"))
    getattr(device.machine, how)()
    device.machine.until(device.is_active, "the daemon after the boot")
    device.machine.until(
        lambda: (
            f"on {before['current']['version']}" in device.machine.show(SERVICE, "StatusText")["StatusText"]
        ),
        "the first check-in after the boot",
    )
    after = json.loads(device.machine.must(PYTHON, "-m", "fleet_agent", "status", "--json"))
    assert after["current"] == before["current"]
    assert device.machine.must("systemctl", "is-active", ONCE_TIMER).strip() == "active"


PROBE = """
import json, os, pathlib, socket, subprocess, tempfile
from fleet_agent.containers.compose import ComposeRuntime
from fleet_agent.engine.steps.validate import network_wall

def refusal(act):
    try:
        act()
    except OSError as error:
        return os.strerror(error.errno)
    return "done"

runtime = ComposeRuntime()
folder = pathlib.Path("/opt/fleet/probe")
folder.mkdir(exist_ok=True)
(folder / "compose.yaml").write_text("services: {web: {image: 'busybox:stable'}}")
capabilities = [line.split()[1] for line in open("/proc/self/status") if line.startswith("CapBnd")]
try:
    import docker
    engine = docker.from_env(timeout=20).ping()
except Exception as error:
    engine = repr(error)
print("PROBED", json.dumps({
    "etc": refusal(lambda: open("/etc/written", "w")),
    "usr": refusal(lambda: open("/usr/written", "w")),
    "home": refusal(lambda: open("/root/written", "w")),
    "root": refusal(lambda: open("/opt/fleet/written", "w")),
    "mount": subprocess.run(["mount", "-t", "tmpfs", "x", str(folder)], capture_output=True).returncode,
    "low_port": refusal(lambda: socket.socket().bind(("127.0.0.1", 987))),
    "packets": refusal(lambda: socket.socket(socket.AF_PACKET, socket.SOCK_RAW)),
    "capabilities": int(capabilities[0], 16),
    "engine": engine,
    "compose": runtime.config(folder, {}, "probe")["services"]["web"]["image"],
    "wall": network_wall(),
}), flush=True)
"""


def test_the_sandbox_holds_and_leaves_docker_compose_and_the_networkless_validate(device: Device) -> None:
    """The service's own settings, around a program that tries what the agent may and may not do."""
    machine = device.machine
    machine.write("/opt/fleet/probe.py", PROBE)
    unit = machine.must("cat", f"/etc/systemd/system/{ONCE_SERVICE}").splitlines()
    kept = [line for line in unit if not line.startswith(("ExecStart=", "ExecCondition="))]
    kept.insert(kept.index("[Service]") + 1, f"ExecStart={PYTHON} -P /opt/fleet/probe.py")
    machine.write("/etc/systemd/system/probe.service", "\n".join(kept) + "\n")
    machine.must("systemctl", "daemon-reload")
    started = machine.run("systemctl", "start", "probe.service")
    messages = machine.messages("probe.service")
    assert started.returncode == 0, "\n".join(messages)
    (line,) = (message for message in messages if message.startswith("PROBED "))
    seen = json.loads(line.removeprefix("PROBED "))
    assert seen["root"] == seen["low_port"] == "done"
    assert seen["etc"] == seen["usr"] == seen["home"] == "Read-only file system"
    assert seen["mount"] != 0
    assert seen["packets"] == "Address family not supported by protocol"
    assert seen["capabilities"] == 1 << 1 | 1 << 10 | 1 << 31  # DAC_OVERRIDE, NET_BIND_SERVICE, SETFCAP
    assert seen["engine"] is True
    assert seen["compose"] == "busybox:stable"
    assert seen["wall"] == ["unshare", "--map-root-user", "--net"]
    # systemd's own measure, of 100: without a sandbox it is 96.
    judged = machine.run("systemd-analyze", "security", "--no-pager", "--threshold=30", SERVICE)
    assert judged.returncode == 0, judged.stdout


def test_uninstalling_leaves_only_what_an_operator_added(device: Device) -> None:
    """Last: what follows would have to install again."""
    device.machine.must(PYTHON, "-m", "fleet_agent", "uninstall")
    assert device.machine.show(SERVICE, "ActiveState") == {"ActiveState": "inactive"}
    left = device.machine.must("find", "/etc/systemd/system", "-name", "*fleet-agent*", "!", "-type", "d")
    assert left.split() == []
    assert device.machine.must("ls", f"/etc/systemd/system/{SERVICE}.d").split() == ["haste.conf"]
