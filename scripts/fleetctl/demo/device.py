"""One device of the demo: its own folder, its own configuration, its own `fleet-agent` process."""

from __future__ import annotations

import hashlib
import json
import os
import signal
import subprocess
import sys
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from typing import IO

from fleetctl.demo.docker import remove_project
from fleetctl.errors import FleetctlError


@dataclass
class DemoDevice:
    """`root` holds everything of the device; `runtime` is `docker` or `simulated`."""

    name: str
    root: Path
    runtime: str
    process: subprocess.Popen[bytes] | None = None
    _log: IO[bytes] | None = None

    @property
    def project(self) -> str:
        """The Compose project: neither devices nor demos of one machine may share one."""
        return f"fleet-{self.name}-{hashlib.sha256(str(self.root.resolve()).encode()).hexdigest()[:8]}"

    @property
    def log_file(self) -> Path:
        return self.root / "agent.log"

    def configure(
        self,
        *,
        api_url: str,
        publishable_key: str,
        git_url: str,
        allowed_signers: Path,
        variables: dict[str, str],
    ) -> None:
        """Write `device.json` and the device's own values for its role's variables."""
        self.root.mkdir(parents=True, exist_ok=True)
        config = {
            "api_url": api_url,
            "publishable_key": publishable_key,
            "git_url": git_url,
            "allowed_signers": str(allowed_signers),
            "name": self.name,
            "runtime": self.runtime,
            "project": self.project,
        }
        (self.root / "device.json").write_text(json.dumps(config, indent=2))
        env = self.root / ".env"
        env.touch(mode=0o600)
        env.write_text("".join(f"{key}={value}\n" for key, value in variables.items()))

    def enroll(self, token: str) -> None:
        """Enroll with the provisioning token. Raises FleetctlError."""
        done = subprocess.run(
            self._command("enroll", "--token", token), capture_output=True, text=True, timeout=60, check=False
        )
        if done.returncode != 0:
            said = done.stderr.strip().splitlines()
            raise FleetctlError(
                "enrollment_failed",
                f"{self.name} could not enroll: {said[-1] if said else f'exit code {done.returncode}'}",
            )

    def start(self) -> None:
        """Run the daemon in the background; its log goes to `agent.log`."""
        self._log = self.log_file.open("ab")
        self.process = subprocess.Popen(
            self._command("run"), stdout=self._log, stderr=self._log, stdin=subprocess.DEVNULL,
            start_new_session=True,
        )  # fmt: skip

    def alive(self) -> bool:
        return self.process is not None and self.process.poll() is None

    def last_log_line(self) -> str:
        """How the agent's log ends; empty if nothing was logged."""
        lines = self.log_file.read_text(errors="replace").strip().splitlines()
        return lines[-1] if lines else ""

    def woken_after(self, moment: datetime) -> datetime | None:
        """When the agent's log first says that it was woken after `moment`."""
        for line in self.log_file.read_text(errors="replace").splitlines():
            stamp, _, text = line.partition(" ")
            if " woken: " in f" {text}" and (at := datetime.fromisoformat(stamp)) >= moment:
                return at
        return None

    def ask_to_stop(self) -> None:
        if self.alive() and self.process is not None:
            self.process.send_signal(signal.SIGTERM)

    def stop(self) -> None:
        """Stop the daemon and what it runs."""
        self.ask_to_stop()
        if self.process is not None:
            try:
                self.process.wait(timeout=20)
            except subprocess.TimeoutExpired:
                os.killpg(self.process.pid, signal.SIGKILL)
                self.process.wait()
        if self._log is not None:
            self._log.close()
        if self.runtime == "docker":
            remove_project(self.project)

    def _command(self, verb: str, *more: str) -> list[str]:
        return [
            sys.executable, "-m", "fleet_agent", verb,
            "--root", str(self.root), "--config", str(self.root / "device.json"), *more,
        ]  # fmt: skip
