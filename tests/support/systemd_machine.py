"""A small Debian with systemd as PID 1, in a container: a device's init system without a device.

The image is made once by debootstrap from the Debian mirror that this machine's apt uses.
"""

from __future__ import annotations

import fcntl
import json
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeVar
from uuid import uuid4

from tests.support.patience import PATIENCE_S

IMAGE = "fleet-test-systemd:3"
SUITE = "bookworm"
#: What a device has beside the agent itself.
PACKAGES = (
    "systemd", "systemd-sysv", "dbus", "python3", "git", "openssh-client", "openssh-server", "procps",
    "ca-certificates",
)  # fmt: skip
PYTHON_VERSION = "3.11"
#: systemd's own signal for a clean halt; SIGTERM means something else to it.
HALT = "SIGRTMIN+3"

T = TypeVar("T")


def ensure_image() -> str | None:
    """Return None when the image is in the local engine, made now or before, else why it is not."""
    # Several test processes may want it at once; one makes it.
    with (Path(tempfile.gettempdir()) / "fleet-test-systemd.lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        found = subprocess.run(["docker", "image", "inspect", IMAGE], capture_output=True, check=False)
        if found.returncode == 0:
            return None
        # Not under /tmp where that is mounted without devices.
        with tempfile.TemporaryDirectory(prefix="fleet-systemd-", dir="/var/tmp") as folder:
            return _bootstrap(folder) or _import(folder)


def _bootstrap(folder: str) -> str | None:
    """Install Debian into the folder; why not, else None."""
    if shutil.which("debootstrap") is None:
        return "no debootstrap to make the systemd image with"
    mirror = _mirror()
    if mirror is None:
        return "apt knows no Debian mirror to make the systemd image from"
    made = subprocess.run(
        ["debootstrap", "--variant=minbase", f"--include={','.join(PACKAGES)}", SUITE, folder, mirror],
        capture_output=True, text=True, check=False,
    )  # fmt: skip
    if made.returncode != 0:
        return f"debootstrap failed: {' '.join(made.stdout.strip().splitlines()[-3:])}"
    # As docs/usage/agent.md has it for a device. Here it would open port 22 of the machine that tests.
    off = subprocess.run(
        ["chroot", folder, "systemctl", "disable", "ssh.service", "ssh.socket"],
        capture_output=True, text=True, check=False,
    )  # fmt: skip
    return f"ssh could not be switched off in the image: {off.stderr.strip()}" if off.returncode else None


def _import(folder: str) -> str | None:
    """Make the image of the folder; why not, else None."""
    left_out = [f"./{name}/*" for name in ("dev", "proc", "sys", "var/cache/apt", "var/lib/apt/lists")]
    left_out += [f"./usr/share/{name}" for name in ("doc", "man", "locale")]
    tar = subprocess.Popen(
        ["tar", "-C", folder, *(f"--exclude={name}" for name in left_out), "-cf", "-", "."],
        stdout=subprocess.PIPE,
    )
    imported = subprocess.run(
        ["docker", "import", "-", IMAGE], stdin=tar.stdout, capture_output=True, text=True, check=False
    )
    if tar.wait() != 0 or imported.returncode != 0:
        return f"docker import failed: {imported.stderr.strip()}"
    return None


def _mirror() -> str | None:
    """The first Debian archive among apt's sources."""
    if shutil.which("apt-get") is None:
        return None
    listed = subprocess.run(
        ["apt-get", "indextargets", "--format", "$(LABEL) $(REPO_URI)", "Created-By: Packages"],
        capture_output=True, text=True, check=False,
    ).stdout  # fmt: skip
    lines = [line.partition(" ") for line in listed.splitlines()]
    return next((address for label, _, address in lines if label == "Debian"), None)


@dataclass
class Machine:
    """The running container. Its network is this machine's, so that it reaches the embedded stack."""

    name: str

    @classmethod
    def boot(cls, mounts: Mapping[Path, str]) -> Machine:
        """Start one and wait until it is up; `mounts` are read-only, from here to there."""
        machine = cls(f"fleet-test-systemd-{uuid4().hex[:8]}")
        volumes = [part for here, there in mounts.items() for part in ("-v", f"{here}:{there}:ro")]
        _docker(
            "run", "--detach", "--name", machine.name, "--network", "host", "--stop-signal", HALT,
            "--cap-add", "SYS_ADMIN", "--security-opt", "seccomp=unconfined",
            "--security-opt", "apparmor=unconfined",
            "--tmpfs", "/run", "--tmpfs", "/run/lock", "--tmpfs", "/tmp",
            "-v", "/sys/fs/cgroup:/sys/fs/cgroup:rw", "--cgroupns", "host", "-e", "container=docker",
            *volumes, IMAGE, "/sbin/init",
        )  # fmt: skip
        machine._wait_for_boot()
        return machine

    def reboot(self) -> None:
        """A clean one: systemd stops what runs, and starts anew with an empty /run."""
        _docker("restart", "--time", "60", self.name)
        self._wait_for_boot()

    def lose_power(self) -> None:
        """Nobody is asked to stop; then it boots again."""
        _docker("kill", self.name)
        _docker("start", self.name)
        self._wait_for_boot()

    def remove(self) -> None:
        subprocess.run(["docker", "rm", "--force", "--volumes", self.name], capture_output=True, check=False)

    def _wait_for_boot(self) -> None:
        self.until(lambda: self.run("systemctl", "is-system-running").stdout.strip() in _UP, "the boot")

    def run(self, *command: str, stdin: str | None = None) -> subprocess.CompletedProcess[str]:
        """Run a command as root inside."""
        return subprocess.run(
            ["docker", "exec", "--interactive", self.name, *command],
            input=stdin or "", capture_output=True, text=True, timeout=2 * PATIENCE_S, check=False,
        )  # fmt: skip

    def must(self, *command: str, stdin: str | None = None) -> str:
        """Run a command that has to work; returns what it said."""
        done = self.run(*command, stdin=stdin)
        assert done.returncode == 0, f"{' '.join(command)}: {done.stdout}{done.stderr}"
        return done.stdout

    def write(self, path: str, content: str) -> None:
        self.must("sh", "-c", f"mkdir -p $(dirname {path}) && cat > {path}", stdin=content)

    def show(self, unit: str, *names: str) -> dict[str, str]:
        """Properties of a unit, as systemd has them."""
        said = self.must("systemctl", "show", unit, *(f"--property={name}" for name in names))
        found = (line.partition("=") for line in said.splitlines())
        return {name: value for name, _, value in found}

    def journal(self, unit: str, *options: str) -> list[dict[str, Any]]:
        """Entries about a unit, its own and systemd's, oldest first."""
        said = self.must("journalctl", "--unit", unit, "--output", "json", "--no-pager", *options)
        return [json.loads(line) for line in said.splitlines()]

    def messages(self, unit: str, *options: str) -> list[str]:
        return [str(entry.get("MESSAGE", "")) for entry in self.journal(unit, *options)]

    def until(self, look: Callable[[], T], what: str, patience_s: float = PATIENCE_S) -> T:
        """Look again and again until it is true; the journal says why it never was."""
        deadline = time.monotonic() + patience_s
        while True:
            seen = look()
            if seen:
                return seen
            if time.monotonic() > deadline:
                journal = self.run("journalctl", "--no-pager", "--lines=40", "--output=short-precise").stdout
                raise AssertionError(f"not seen within {patience_s:g} s: {what}\n{journal}")
            time.sleep(0.1)

    def since(self) -> str:
        """The option of `journal` for what is said from now on.

        A time and no cursor: with a filter, journalctl passes over the first entry that fits after a
        cursor whose own entry does not (systemd 252).
        """
        return f"--since=@{self.must('date', '+%s.%6N').strip()}"


_UP = ("running", "degraded")


def _docker(*arguments: str) -> str:
    done = subprocess.run(["docker", *arguments], capture_output=True, text=True, check=False)
    assert done.returncode == 0, f"docker {arguments[0]}: {done.stderr}"
    return done.stdout


def install_packages(target: Path, command: Sequence[str], wheel: Path, lock: Path) -> None:
    """What a device has installed: the agent's lock and our wheel, for the image's Python."""
    install = [*command, "pip", "install", "--quiet", "--target", str(target), "--no-deps"]
    install += ["--python-version", PYTHON_VERSION, "--only-binary", ":all:"]
    subprocess.run([*install, "--require-hashes", "-r", str(lock)], check=True)
    subprocess.run([*install, str(wheel)], check=True)
    # Used where this Python is the image's version, ignored otherwise: the agent then starts slower.
    compiled = [sys.executable, "-m", "compileall", "-q", "-o", "0", "-o", "2", str(target)]
    subprocess.run(compiled, check=True)
