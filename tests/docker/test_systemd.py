"""The agent as a service of a real systemd: PID 1 of a small Debian in a container.

The agent inside is the wheel with the packages of its lock, installed by `fleet-agent install`; its control
plane is an embedded stack on this machine, its containers are simulated.
"""

from __future__ import annotations

import json

import pytest

from fleet_agent.host.systemd import ONCE_SERVICE, ONCE_TIMER, SERVICE
from tests.docker.conftest import CONFIG, PYTHON, Device

pytestmark = pytest.mark.docker

HASTY_TIMER = (
    "[Timer]\nOnBootSec=\nOnUnitInactiveSec=\nOnActiveSec=100ms\nOnUnitInactiveSec=500ms\n"
    "RandomizedDelaySec=0\nAccuracySec=50ms\n"
)


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
    (start, *_) = (entry for entry in own if "started; control plane" in entry["MESSAGE"])
    assert start["PRIORITY"] == "6"
    assert not start["MESSAGE"].startswith("<")
    assert [entry["MESSAGE"] for entry in own if "sb_secret_" in entry["MESSAGE"]] == []


def test_a_reload_rereads_the_configuration_in_the_same_process(device: Device) -> None:
    pid, since = device.pid, device.machine.since()
    device.configure(poll_interval_s=4321)
    device.machine.must("systemctl", "reload", SERVICE)
    device.machine.until(
        lambda: any(
            message.endswith("configuration reloaded; changed: poll_interval_s")
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
    assert any(message.endswith("agent stopped") for message in messages)
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
