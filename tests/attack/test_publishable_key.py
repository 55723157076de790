"""Whoever has the publishable key, which every device and the dashboard's file hold, and nothing else."""

from __future__ import annotations

from typing import Any

import psycopg
import pytest
from websockets.asyncio.client import ClientConnection

from fleetctl.stack.local_stack import LocalStack
from tests.stack.conftest import stack  # noqa: F401  the fixture
from tests.stack.realtime.support import Project, Raw

PRIVATE_ONLY = {
    "status": "error",
    "response": {"reason": "PrivateOnly: This project only allows private channels"},
}


@pytest.fixture
def project(stack: LocalStack) -> Project:  # noqa: F811
    return Project.of(stack)


async def joins(socket: ClientConnection, configs: list[dict[str, Any]]) -> list[Any]:
    """Join a topic of its own for each of `configs`, all at once; the replies, in any order."""
    raw = Raw(socket, "1.0.0")
    for number, config in enumerate(configs):
        await raw.push(f"realtime:stranger:{number}", "phx_join", {"config": config}, join_ref=str(number))
    return [(await raw.receive())["payload"] for _ in configs]


async def test_a_public_channel_is_refused(project: Project) -> None:
    """However `private` is left out, also with a token of the service role: there is no public channel."""
    public: list[dict[str, Any]] = [{}, {"private": False}, {"private": None}, {"private": "false"}]
    for key in (project.publishable_key, project.secret_key):
        async with Raw.open(project.realtime_url, key) as socket:
            assert await joins(socket, public) == [PRIVATE_ONLY] * len(public)


async def test_a_private_channel_is_refused_by_the_policies(project: Project) -> None:
    async with Raw.open(project.realtime_url, project.publishable_key) as socket:
        (reply,) = await joins(socket, [{"private": True}])
    assert reply["response"]["reason"].startswith("Unauthorized: You do not have permissions to read")


def test_no_public_topic_is_used_by_the_fleet_itself(project: Project) -> None:
    """Nothing in the migrations sends where nobody may listen."""
    with psycopg.connect(project.db_url) as db:
        found = db.execute(
            "select p.proname from pg_proc p join pg_namespace n on n.oid = p.pronamespace"
            " where n.nspname in ('public', 'private') and p.prosrc ~ 'realtime\\.send'"
            " and p.prosrc ~* 'realtime\\.send[^;]*\\yfalse\\y'"
        ).fetchall()
    assert found == []
