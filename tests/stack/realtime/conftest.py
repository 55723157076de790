"""A project with Realtime, a cast of callers, and the official Python client connected as one of them.

Most tests talk to the Realtime endpoint of the stack's own server. Those that need their own limits start the
same endpoint beside it, on the same database (`endpoint`).
"""

from __future__ import annotations

import secrets
import uuid
from collections.abc import AsyncIterator, Iterator
from dataclasses import replace
from pathlib import Path

import psycopg
import pytest

from fleetctl.stack.local_stack import LocalStack
from tests.stack.realtime.support import Cast, Endpoint, EndpointFactory, Project, Subscribers, make_device


@pytest.fixture(scope="session")
def stack_project(stack: LocalStack) -> Project:
    """The running stack's database, addresses and keys."""
    return Project.of(stack)


@pytest.fixture(scope="session")
def project(stack_project: Project) -> Project:
    """What most tests talk to; a file may choose `open_project` instead."""
    return stack_project


@pytest.fixture(scope="session")
def open_project(stack_project: Project, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Project]:
    """The same project with an endpoint that allows public channels, which need no policy and no token."""
    endpoint = Endpoint.start(stack_project, {}, tmp_path_factory.mktemp("endpoint") / "log")
    yield replace(stack_project, realtime_url=endpoint.url)
    endpoint.stop()


@pytest.fixture
def db(project: Project) -> Iterator[psycopg.Connection]:
    """The superuser's connection; every statement commits by itself."""
    with psycopg.connect(project.db_url, autocommit=True) as connection:
        yield connection


@pytest.fixture
def topic() -> str:
    """A topic of the test's own."""
    return f"test:{secrets.token_hex(6)}"


@pytest.fixture(scope="module")
def cast(project: Project) -> Iterator[Cast]:
    """Two active devices, a suspended one, and an operator; retired after the file."""
    with psycopg.connect(project.db_url, autocommit=True) as connection:
        operator = uuid.uuid4()
        connection.execute(
            "insert into public.operators (user_id, email, rank) values (%s, 'rt@example.com', 'viewer')",
            [operator],
        )
        cast = Cast(
            device=make_device(connection, "active", "canary"),
            neighbor=make_device(connection, "active", "stable"),
            suspended=make_device(connection, "suspended", "canary"),
            operator=operator,
        )
        yield cast
        connection.execute("update public.devices set state = 'retired' where id = any(%s)", [cast.devices])
        connection.execute("delete from public.operators where user_id = %s", [operator])


@pytest.fixture(scope="module")
def endpoint(project: Project, tmp_path_factory: pytest.TempPathFactory) -> Iterator[EndpointFactory]:
    """Start endpoints with limits of their own; they stop after the file."""
    started: list[Endpoint] = []

    def start(**limits: int | bool) -> Endpoint:
        log: Path = tmp_path_factory.mktemp("endpoint") / "log"
        started.append(Endpoint.start(project, limits, log))
        return started[-1]

    yield start
    for one in started:
        one.stop()


@pytest.fixture
async def subscribers(project: Project) -> AsyncIterator[Subscribers]:
    """Connect official Python clients; they close after the test."""
    async with Subscribers(project) as subscribers:
        yield subscribers
