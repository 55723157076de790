"""Rescue access with a real systemd and a real sshd: who gets in, when, and when not."""

from __future__ import annotations

import json
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager

import pytest

from fleet_agent.host.rescue_ssh import PATH_UNIT, SERVICE, SSHD_CONFIG
from fleet_agent.host.systemd import SERVICE as DAEMON
from fleetctl.stack.ports import free_ports
from tests.docker.conftest import PYTHON, Device

pytestmark = pytest.mark.docker

KEYS, MARK = "/etc/fleet/rescue_keys", "/opt/fleet/state/in_safe_mode"
#: The wait is for a person; ssh's own words go to standard error.
SSH = (
    "ssh", "-n", "-o", "BatchMode=yes", "-o", "StrictHostKeyChecking=yes", "-o", "ConnectTimeout=10",
    "-o", "UserKnownHostsFile=/root/known",
)  # fmt: skip


@pytest.fixture(scope="module")
def port() -> int:
    return free_ports(1)[0]


@pytest.fixture(scope="module")
def visited(device: Device, port: int) -> Device:
    """The device with rescue access on its own port, for who has /root/friend."""
    machine = device.machine
    for name in ("friend", "stranger"):
        machine.must("ssh-keygen", "-q", "-t", "ed25519", "-N", "", "-f", f"/root/{name}")
    machine.must("install", "-m", "600", "/root/friend.pub", KEYS)
    device.configure(rescue_access={"authorized_keys": "rescue_keys", "port": port})
    # Nobody is at the door for half a minute only because a test has ended.
    machine.write(f"/etc/systemd/system/{SERVICE}.d/haste.conf", "[Service]\nEnvironment=GRACE_S=0\n")
    machine.must(PYTHON, "-m", "fleet_agent", "install", "--now")
    machine.must(
        "sh", "-c", f"echo '[127.0.0.1]:{port}' $(cat /opt/fleet/state/rescue/host_key.pub) > /root/known"
    )
    return device


def knock(device: Device, port: int, key: str, *options: str) -> subprocess.CompletedProcess[str]:
    return device.machine.run(
        *SSH, *options, "-i", f"/root/{key}", "-p", str(port), "root@127.0.0.1", "id", "-un"
    )


def is_open(device: Device, port: int) -> bool:
    return knock(device, port, "friend").stdout == "root\n"


def is_closed(device: Device, port: int) -> bool:
    return "Connection refused" in knock(device, port, "friend").stderr


def order(device: Device, kind: str) -> None:
    device.db.execute("insert into device_commands (device_id, kind) select id, %s from devices", (kind,))


@contextmanager
def safe_mode(device: Device) -> Iterator[None]:
    order(device, "enter_safe_mode")
    device.machine.until(
        lambda: device.machine.run("test", "-e", MARK).returncode == 0, "the mark of safe mode"
    )
    yield
    order(device, "leave_safe_mode")
    device.machine.until(
        lambda: device.machine.run("test", "-e", MARK).returncode != 0, "the end of safe mode"
    )


def test_outside_of_safe_mode_nothing_listens(visited: Device, port: int) -> None:
    assert visited.machine.must("systemctl", "is-active", PATH_UNIT).strip() == "active"
    assert is_closed(visited, port)


def test_in_safe_mode_its_key_and_no_other_comes_in_and_all_can_see_that(visited: Device, port: int) -> None:
    machine = visited.machine
    with safe_mode(visited):
        machine.until(lambda: is_open(visited, port), "ssh with the key")
        for other in (
            knock(visited, port, "stranger"),
            knock(visited, port, "stranger", "-o", "PreferredAuthentications=password,keyboard-interactive"),
        ):
            assert "Permission denied (publickey)" in other.stderr
        said = json.loads(machine.must(PYTHON, "-m", "fleet_agent", "status", "--json"))["rescue_access"]
        shown = machine.must("ssh-keygen", "-l", "-f", "/opt/fleet/state/rescue/host_key.pub").split()[1]
        assert (said["open"], said["as_configured"], said["host_key"]) == (True, True, shown)
        assert said["access"] == {"authorized_keys": KEYS, "port": port, "user": "root"}
        told = visited.db.execute("select state, reason from device_status").fetchone()
        assert told is not None
        assert told["state"] == "safe_mode"
        assert f"ssh is open on port {port} for root with the keys in {KEYS}" in told["reason"]
    machine.until(lambda: is_closed(visited, port), "ssh being closed")
    machine.until(
        lambda: machine.show(SERVICE, "ActiveState")["ActiveState"] == "inactive", "the end of sshd"
    )


def test_a_session_ends_with_safe_mode(visited: Device, port: int) -> None:
    machine = visited.machine
    with safe_mode(visited):
        machine.until(lambda: is_open(visited, port), "ssh with the key")
        machine.must(
            "sh",
            "-c",
            f"{' '.join(SSH)} -i /root/friend -p {port} root@127.0.0.1 sleep 6006 >/dev/null 2>&1 &",
        )
        machine.until(lambda: machine.run("pgrep", "-f", "^sleep 6006").returncode == 0, "the session")
    machine.until(lambda: machine.run("pgrep", "-f", "^sleep 6006").returncode != 0, "the end of the session")


def test_it_is_open_after_a_boot_even_where_the_agent_does_not_start(visited: Device, port: int) -> None:
    machine = visited.machine
    with safe_mode(visited):
        machine.until(lambda: is_open(visited, port), "ssh with the key")
        machine.must("systemctl", "disable", "--now", DAEMON)
        try:
            machine.reboot()
            assert machine.show(DAEMON, "ActiveState")["ActiveState"] == "inactive"
            machine.until(lambda: is_open(visited, port), "ssh after the boot, without the agent")
        finally:
            machine.must("systemctl", "enable", "--now", DAEMON)
    machine.until(lambda: is_closed(visited, port), "ssh being closed")


def test_switching_it_off_closes_it_at_once(visited: Device, port: int) -> None:
    """Last: it is off afterwards."""
    machine = visited.machine
    with safe_mode(visited):
        machine.until(lambda: is_open(visited, port), "ssh with the key")
        visited.configure(rescue_access=None)
        machine.must(PYTHON, "-m", "fleet_agent", "install", "--now")
        assert is_closed(visited, port)
    left = machine.must(
        "find", "/etc/systemd/system", "-name", "fleet-agent-rescue*", "!", "-type", "d"
    ).split()
    assert left == []
    assert machine.run("test", "-e", f"/etc/systemd/system/{SSHD_CONFIG}").returncode != 0
