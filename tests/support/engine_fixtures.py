from __future__ import annotations

from pathlib import Path

import pytest

from fleet_agent.engine.dependencies import Dependencies
from tests.support.engine_harness import FakeClock, Fleet


@pytest.fixture(scope="session")
def fleet(tmp_path_factory: pytest.TempPathFactory) -> Fleet:
    return Fleet(tmp_path_factory.mktemp("fleet") / "repo")


@pytest.fixture
def clock() -> FakeClock:
    return FakeClock()


@pytest.fixture
def dependencies(clock: FakeClock) -> Dependencies:
    return Dependencies(clock=clock)


@pytest.fixture
def root(tmp_path: Path) -> Path:
    return tmp_path / "device"
