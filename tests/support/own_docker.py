"""A Docker engine of the test's own: started, killed and restarted without disturbing anybody else's.

Its folders are its own (`data`, a small file system where asked), and it leaves the machine's firewall alone.
"""

from __future__ import annotations

import contextlib
import os
import shutil
import signal
import subprocess
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path
from random import SystemRandom

import pytest

from tests.conftest import required
from tests.support.patience import PATIENCE_S

IMAGE = "busybox:stable"
CONTAINERD = """\
version = 2
root = "{data}/containerd"
state = "{folder}/run/containerd"
disabled_plugins = ["io.containerd.grpc.v1.cri"]
[grpc]
address = "{folder}/containerd.sock"
"""


class OwnDocker:
    """`size_mib` is the size of the file system under its images and containers; 0: the machine's own."""

    def __init__(self, folder: Path, size_mib: int = 0) -> None:
        self.folder, self.data = folder, folder / "data"
        self.socket = folder / "docker.sock"
        self.data.mkdir()
        if size_mib:
            _run("mount", "-t", "tmpfs", "-o", f"size={size_mib}m", "fleet-test", str(self.data))
        self._daemon: subprocess.Popen[bytes] | None = None
        # A bridge of its own: one without would delete `docker0`, the bridge of the machine's engine.
        # So would one with a --default-address-pool that starts where containers are left over; it keeps off
        # the addresses of other bridges by itself.
        self._network = SystemRandom().randrange(130, 250)
        self._bridge = f"fleet-test{self._network}"
        _run("ip", "link", "add", self._bridge, "type", "bridge")
        _run("ip", "address", "add", f"10.{self._network}.255.1/24", "dev", self._bridge)
        self._log = (folder / "log").open("ab")
        # Beside it, as systemd has it: what keeps containers alive does not end with a killed dockerd.
        (folder / "containerd.toml").write_text(CONTAINERD.format(folder=folder, data=self.data))
        self._containerd = self._started("containerd", "--config", str(folder / "containerd.toml"))

    @property
    def host(self) -> str:
        return f"unix://{self.socket}"

    def start(self) -> None:
        """Returns once it answers."""
        folder = str(self.folder)
        self._daemon = self._started(
            "dockerd", "--data-root", str(self.data), "--exec-root", f"{folder}/run",
            "--pidfile", f"{folder}/pid", "--host", self.host, "--containerd", f"{folder}/containerd.sock",
            "--bridge", self._bridge, "--iptables=false", "--ip-forward=false", "--ip-masq=false",
        )  # fmt: skip
        deadline = time.monotonic() + PATIENCE_S
        while self.docker("version", check=False).returncode != 0:
            if self._daemon.poll() is not None or time.monotonic() > deadline:
                raise RuntimeError((self.folder / "log").read_text()[-2000:])
            time.sleep(0.05)

    def stop(self, by: signal.Signals = signal.SIGTERM) -> None:
        """Returns once it is gone. SIGTERM takes its containers with it, SIGKILL does not."""
        if self._daemon is not None:
            self._daemon.send_signal(by)
            self._daemon.wait(PATIENCE_S)
            self._daemon = None
        # A killed one leaves it, and its successor would take the number for a living one.
        (self.folder / "pid").unlink(missing_ok=True)

    def restart(self, by: signal.Signals = signal.SIGTERM) -> None:
        self.stop(by)
        self.start()

    def docker(
        self, *arguments: str, stdin: bytes = b"", check: bool = True
    ) -> subprocess.CompletedProcess[bytes]:
        return subprocess.run(
            ["docker", "--host", self.host, *arguments], input=stdin, capture_output=True, check=check
        )

    def close(self) -> None:
        if self._daemon is None:
            self.start()
        if containers := self.docker("ps", "--all", "--quiet").stdout.decode().split():
            self.docker("rm", "--force", *containers)
        # Networks are bridges of this machine, which a daemon that ends would leave.
        self.docker("network", "prune", "--force")
        self.stop()
        self._containerd.terminate()
        self._containerd.wait(PATIENCE_S)
        self._log.close()
        _run("ip", "link", "delete", self._bridge)
        # A killed daemon leaves mounts: of its folder onto itself, of containers.
        mounts = [line.split()[1] for line in Path("/proc/self/mounts").read_text().splitlines()]
        for mount in reversed(mounts):
            if mount.startswith(f"{self.folder}/"):
                _run("umount", "--lazy", mount)

    def _started(self, *command: str) -> subprocess.Popen[bytes]:
        return subprocess.Popen(command, stdout=self._log, stderr=self._log, start_new_session=True)


@contextlib.contextmanager
def own_docker(size_mib: int = 0) -> Iterator[OwnDocker]:
    """One that has `busybox:stable`, and is this process's Docker meanwhile. Skips where it cannot be had."""
    _need()
    image = subprocess.run(["docker", "save", IMAGE], capture_output=True, check=True).stdout
    # Not below pytest's folders: a socket's path may have 107 characters.
    folder = Path(tempfile.mkdtemp(prefix="fleet-docker-"))
    before = os.environ.get("DOCKER_HOST")
    docker = OwnDocker(folder, size_mib)
    try:
        docker.start()
        docker.docker("load", stdin=image)
        os.environ["DOCKER_HOST"] = docker.host
        yield docker
    finally:
        os.environ.pop("DOCKER_HOST", None)
        if before is not None:
            os.environ["DOCKER_HOST"] = before
        docker.close()
        shutil.rmtree(folder)


def _need() -> None:
    reason = None
    if os.geteuid() != 0:
        reason = "only root may run a Docker engine of its own"
    elif shutil.which("dockerd") is None:
        reason = "no dockerd on this machine"
    elif shutil.which("ip") is None:
        reason = "no ip command (iproute2) on this machine"
    if reason is None:
        return
    if "docker" in required():
        pytest.fail(f"FLEET_REQUIRE names docker, but: {reason}", pytrace=False)
    pytest.skip(reason)


def _run(*command: str) -> None:
    subprocess.run(command, check=True, capture_output=True)
