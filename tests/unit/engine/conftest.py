import shutil
from pathlib import Path

import pytest

from tests.support.engine_fixtures import clock, dependencies, fleet  # noqa: F401
from tests.support.engine_harness import Fleet


@pytest.fixture
def root(fleet: Fleet) -> Path:  # noqa: F811
    """A device in the same place each time, so that one that runs v1 can be copied there (`Fleet.on_v1`)."""
    place = fleet.repo.path.with_name("device")
    shutil.rmtree(place, ignore_errors=True)
    return place
