"""Rescue access: ssh by key while this device is in safe mode, if its own configuration turns it on.

The agent itself runs none of it. `fleet-agent install` checks what `device.json` says (`rescue_access`) and
writes a path unit, a service and a configuration for an sshd of its own; systemd starts that when the
engine's mark of safe mode is there. What is in effect is what is installed: it is read back to be shown.
"""

from __future__ import annotations

import os
import re
import shutil
import subprocess
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from pydantic import ValidationError as PydanticValidationError

from fleet_agent.config import RescueAccess
from fleet_agent.errors import FleetError, Kind, StateError, config_invalid, tool_missing
from fleet_agent.paths import UNIT_FOLDER, Paths
from fleet_agent.support.atomic_files import make_folder, unwritable

PATH_UNIT = "fleet-agent-rescue.path"
SERVICE = "fleet-agent-rescue.service"
SSHD_CONFIG = "fleet-agent-rescue.sshd_config"
#: In the order in which they are written: the one that starts the others last.
FILES = (SSHD_CONFIG, SERVICE, PATH_UNIT)
#: Where sshd is, in addition to $PATH.
SYSTEM_FOLDERS = ("usr/sbin", "usr/bin", "usr/local/sbin", "sbin")
#: sshd does not even check its configuration without it.
PRIVILEGE_SEPARATION = Path("/run/sshd")
TOOL_LIMIT_S = 60

_NO_SHELL = ("nologin", "false")
#: These paths go into a unit, a shell's command and sshd's configuration, which quote in three ways.
_PLAIN = re.compile(r"[\w./+:=-]+", re.ASCII)
_LINE = "RescueAccess="


def in_effect(folder: Path = UNIT_FOLDER) -> RescueAccess | None:
    """What is installed on this machine; None if rescue access is off."""
    try:
        lines = (folder / PATH_UNIT).read_text().splitlines()
        (line,) = (line for line in lines if line.startswith(_LINE))
        return RescueAccess.model_validate_json(line.removeprefix(_LINE))
    except (OSError, ValueError, PydanticValidationError):
        return None


@dataclass(frozen=True)
class Tools:
    """The programs of OpenSSH on the machine that is installed on, as it will see them."""

    sshd: Path
    keygen: Path


@dataclass(frozen=True)
class Setup:
    """Rescue access with all that its units need. `tree` is the machine's `/`, or an image's folder."""

    access: RescueAccess
    paths: Paths
    tools: Tools

    def values(self) -> dict[str, str]:
        """What the templates are filled with."""
        return {
            "MARK": str(self.paths.in_safe_mode),
            "HOST_KEY": str(self.paths.host_key),
            "HOST_KEYS": str(self.paths.host_key.parent),
            "SSHD": str(self.tools.sshd),
            "KEYGEN": str(self.tools.keygen),
            "SSHD_CONFIG": str(UNIT_FOLDER / SSHD_CONFIG),
            "PORT": str(self.access.port),
            "USER": self.access.user,
            "ROOT_LOGIN": "prohibit-password" if self.access.user == "root" else "no",
            "KEYS": str(self.access.authorized_keys),
            "ACCESS": self.access.model_dump_json(),
        }


def set_up(access: RescueAccess, paths: Paths, *, tree: Path = Path("/")) -> Setup:
    """Check that it lets in those it should, and nobody else; `tree` has the machine's files.

    Raises ConfigError (`config_invalid`), StateError (`tool_missing`) if there is no sshd.
    """
    check(access, paths, tree=tree)
    return Setup(access, paths, tools(tree))


def check(access: RescueAccess, paths: Paths, *, tree: Path = Path("/")) -> None:
    """Whether sshd would accept the keys: it refuses some without telling the user.

    Raises ConfigError (`config_invalid`).
    """
    keys = access.authorized_keys
    for path in (keys, paths.root):
        if not _PLAIN.fullmatch(str(path)):
            raise _invalid(
                f"{str(path)!r} contains characters that sshd's configuration cannot hold",
                "Use only letters, digits and ./+:=-_ in paths.",
            )
    if keys.is_relative_to(paths.root):
        raise _invalid(
            f"{keys} is inside the agent's own folder, where a release could write to it",
            "Keep it where only root can write, like /etc/fleet.",
        )
    _check_user(access.user, tree)
    here = tree / keys.relative_to("/")
    try:
        text = here.read_text(errors="replace")
    except OSError as error:
        raise _invalid(
            f"{here} cannot be read: {error.strerror}",
            "Put the public keys of those who may log in there, one per line.",
        ) from error
    if "PRIVATE KEY" in text:
        raise _invalid(
            f"{here} contains a private key",
            "Put the .pub file's content there, and replace that key.",
        )
    _check_modes(here, access.user, tree)
    listed = _run([_keygen_here(), "-l", "-f", str(here)])
    if listed.returncode != 0:
        raise _invalid(f"{here} does not contain a public key", "Put one per line, as in authorized_keys.")


def tools(tree: Path = Path("/")) -> Tools:
    """Raises StateError (`tool_missing`)."""
    return Tools(_find("sshd", tree), _find("ssh-keygen", tree))


def make_host_key(setup: Setup) -> str:
    """Create the host key if there is none yet; return its fingerprint. Raises StateError."""
    key = setup.paths.host_key
    if not key.exists():
        try:
            make_folder(key.parent)
            key.parent.chmod(0o700)
        except OSError as error:
            raise unwritable(key.parent, error) from error
        made = _run([setup.tools.keygen, "-q", "-t", "ed25519", "-N", "", "-C", "rescue", "-f", str(key)])
        if made.returncode != 0:
            raise StateError(Kind.STATE_UNWRITABLE, f"The host key cannot be created: {_last(made)}")
    return fingerprint(setup.paths) or "not known"


def fingerprint(paths: Paths) -> str | None:
    """Of the host key, as ssh shows it to whoever connects; None if there is none yet."""
    public = paths.host_key.with_name(f"{paths.host_key.name}.pub")
    keygen = shutil.which("ssh-keygen")
    if keygen is None or not public.exists():
        return None
    shown = _run([keygen, "-l", "-f", str(public)])
    return shown.stdout.split()[1] if shown.returncode == 0 else None


def try_out(setup: Setup) -> None:
    """Have this machine's sshd check its configuration now, not when it is needed.

    Raises ConfigError (`config_invalid`).
    """
    PRIVILEGE_SEPARATION.mkdir(mode=0o755, exist_ok=True)
    judged = _run([setup.tools.sshd, "-t", "-f", str(UNIT_FOLDER / SSHD_CONFIG)])
    if judged.returncode != 0:
        raise _invalid(
            f"this machine's sshd refuses its configuration: {_last(judged)}",
            "sshd may be too old; OpenSSH 8.4 or later works.",
        )


def _check_user(user: str, tree: Path) -> None:
    account = _entry(tree / "etc/passwd", user)
    if account is None:
        raise _invalid(f"this machine has no user {user}", "Name another in `rescue_access.user`.")
    if Path(account[-1]).name in _NO_SHELL:
        raise _invalid(f"user {user} has no shell ({account[-1]})", "Name a user that can log in.")
    shadow = _entry(tree / "etc/shadow", user)
    if shadow is not None and shadow[1].startswith("!"):
        raise _invalid(
            f"the account of {user} is locked, so sshd would refuse every key",
            f"Give it no valid password instead of locking it: usermod -p '*' {user}",
        )


def _entry(file: Path, user: str) -> list[str] | None:
    try:
        lines = file.read_text().splitlines()
    except OSError:
        # Only root can read /etc/shadow, and only root can install.
        return None
    return next((line.split(":") for line in lines if line.startswith(f"{user}:")), None)


def _check_modes(file: Path, user: str, tree: Path) -> None:
    """sshd refuses keys that another user could change, and tells only its log."""
    account = _entry(tree / "etc/passwd", user)
    owners = {0, int(account[2])} if account is not None else {0}
    for path in (file, *file.parents):
        seen = path.stat()
        # An image may be built by another user than root; its owners are set when it is packed.
        strange = tree == Path("/") and seen.st_uid not in owners
        if seen.st_mode & 0o022 or strange:
            raise _invalid(
                f"users other than root can change {path}, so sshd would refuse the keys in {file.name}",
                f"chown root {path} && chmod go-w {path}",
            )
        if path == tree:
            return


def _find(name: str, tree: Path) -> Path:
    for place in _places(tree):
        found = tree / place / name
        if os.access(found, os.X_OK) and found.is_file():
            return Path("/") / place / name
    raise tool_missing(name, "openssh-server", needed_for="rescue access has no effect")


def _places(tree: Path) -> Iterator[str]:
    yield from SYSTEM_FOLDERS
    if tree == Path("/"):
        yield from (place.lstrip("/") for place in os.environ.get("PATH", "").split(":") if place)


def _keygen_here() -> str:
    keygen = shutil.which("ssh-keygen")
    if keygen is None:
        raise tool_missing("ssh-keygen", "openssh-client")
    return keygen


def _run(command: list[str | Path]) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        command, capture_output=True, text=True, timeout=TOOL_LIMIT_S, check=False, stdin=subprocess.DEVNULL
    )


def _last(done: subprocess.CompletedProcess[str]) -> str:
    said = (done.stderr or done.stdout).strip().splitlines()
    return said[-1] if said else f"exit code {done.returncode}, no output"


def _invalid(why: str, hint: str) -> FleetError:
    return config_invalid("rescue_access", why.removesuffix("."), hint=hint)
