"""One device of `fleetctl demo faults`: a folder, a Compose project, ports, and no control plane."""

from __future__ import annotations

import json
import os
import time
from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path
from uuid import uuid4

from fleet_agent.attempts.outbox import Outbox
from fleet_agent.engine import api
from fleet_agent.engine.config import EngineConfig
from fleet_agent.model import Action, Attempt, DeviceAssignment, Directive, EngineStatus, Release
from fleetctl.demo.beacon import BEACON, BeaconRepo, Breakage, beacon
from fleetctl.demo.docker import remove_project
from fleetctl.demo.faults.engine_run import EngineRun, OnProgress, run_engine
from fleetctl.demo.probe import Probe
from fleetctl.errors import FleetctlError
from fleetctl.stack.ports import free_ports

#: The beacon's times are meant for slow machines; a person who watches a dozen failures wants less.
PATIENCE = {
    "docker": {"grace_s: 10": "grace_s: 4", "failure_budget: 3": "failure_budget: 1"},
    "simulated": {
        "grace_s: 10": "grace_s: 0.2", "interval_s: 1": "interval_s: 0.1", "watch_s: 3": "watch_s: 0.3",
        "failure_budget: 3": "failure_budget: 1",
    },
}  # fmt: skip


@dataclass
class FaultDevice:
    """`runtime` is `docker` or `simulated`. Releases are made from the beacon and offered by hand."""

    root: Path
    repo: BeaconRepo
    runtime: str
    project: str
    ports: list[int] = field(default_factory=lambda: free_ports(3))
    #: Releases made so far; their versions are `<count>.0.0`.
    count: int = 0
    _away: bool = False

    def __post_init__(self) -> None:
        self.root.mkdir(parents=True)
        self.web, self.clock, self.page = self.ports
        env = self.root / ".env"
        env.touch(mode=0o600)
        env.write_text(
            f"BEACON_PORT={self.web}\nBEACON_CLOCK_PORT={self.clock}\nSAFE_MODE_PORT={self.page}\n"
        )
        self.docker_back()
        self.config = EngineConfig.model_validate(
            {
                "root": self.root,
                "git_url": self.repo.url,
                "runtime": self.runtime,
                "project": self.project,
                "allowed_signers": self.repo.allowed_signers,
                # Each scenario fails once: no reason for safe mode.
                "safe_mode_after": 1000,
            }
        )

    # Docker, as this device sees it

    @property
    def environment(self) -> dict[str, str]:
        return {"DOCKER_HOST": f"unix://{self.socket}"} if self.socket.is_symlink() or self._away else {}

    def docker_away(self) -> None:
        """Close this device's own way to Docker; nobody else's."""
        self._away = True
        self.socket.unlink(missing_ok=True)

    def docker_back(self) -> None:
        """A link to the real socket; if Docker is reached by TCP or ssh, the device uses that directly."""
        self._away = False
        self.socket = self.root / "docker.sock"
        real = os.environ.get("DOCKER_HOST", "unix:///var/run/docker.sock")
        if self.runtime == "docker" and real.startswith("unix://"):
            self.socket.unlink(missing_ok=True)
            self.socket.symlink_to(real.removeprefix("unix://"))

    # Releases

    def release(
        self, breakage: Breakage | None = None, *, edits: Mapping[str, tuple[str, str]] | None = None
    ) -> Release:
        """A signed commit of the beacon; `edits` maps a file to the text to replace and its replacement."""
        self.count += 1
        version = f"{self.count}.0.0"
        files = beacon(version, breakage)
        changes = [(f"{BEACON}/role.yaml", old, new) for old, new in PATIENCE[self.runtime].items()]
        changes += [(f"{BEACON}/{name}", old, new) for name, (old, new) in (edits or {}).items()]
        for name, old, new in changes:
            if old not in files[name]:
                raise FleetctlError(
                    "beacon_changed",
                    f"The beacon's {name} no longer contains {old!r}, which the demo changes.",
                )
            files[name] = files[name].replace(old, new, 1)
        commit = self.repo.commit(version, files)
        return Release(id=uuid4(), commit_sha=commit, version=version, branch="main")

    def directive(self, release: Release) -> Directive:
        assignment = DeviceAssignment(
            id=uuid4(), name="faults", role="beacon", segment="canary", branch="main"
        )
        return Directive(
            action=Action.UPDATE,
            device=assignment,
            release=release,
            next_poll_s=900,
            server_time=datetime.now(UTC),
        )

    def offer(
        self,
        release: Release,
        *,
        kill_in: str | None = None,
        on_progress: OnProgress = lambda progress: None,
    ) -> EngineRun:
        """Have the engine converge to it."""
        return run_engine(
            self.config,
            self.directive(release),
            kill_in=kill_in,
            environment=self.environment,
            on_progress=on_progress,
        )

    def recover(self, on_progress: OnProgress = lambda progress: None) -> EngineRun:
        """What the next start of the agent does."""
        return run_engine(self.config, environment=self.environment, on_progress=on_progress)

    # What came of it

    def status(self) -> EngineStatus:
        return api.status(self.config, containers=True)

    def rows(self, release: Release) -> list[Attempt]:
        """What `update_history` would be sent about it."""
        pending = Outbox(self.config.paths.outbox).pending()
        return [attempt for attempt in pending if attempt.to_commit == release.commit_sha]

    def troubles(self, release: Release | None) -> list[str]:
        """What is not as it would be at rest on a healthy `release` (None: in safe mode)."""
        status = self.status()
        wanted = "steady" if release else "safe_mode"
        found = [] if status.phase == wanted else [f"its phase is {status.phase}, not {wanted}"]
        if release is not None:
            if status.current != release:
                has = status.current.version if status.current else "nothing"
                found.append(f"it runs {has}, not {release.version}")
            states = {service.service: service.state for service in status.services}
            if states != {"web": "running", "clock": "running"}:
                found.append(f"its services are {states}")
            if self.runtime == "docker" and (said := self._answer(release.version)) != release.version:
                found.append(f"a client receives {said!r}, not {release.version}")
        if (self.config.paths.state / "attempt.json").exists() or self.config.paths.next.is_symlink():
            found.append("files of the attempt were left behind")
        return found

    def _answer(self, wanted: str) -> str | None:
        """What a client is told; one that asks at a bad instant asks again, for a moment."""
        said: str | None = None
        deadline = time.monotonic() + 3
        while said != wanted and time.monotonic() < deadline:
            probe = Probe(self.web)
            said = probe.ask()
            if said != wanted:
                time.sleep(0.1)
        return said

    def absent_image(self, image: str) -> None:
        """Have the simulated registry lack an image."""
        file = self.config.paths.state / "simulated.json"
        world = json.loads(file.read_text())
        file.write_text(json.dumps({**world, "absent_images": [*world["absent_images"], image]}))

    def remove(self) -> None:
        if self.runtime == "docker":
            remove_project(self.project)
