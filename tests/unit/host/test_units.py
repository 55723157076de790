"""The units as systemd reads them, and putting them in place under a tree of our own."""

from __future__ import annotations

import configparser
import os
import re
import shutil
import subprocess
from collections.abc import Sequence
from pathlib import Path

import pytest

from fleet_agent.cli import main as cli
from fleet_agent.errors import ConfigError, Kind, StateError
from fleet_agent.host import systemd
from fleet_agent.host.systemd import Agent, Installer, render

AGENT = Agent(Path("/opt/fleet"), Path("/etc/fleet/device.json"), Path("/opt/fleet-agent/bin/python"))
ANALYZE = shutil.which("systemd-analyze")


def settings(text: str) -> dict[str, list[str]]:
    """Every setting of a unit with its values in order."""
    found: dict[str, list[str]] = {}
    for line in text.splitlines():
        key, equals, value = line.partition("=")
        if equals and not line.startswith("#"):
            found.setdefault(key, []).append(value)
    return found


def test_a_unit_starts_this_agent_with_its_folder_and_configuration() -> None:
    units = render(AGENT)
    for name, verb in ((systemd.SERVICE, "run"), (systemd.ONCE_SERVICE, "once")):
        assert settings(units[name])["ExecStart"] == [
            f"/opt/fleet-agent/bin/python -P -m fleet_agent {verb} "
            "--root /opt/fleet --config /etc/fleet/device.json"
        ]
        assert settings(units[name])["ReadWritePaths"] == ["/opt/fleet"]


def test_nothing_is_left_to_fill_in() -> None:
    assert re.findall(r"@[A-Z]+@", "".join(render(AGENT).values())) == []


def test_a_path_that_looks_like_a_placeholder_is_a_path() -> None:
    agent = Agent(Path("/srv/@CONFIG@"), AGENT.config, AGENT.python)
    assert settings(render(agent)[systemd.SERVICE])["ReadWritePaths"] == ["/srv/@CONFIG@"]


def test_specifiers_quotes_and_spaces_of_a_path_mean_themselves() -> None:
    agent = Agent(Path('/srv/a "b" 100%'), AGENT.config, AGENT.python)
    assert settings(render(agent)[systemd.SERVICE])["ReadWritePaths"] == ['"/srv/a \\"b\\" 100%%"']


def test_the_wait_after_a_crash_grows_where_systemd_can() -> None:
    old, new = (settings(render(AGENT, systemd_version=version)[systemd.SERVICE]) for version in (253, 254))
    assert old["RestartSec"] == ["10"]
    assert "RestartSteps" not in old
    assert new["RestartSteps"] == ["8"]
    assert new["RestartMaxDelaySec"] == ["5min"]


def test_daemon_and_backstop_share_one_sandbox() -> None:
    units = render(AGENT)
    for name in (systemd.SERVICE, systemd.ONCE_SERVICE):
        found = settings(units[name])
        assert found["ProtectSystem"] == ["strict"]
        assert found["NoNewPrivileges"] == ["yes"]
        assert found["CapabilityBoundingSet"] == ["CAP_DAC_OVERRIDE CAP_NET_BIND_SERVICE CAP_SETFCAP"]
        assert found["MemoryMax"] == ["512M"]


@pytest.mark.parametrize("part", ["root", "config", "python"])
@pytest.mark.parametrize("path", ["/tmp/fleet", "/var/tmp/fleet", "/opt/a\nb", "/opt/$HOME"])
def test_a_path_that_the_service_could_not_use_is_refused(part: str, path: str) -> None:
    paths = {"root": AGENT.root, "config": AGENT.config, "python": AGENT.python, part: Path(path)}
    with pytest.raises(ConfigError) as caught:
        Agent(**paths).check()
    assert caught.value.kind == Kind.CONFIG_INVALID


def test_the_whole_machine_is_no_root_for_the_agent() -> None:
    with pytest.raises(ConfigError, match="whole machine"):
        Agent(Path("/"), AGENT.config, AGENT.python).check()


@pytest.mark.skipif(ANALYZE is None, reason="no systemd-analyze")
@pytest.mark.parametrize("root", ["/opt/fleet", "/opt/a b/100%"])
def test_systemd_finds_nothing_wrong(tmp_path: Path, root: str) -> None:
    # The program must exist for systemd to be content.
    agent = Agent(Path(root), AGENT.config, Path("/bin/sh"))
    units = render(agent, systemd_version=None)
    for name, text in units.items():
        (tmp_path / name).write_text(text)
    done = subprocess.run(
        [str(ANALYZE), "verify", "--man=no", *(str(tmp_path / name) for name in units)],
        capture_output=True, text=True, check=False,
    )  # fmt: skip
    assert (done.returncode, [line for line in done.stderr.splitlines() if "fleet-agent" in line]) == (0, [])


# Installing


def test_installing_twice_changes_nothing_the_second_time(tmp_path: Path) -> None:
    installer = Installer(tmp_path)
    assert installer.install(AGENT, enable=False) == list(systemd.UNITS)
    before = {path: path.stat().st_mtime_ns for path in installer.folder.iterdir()}
    assert installer.install(AGENT, enable=False) == []
    assert {path: path.stat().st_mtime_ns for path in installer.folder.iterdir()} == before
    assert {path.name: path.read_text() for path in before} == render(AGENT)


def test_a_unit_that_says_something_else_is_replaced(tmp_path: Path) -> None:
    installer = Installer(tmp_path)
    installer.install(AGENT, enable=False)
    (installer.folder / systemd.ONCE_TIMER).write_text("[Timer]\n")
    assert installer.install(AGENT, enable=False) == [systemd.ONCE_TIMER]


def test_the_folder_that_the_sandbox_opens_is_made(tmp_path: Path) -> None:
    """systemd refuses to start a service whose ReadWritePaths are missing."""
    Installer(tmp_path).install(AGENT, enable=False)
    assert (tmp_path / "opt/fleet").is_dir()


@pytest.mark.skipif(shutil.which("systemctl") is None, reason="no systemctl")
def test_an_image_has_the_service_and_the_timer_enabled(tmp_path: Path) -> None:
    installer = Installer(tmp_path)
    installer.install(AGENT)
    wanted = sorted(str(path.relative_to(installer.folder)) for path in installer.folder.glob("*.wants/*"))
    assert wanted == [
        "multi-user.target.wants/fleet-agent.service", "timers.target.wants/fleet-agent-once.timer",
    ]  # fmt: skip
    assert installer.uninstall() == list(systemd.UNITS)
    assert [path for path in installer.folder.rglob("*") if not path.is_dir()] == []
    assert installer.uninstall() == []


def test_a_machine_without_systemd_is_named(tmp_path: Path) -> None:
    with pytest.raises(StateError) as caught:
        Installer(booted=tmp_path / "absent").install(AGENT)
    assert caught.value.kind == Kind.NOT_SUPPORTED
    assert "--prefix" in caught.value.hint


def test_only_root_installs_on_the_machine_itself(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(os, "geteuid", lambda: 1000)
    with pytest.raises(StateError) as caught:
        Installer(booted=tmp_path).install(AGENT)
    assert caught.value.kind == Kind.STATE_UNWRITABLE
    assert "sudo" in caught.value.hint


def test_what_systemctl_complains_of_is_passed_on(tmp_path: Path) -> None:
    def refuse(arguments: Sequence[str]) -> subprocess.CompletedProcess[str]:
        return subprocess.CompletedProcess(arguments, 1, "", "Failed to enable unit: no such thing\n")

    with pytest.raises(StateError, match="no such thing") as caught:
        Installer(tmp_path, run=refuse).install(AGENT)
    assert caught.value.kind == Kind.SYSTEMD_REFUSED


# The command


def test_a_dry_run_prints_the_units_and_writes_nothing(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    arguments = ["install", "--dry-run", "--prefix", str(tmp_path), "--root", "/srv/fleet"]
    assert cli.main([*arguments, "--python", "/opt/fleet-agent/bin/python"]) == 0
    printed = capsys.readouterr().out
    assert [name for name in systemd.UNITS if f"# {tmp_path}/etc/systemd/system/{name}" in printed] == list(
        systemd.UNITS
    )
    assert "ReadWritePaths=/srv/fleet" in printed
    assert list(tmp_path.iterdir()) == []


def test_the_timer_counts_from_the_boot_for_a_device_may_not_know_the_time() -> None:
    timer = configparser.ConfigParser()
    timer.read_string(render(AGENT)[systemd.ONCE_TIMER])
    assert "onbootsec" in timer["Timer"]
    assert "oncalendar" not in timer["Timer"]
