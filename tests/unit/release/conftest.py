"""A small fleet repository with three roles, and a Git host for it."""

from __future__ import annotations

import random
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest

from fleet_agent.release import Limits
from fleetctl.fleet_repo import FleetRepo, SigningKey
from tests.support.git_server import GitServer

ROLE = "kiosk"


@pytest.fixture(scope="session")
def key(tmp_path_factory: pytest.TempPathFactory) -> SigningKey:
    return SigningKey.create(tmp_path_factory.mktemp("key"))


@pytest.fixture
def repo(tmp_path: Path, key: SigningKey) -> FleetRepo:
    """Roles kiosk (with files worth counting), other and common; nothing committed yet."""
    repo = FleetRepo.create(tmp_path / "host" / "fleet", key, roles=None)
    noise = random.Random(7)
    for name, content in {
        f"roles/{ROLE}/role.yaml": b"description: kiosk\n",
        f"roles/{ROLE}/compose.yaml": b"services: {}\n",
        f"roles/{ROLE}/validate": b"#!/bin/sh\nexit 0\n",
        f"roles/{ROLE}/data/a.bin": noise.randbytes(60_000),
        f"roles/{ROLE}/data/b.bin": noise.randbytes(60_000),
        f"roles/{ROLE}/data/c.bin": noise.randbytes(60_000),
        f"roles/{ROLE}/data/d.bin": noise.randbytes(60_000),
        "roles/common/shared.txt": b"shared\n",
        "roles/other/big.bin": noise.randbytes(400_000),
        "README.md": b"a fleet\n",
    }.items():
        repo._write(name, content)
    return repo


@dataclass
class Device:
    """Where a device keeps what it fetches."""

    root: Path

    @property
    def git(self) -> Path:
        return self.root / "git"

    @property
    def releases(self) -> Path:
        return self.root / "releases"


@pytest.fixture
def device(tmp_path: Path) -> Device:
    return Device(tmp_path / "device")


@pytest.fixture
def server(tmp_path: Path) -> Iterator[GitServer]:
    (tmp_path / "host").mkdir(exist_ok=True)
    with GitServer(tmp_path / "host").running() as server:
        yield server


@pytest.fixture
def limits() -> Limits:
    """Patient enough to see a retry, not more."""
    return Limits(attempts=3, batch_files=2, idle_s=30, total_s=60)
