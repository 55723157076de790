"""A device on disk: configuration, key, and a token that is still good, so that no test needs a function."""

from __future__ import annotations

import json
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any
from uuid import UUID, uuid4

import httpx
import pytest
import respx

from fleet_agent.config import ConfigFile
from fleet_agent.control_plane.client import ControlPlane
from fleet_agent.control_plane.identity import Identity
from fleet_agent.daemon.loop import Daemon
from fleet_agent.log import Log, set_up
from fleet_agent.paths import Paths
from fleet_agent.support.clock import Clock

API = "http://control.test"
FAKE_ENGINE = Path(__file__).with_name("fake_engine.py")


@dataclass
class Device:
    folder: Path
    identity: Identity

    @property
    def id(self) -> UUID:
        assert self.identity.device_id is not None
        return self.identity.device_id

    @property
    def paths(self) -> Paths:
        return Paths(self.folder)

    @property
    def config_path(self) -> Path:
        return self.folder / "device.json"

    def configure(self, **changes: Any) -> None:
        content = {
            "api_url": API,
            "publishable_key": "sb_publishable_x",
            "git_url": "file:///nowhere",
            "verify_signatures": False,
            "runtime": "simulated",
            "wake": False,
            **changes,
        }
        self.config_path.write_text(json.dumps(content))

    def keep_token(self, value: str = "token-1", *, life: timedelta = timedelta(hours=12)) -> None:
        issued = datetime.now(UTC) - timedelta(minutes=1)
        kept = {
            "device_id": str(self.id),
            "api_url": API,
            "access_token": value,
            "issued_at": issued.isoformat(),
            "expires_at": (issued + life).isoformat(),
        }
        (self.identity.folder / "token.json").write_text(json.dumps(kept))

    def clock(self) -> Clock:
        return Clock(self.paths.state / "clock_floor")

    def plane(self) -> ControlPlane:
        return ControlPlane(ConfigFile.open(self.config_path).current, self.identity, self.clock())

    def daemon(self, log: Log, **changes: Any) -> Daemon:
        return Daemon(
            self.paths,
            ConfigFile.open(self.config_path),
            self.identity,
            log,
            engine_command=(sys.executable, str(FAKE_ENGINE)),
            **changes,
        )

    def directive(self, **changes: Any) -> dict[str, Any]:
        """An answer of desired_state()."""
        return {
            "action": "run",
            "device": {
                "id": str(self.id), "name": "one", "role": "beacon", "segment": "canary", "branch": "main",
            },
            "release": None,
            "rollout_id": None,
            "gates": [],
            "commands": [],
            "config": {"poll_interval_s": None, "labels": {}},
            "next_poll_s": 900,
            "server_time": datetime.now(UTC).isoformat(),
            **changes,
        }  # fmt: skip


@pytest.fixture
def device(tmp_path: Path) -> Device:
    made = Device(tmp_path, Identity.load_or_create(Paths(tmp_path)).remember(uuid4()))
    made.configure()
    made.keep_token()
    return made


@pytest.fixture
def log() -> Log:
    return set_up("INFO")


@pytest.fixture
def rest() -> Iterator[respx.MockRouter]:
    """The control plane's HTTP edge: what is not routed is refused loudly."""
    with respx.mock(base_url=API, assert_all_called=False) as router:
        yield router


def json_answer(body: Any, status: int = 200, **headers: str) -> httpx.Response:
    return httpx.Response(status, json=body, headers=headers)
