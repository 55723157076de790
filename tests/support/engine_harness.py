"""What the engine's tests share: a fleet repository, directives, a clock that does not wait."""

from __future__ import annotations

import json
import shutil
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from pathlib import Path
from uuid import NAMESPACE_URL, UUID, uuid5

from fleet_agent.attempts.outbox import Outbox
from fleet_agent.engine import api
from fleet_agent.engine.config import EngineConfig
from fleet_agent.engine.dependencies import Dependencies
from fleet_agent.model import Action, Attempt, DeviceAssignment, Directive, Release
from fleetctl.fleet_repo import FleetRepo

START = datetime(2026, 11, 23, 12, 0, tzinfo=UTC)

ROLE_YAML = """\
description: Two services that the engine's tests update.
variables:
  GREETING: {type: string, default: hello, description: What the page says.}
  PASSWORD: {type: string, secret: true, description: Never shown.}
health:
  grace_s: 2
  successes: 2
  interval_s: 0.5
  watch_s: 1
  deadline_s: 20
  failure_budget: 1
"""

COMPOSE_YAML = """\
services:
  web:
    image: busybox:stable
    command: [sleep, "1000000"]
    init: true
    stop_grace_period: 1s
    environment: {{VERSION: "${{FLEET_RELEASE_VERSION}}", GREETING: "${{GREETING}}"}}
    volumes: ["./page:/page:ro"]
    labels: {{fleet.simulate: "{behavior}"}}
  clock:
    image: busybox:stable
    command: [sleep, "1000000"]
    init: true
    stop_grace_period: 1s
"""


@dataclass
class FakeClock:
    """Time that passes while somebody sleeps, and a millisecond with each look at the wall clock.

    The machine's own clock is `ahead` of the control plane's.
    """

    at: datetime = START
    ahead: timedelta = timedelta()
    passed: float = 0.0
    naps: list[float] = field(default_factory=list)

    def now(self) -> datetime:
        return self.corrected() + self.ahead

    def corrected(self) -> datetime:
        self.passed += 0.001
        return self.at + timedelta(seconds=self.passed)

    def monotonic(self) -> float:
        return self.passed

    def sleep(self, seconds: float) -> None:
        self.naps.append(seconds)
        # Never zero: a loop that waits for time to pass must see it pass.
        self.passed += max(seconds, 0.01)


class Fleet:
    """A signed fleet repository whose releases are made on demand, each once."""

    def __init__(self, folder: Path, role: str = "tested") -> None:
        self.repo = FleetRepo.create(folder, roles=None)
        self.role = role
        self._releases: dict[str, Release] = {}

    def release(
        self,
        version: str,
        behavior: str = "",
        *,
        edits: dict[str, str] | None = None,
        sign: bool = True,
        branch: str = "main",
    ) -> Release:
        """The release `version`; `behavior` is what its service `web` does (see the simulated runtime).

        `edits` are files of the role, or of the repository where their name starts with `/`.
        """
        if version not in self._releases:
            base = f"roles/{self.role}"
            files = {
                f"{base}/role.yaml": ROLE_YAML,
                f"{base}/compose.yaml": COMPOSE_YAML.format(behavior=behavior),
                f"{base}/page/index.html": f"<p>{version}</p>\n",
                f"{base}/validate": None,
            }
            if not (self.repo.path / base / "validate").exists():
                del files[f"{base}/validate"]
            for name, text in (edits or {}).items():
                files[name.lstrip("/") if name.startswith("/") else f"{base}/{name}"] = text
            commit = self.repo.commit(version, files, sign=sign)
            self._releases[version] = Release(
                id=uuid5(NAMESPACE_URL, f"{version}.{commit}"),
                commit_sha=commit,
                version=version,
                branch=branch,
            )
        return self._releases[version]

    def on_v1(self, config: EngineConfig, dependencies: Dependencies) -> None:
        """Make `config.root` a device that runs v1: updated to it if it is the first there, else copied.

        Its own path is in what a device keeps, so only a device in the same place can be a copy.
        """
        clock, root = dependencies.clock, config.root
        assert isinstance(clock, FakeClock)
        kept = self.repo.path.with_name(f"{self.repo.path.name}.v1") / root.relative_to("/")
        moments = kept.with_name(f"{kept.name}.moments.json")
        if not kept.exists():
            first = FakeClock()
            directive = self.directive(self.release("v1"))
            api.converge(self.config(root), directive, dependencies=Dependencies(clock=first))
            kept.parent.mkdir(parents=True)
            moments.write_text(json.dumps([first.passed, first.naps]))
            shutil.copytree(root, kept, symlinks=True)
        else:
            shutil.copytree(kept, root, symlinks=True, dirs_exist_ok=True)
        passed, naps = json.loads(moments.read_text())
        clock.passed += passed
        clock.naps += naps

    def config(self, root: Path, **changes: object) -> EngineConfig:
        root.mkdir(parents=True, exist_ok=True)
        settings: dict[str, object] = {
            "root": root,
            "git_url": self.repo.url,
            "allowed_signers": self.repo.allowed_signers,
            "runtime": "simulated",
            "min_free_bytes": 1024 * 1024,
            "min_memory_bytes": 1024 * 1024,
            "docker_patience_s": 2.0,
            **changes,
        }
        return EngineConfig.model_validate(settings)

    def directive(
        self, release: Release | None, action: Action = Action.UPDATE, **changes: object
    ) -> Directive:
        settings: dict[str, object] = {
            "action": action,
            "release": release,
            "device": DeviceAssignment(
                id=UUID(int=7), name="bench-1", role=self.role, segment="canary", branch="main"
            ),
            "next_poll_s": 900,
            "server_time": START,
            **changes,
        }
        return Directive.model_validate(settings)


def rows(config: EngineConfig) -> list[Attempt]:
    """What waits to be sent, oldest first."""
    return Outbox(config.paths.outbox).pending()
