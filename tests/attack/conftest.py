"""What an attacker gets hold of: a fleet's Git host, a device that fetches from it.

One file for each actor: `test_git_host.py` runs the Git host and has no key, and so on. A line of
docs/usage/security.md names each test.
"""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from tests.support.engine_fixtures import clock, dependencies, fleet, root  # noqa: F401
from tests.support.engine_harness import Fleet
from tests.support.git_server import GitServer


@pytest.fixture
def host(fleet: Fleet) -> Iterator[GitServer]:  # noqa: F811  the fixture
    """The fleet's Git host, which does what the attacker tells it."""
    with GitServer(fleet.repo.path.parent).running() as server:
        yield server
