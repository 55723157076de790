"""Emergency access: what is refused, what is installed, what is shown. With a real sshd: tests/docker."""

from __future__ import annotations

import json
import shutil
import subprocess
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import pytest

from fleet_agent.cli import main as cli
from fleet_agent.config import EmergencyAccess
from fleet_agent.errors import ConfigError, FleetError, Kind, StateError
from fleet_agent.host import emergency_ssh as emergency
from fleet_agent.host import systemd
from fleet_agent.host.emergency_ssh import FILES, PATH_UNIT, SERVICE, SSHD_CONFIG
from fleet_agent.paths import Paths
from tests.unit.host.test_units import AGENT, ANALYZE, settings

KEYS = Path("/etc/fleet/emergency_keys")
PATHS = Paths(Path("/opt/fleet"))
ACCESS = EmergencyAccess(authorized_keys=KEYS)
CONFIG = {
    "api_url": "https://fleet.example",
    "publishable_key": "sb_publishable_x",
    "git_url": "ssh://git@host/fleet.git",
    "verify_signatures": False,
}


@dataclass
class Tree:
    """The files of a machine, under a folder."""

    folder: Path

    def write(self, path: str, text: str, mode: int = 0o644) -> Path:
        file = self.folder / path.lstrip("/")
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_text(text)
        file.chmod(mode)
        return file

    def configure(self, access: object) -> None:
        self.write("etc/fleet/device.json", json.dumps({**CONFIG, "emergency_access": access}))

    def install(self, *more: str) -> int:
        return cli.main(["install", "--prefix", str(self.folder), "--python", "/opt/agent/bin/python", *more])

    def units(self) -> set[str]:
        folder = self.folder / "etc/systemd/system"
        return {path.name for path in folder.rglob("*") if path.is_file() and not path.is_symlink()}

    def set_up(self, **changes: object) -> emergency.Setup:
        access = EmergencyAccess.model_validate({**ACCESS.model_dump(), **changes})
        return emergency.set_up(access, PATHS, tree=self.folder)


@pytest.fixture(scope="session")
def key(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A private key; the public half is beside it."""
    file = tmp_path_factory.mktemp("key") / "id"
    subprocess.run(["ssh-keygen", "-q", "-t", "ed25519", "-N", "", "-f", str(file)], check=True)
    return file


@pytest.fixture
def tree(tmp_path: Path, key: Path) -> Tree:
    made = Tree(tmp_path / "machine")
    made.write("etc/passwd", "root:x:0:0:root:/root:/bin/bash\nwww:x:33:33::/:/usr/sbin/nologin\n")
    made.write("etc/shadow", "root:*:20000:0:99999:7:::\n", 0o600)
    made.write("etc/fleet/emergency_keys", key.with_suffix(".pub").read_text(), 0o600)
    made.write("usr/sbin/sshd", "#!/bin/sh\n", 0o755)
    made.write("usr/bin/ssh-keygen", "#!/bin/sh\n", 0o755)
    return made


# What is refused


def refusal(act: Callable[[], object]) -> FleetError:
    with pytest.raises(FleetError) as caught:
        act()
    return caught.value


def test_a_good_setting_is_taken(tree: Tree) -> None:
    assert tree.set_up().tools == emergency.Tools(Path("/usr/sbin/sshd"), Path("/usr/bin/ssh-keygen"))


@pytest.mark.parametrize(
    ("changes", "sentence"),
    [
        (
            {"authorized_keys": "/opt/fleet/releases/keys"},
            "in the agent's own folder, which releases can fill",
        ),
        ({"authorized_keys": "/etc/fleet/other"}, "could not be read"),
        ({"authorized_keys": "/etc/fleet/the keys"}, "cannot be used with emergency access"),
        ({"user": "nobody-here"}, "There is no user nobody-here"),
        ({"user": "www"}, "The user www has no shell"),
    ],
)
def test_what_could_let_nobody_in_or_the_wrong_one_is_refused(
    tree: Tree, changes: dict[str, object], sentence: str
) -> None:
    error = refusal(lambda: tree.set_up(**changes))
    assert (type(error), error.kind) == (ConfigError, Kind.CONFIG_INVALID)
    assert sentence in error.message
    assert error.hint


def test_a_private_key_in_the_file_is_refused_and_not_shown(tree: Tree, key: Path) -> None:
    tree.write(str(KEYS), key.read_text(), 0o600)
    error = refusal(tree.set_up)
    assert error.kind == Kind.CONFIG_INVALID
    assert "holds a private key" in error.message
    assert key.read_text().splitlines()[1] not in str(error)


@pytest.mark.parametrize("text", ["", "# nobody yet\n", "ssh-ed25519 broken\n"])
def test_a_file_without_a_key_is_refused(tree: Tree, text: str) -> None:
    tree.write(str(KEYS), text, 0o600)
    error = refusal(tree.set_up)
    assert (error.kind, error.message.startswith("There is no public key in")) == (Kind.CONFIG_INVALID, True)


@pytest.mark.parametrize("loose", ["etc/fleet/emergency_keys", "etc/fleet", "etc"])
@pytest.mark.parametrize("bit", [0o020, 0o002])
def test_keys_that_others_could_change_are_refused(tree: Tree, loose: str, bit: int) -> None:
    """sshd would refuse every login, and tell only its log."""
    path = tree.folder / loose
    path.chmod(path.stat().st_mode | bit)
    error = refusal(tree.set_up)
    assert error.kind == Kind.CONFIG_INVALID
    assert error.message.startswith(f"{path} can be changed by others")


def test_a_locked_account_is_refused(tree: Tree) -> None:
    tree.write("etc/shadow", "root:!:20000:0:99999:7:::\n", 0o600)
    error = refusal(tree.set_up)
    assert "account of root is locked" in error.message
    assert "usermod -p '*' root" in error.hint


def test_a_machine_without_sshd_is_named(tree: Tree) -> None:
    (tree.folder / "usr/sbin/sshd").unlink()
    error = refusal(tree.set_up)
    assert (type(error), error.kind) == (StateError, Kind.TOOL_MISSING)
    assert "openssh-server" in error.hint


# What is installed


def test_sshd_takes_keys_of_one_user_and_nothing_else(tree: Tree) -> None:
    text = systemd.render(AGENT, access=tree.set_up(port=2200))[SSHD_CONFIG]
    said = dict(line.split(" ", 1) for line in text.splitlines() if line and not line.startswith("#"))
    assert said["Port"] == "2200"
    assert said["AllowUsers"] == "root"
    assert said["PermitRootLogin"] == "prohibit-password"
    assert said["AuthenticationMethods"] == "publickey"
    assert said["AuthorizedKeysFile"] == str(KEYS)
    assert said["HostKey"] == "/opt/fleet/state/emergency/host_key"
    for name in ("PasswordAuthentication", "KbdInteractiveAuthentication", "PermitEmptyPasswords", "UsePAM"):
        assert said[name] == "no"
    assert "ForceCommand" not in said


def test_another_user_leaves_root_out(tree: Tree) -> None:
    tree.write("etc/passwd", "ops:x:1000:1000::/home/ops:/bin/sh\n")
    text = systemd.render(AGENT, access=tree.set_up(user="ops"))[SSHD_CONFIG]
    assert "\nAllowUsers ops\n" in text
    assert "\nPermitRootLogin no\n" in text


def test_both_units_go_by_the_mark_of_safe_mode(tree: Tree) -> None:
    units = systemd.render(AGENT, access=tree.set_up())
    mark = str(PATHS.in_safe_mode)
    assert settings(units[PATH_UNIT])["PathExists"] == [mark]
    assert settings(units[SERVICE])["ConditionPathExists"] == [mark]
    assert f"while [ -e {mark} ]" in units[SERVICE]


@pytest.mark.skipif(ANALYZE is None, reason="no systemd-analyze")
def test_systemd_finds_nothing_wrong(tree: Tree, tmp_path: Path) -> None:
    units = systemd.render(AGENT, access=tree.set_up())
    for name in (PATH_UNIT, SERVICE):
        (tmp_path / name).write_text(units[name])
    done = subprocess.run(
        [str(ANALYZE), "verify", "--man=no", str(tmp_path / PATH_UNIT), str(tmp_path / SERVICE)],
        capture_output=True, text=True, check=False,
    )  # fmt: skip
    assert (done.returncode, [line for line in done.stderr.splitlines() if "fleet-agent" in line]) == (0, [])


def test_it_is_off_unless_the_configuration_asks_for_it(
    tree: Tree, capsys: pytest.CaptureFixture[str]
) -> None:
    tree.configure(None)
    assert tree.install("--no-enable") == 0
    assert tree.units() == {*systemd.UNITS}
    assert "ssh" not in capsys.readouterr().out


@pytest.mark.skipif(shutil.which("systemctl") is None, reason="no systemctl")
def test_switching_it_on_and_off_is_an_edit_and_an_install(
    tree: Tree, capsys: pytest.CaptureFixture[str]
) -> None:
    tree.configure({"authorized_keys": "emergency_keys", "port": 2200})
    assert tree.install() == 0
    assert tree.units() >= {*systemd.UNITS, *FILES}
    started = tree.folder / "etc/systemd/system/paths.target.wants" / PATH_UNIT
    assert started.is_symlink()
    folder = tree.folder / "etc/systemd/system"
    # Beside device.json on the machine, not in the tree that it is built in.
    assert emergency.in_effect(folder) == ACCESS.model_copy(update={"port": 2200})
    assert f"ssh on port 2200 for root with the keys in {KEYS}" in capsys.readouterr().out
    # No image carries a host key: every device of it would have the same.
    assert not (tree.folder / "opt/fleet/state/emergency").exists()

    tree.configure(None)
    assert tree.install() == 0
    assert tree.units() == {*systemd.UNITS}
    assert not started.is_symlink()
    assert emergency.in_effect(folder) is None
    assert f"{PATH_UNIT} removed" in capsys.readouterr().out


def test_without_sshd_all_the_rest_is_installed_and_the_lack_is_said(
    tree: Tree, capsys: pytest.CaptureFixture[str]
) -> None:
    (tree.folder / "usr/sbin/sshd").unlink()
    tree.configure({"authorized_keys": str(KEYS)})
    assert tree.install("--no-enable") == 1
    assert tree.units() == {*systemd.UNITS}
    assert "tool_missing: Emergency access has no effect: sshd is not installed." in capsys.readouterr().err


def test_a_setting_that_is_wrong_installs_nothing(tree: Tree, capsys: pytest.CaptureFixture[str]) -> None:
    tree.configure({"authorized_keys": "/etc/fleet/none"})
    assert tree.install("--no-enable") == 2
    assert tree.units() == set()
    assert "config_invalid" in capsys.readouterr().err


def test_a_dry_run_prints_it(tree: Tree, capsys: pytest.CaptureFixture[str]) -> None:
    tree.configure({"authorized_keys": str(KEYS)})
    assert tree.install("--dry-run") == 0
    printed = capsys.readouterr().out
    assert [name for name in FILES if f"# {tree.folder}/etc/systemd/system/{name}\n" in printed] == [*FILES]
    assert tree.units() == set()


@pytest.mark.skipif(shutil.which("systemctl") is None, reason="no systemctl")
def test_uninstalling_takes_it_along(tree: Tree) -> None:
    tree.configure({"authorized_keys": str(KEYS)})
    tree.install()
    assert cli.main(["uninstall", "--prefix", str(tree.folder)]) == 0
    assert tree.units() == set()


@pytest.mark.parametrize("text", ["", "[X-Fleet]\nEmergencyAccess={\n", "[X-Fleet]\nEmergencyAccess={}\n"])
def test_what_cannot_be_read_back_is_off(tmp_path: Path, text: str) -> None:
    (tmp_path / PATH_UNIT).write_text(text)
    assert emergency.in_effect(tmp_path) is None
