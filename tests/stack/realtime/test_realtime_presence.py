"""Presence: who is there, who came, who went."""

from __future__ import annotations

import asyncio
from typing import Any

import psycopg
import pytest

from tests.stack.realtime.support import (
    Endpoint,
    EndpointFactory,
    Project,
    Raw,
    Subscriber,
    Subscribers,
)
from tests.support.patience import PATIENCE_S


@pytest.fixture(scope="module")
def project(open_project: Project) -> Project:
    """Of this file: the protocol is the same on private and public channels, and these need no token."""
    return open_project


@pytest.fixture(scope="module")
def strict(endpoint: EndpointFactory) -> Endpoint:
    """Two presence calls a channel, and small ones."""
    return endpoint(presenceCallsPerWindow=2, payloadBytes=1000)


def watch(subscriber: Subscriber) -> asyncio.Queue[tuple[str, str, list[dict[str, Any]]]]:
    """The client's own presence callbacks, in a queue: (join or leave, key, presences)."""
    seen: asyncio.Queue[tuple[str, str, list[dict[str, Any]]]] = asyncio.Queue()
    subscriber.channel.on_presence_join(lambda key, _, new: seen.put_nowait(("join", key, new)))  # type: ignore[arg-type]
    subscriber.channel.on_presence_leave(lambda key, _, left: seen.put_nowait(("leave", key, left)))  # type: ignore[arg-type]
    return seen


async def next_of(queue: asyncio.Queue[Any]) -> Any:
    async with asyncio.timeout(PATIENCE_S):
        return await queue.get()


async def test_members_see_each_other_come_change_and_go(subscribers: Subscribers, topic: str) -> None:
    watcher = subscribers(topic, private=False, presence_key="watcher")
    seen = watch(watcher)
    await watcher.join()
    member = await subscribers(topic, private=False, presence_key="member").join()
    await member.channel.track({"mood": "fine"})
    kind, key, (presence,) = await next_of(seen)
    assert (kind, key, presence["mood"]) == ("join", "member", "fine")
    await member.channel.track({"mood": "better"})
    assert [(await next_of(seen))[:2] for _ in range(2)] == [("join", "member"), ("leave", "member")]
    there: list[Any] = list(watcher.channel.presence_state()["member"])
    assert [presence["mood"] for presence in there] == ["better"]
    await member.channel.untrack()
    assert (await next_of(seen))[:2] == ("leave", "member")
    assert watcher.channel.presence_state() == {}


async def test_who_joins_later_is_told_who_is_there(subscribers: Subscribers, topic: str) -> None:
    early = await subscribers(topic, private=False, presence_key="early").join()
    await early.channel.track({"n": 1})
    late = subscribers(topic, private=False, presence_key="late")
    seen = watch(late)
    await late.join()
    assert (await next_of(seen))[:2] == ("join", "early")


async def test_a_member_whose_socket_closes_has_left(subscribers: Subscribers, topic: str) -> None:
    watcher = subscribers(topic, private=False, presence_key="watcher")
    seen = watch(watcher)
    await watcher.join()
    member = await subscribers(topic, private=False, presence_key="member").join()
    await member.channel.track({"n": 1})
    assert (await next_of(seen))[0] == "join"
    await member.client.close()
    assert (await next_of(seen))[:2] == ("leave", "member")


async def test_two_members_under_one_key_leave_one_by_one(project: Project, topic: str) -> None:
    config = {"presence": {"enabled": True, "key": "shared"}}
    watching = Raw.open(project.realtime_url, project.publishable_key)
    async with watching as first, Raw.open(project.realtime_url, project.publishable_key) as second:
        watcher, member = Raw(first, "1.0.0"), Raw(second, "1.0.0")
        await watcher.join(topic, config)
        assert (await watcher.receive())["event"] == "presence_state"
        await watcher.push(f"realtime:{topic}", "presence", {"event": "track", "payload": {"n": 1}})
        assert [(await watcher.receive())["event"] for _ in range(2)] == ["presence_diff", "phx_reply"]
        await member.join(topic, config)
        state = (await member.receive())["payload"]
        assert [meta["n"] for meta in state["shared"]["metas"]] == [1]
        await member.push(f"realtime:{topic}", "presence", {"event": "track", "payload": {"n": 2}})
        joined = (await watcher.receive())["payload"]
        assert joined["leaves"] == {}
        await second.close()
        left = (await watcher.receive())["payload"]
        assert left["joins"] == {}
        assert left["leaves"]["shared"]["metas"] == joined["joins"]["shared"]["metas"]


async def test_presence_on_a_private_topic_needs_its_own_policy(
    project: Project, db: psycopg.Connection, topic: str
) -> None:
    """Who may broadcast may not therefore be seen: the extension is part of the policy's row."""
    role = "rt_presence_test"
    db.execute(f"drop owned by {role}") if _role_exists(db, role) else db.execute(
        f"create role {role} nologin"
    )
    db.execute(f"grant usage on schema realtime to {role}")
    db.execute(f"grant select, insert on realtime.messages to {role}")
    for operation, clause in (("select", "using"), ("insert", "with check")):
        db.execute(
            f"create policy {role}_{operation} on realtime.messages for {operation} to {role} "
            f"{clause} (extension = 'broadcast' and realtime.topic() = '{topic}')"
        )
    try:
        async with Raw.open(project.realtime_url, project.publishable_key) as socket:
            raw = Raw(socket, "1.0.0")
            config = {"private": True, "presence": {"enabled": True, "key": "k"}, "broadcast": {"ack": True}}
            joined = await raw.join(topic, config, access_token=project.token(role))
            assert joined["payload"]["status"] == "ok"
            await raw.push(
                f"realtime:{topic}", "broadcast", {"type": "broadcast", "event": "e", "payload": {}}, ref="2"
            )
            assert (await raw.receive())["payload"]["status"] == "ok"
            await raw.push(f"realtime:{topic}", "presence", {"event": "track", "payload": {}}, ref="3")
            assert (await raw.receive())["payload"]["status"] == "error"
    finally:
        db.execute(f"drop policy {role}_select on realtime.messages")
        db.execute(f"drop policy {role}_insert on realtime.messages")
        db.execute(f"drop owned by {role}")
        db.execute(f"drop role {role}")


def _role_exists(db: psycopg.Connection, role: str) -> bool:
    return db.execute("select from pg_roles where rolname = %s", [role]).fetchone() is not None


@pytest.mark.parametrize("call", [{"event": "track", "payload": "text"}, {"event": "dance"}])
async def test_a_call_that_is_none_is_answered_with_an_error(
    project: Project, topic: str, call: dict[str, Any]
) -> None:
    async with Raw.open(project.realtime_url, project.publishable_key) as socket:
        raw = Raw(socket, "1.0.0")
        await raw.join(topic)
        await raw.push(f"realtime:{topic}", "presence", call)
        assert (await raw.receive())["payload"]["status"] == "error"


async def test_too_many_presence_calls_end_the_channel(
    subscribers: Subscribers, strict: Endpoint, topic: str
) -> None:
    subscriber = await subscribers(topic, private=False, url=strict.url, presence_key="k").join()
    for n in range(3):
        await subscriber.channel.track({"n": n})
    assert await subscriber.closing() == "Client presence rate limit exceeded"


async def test_too_large_a_presence_ends_the_channel(
    subscribers: Subscribers, strict: Endpoint, topic: str
) -> None:
    subscriber = await subscribers(topic, private=False, url=strict.url, presence_key="k").join()
    await subscriber.channel.track({"x": "x" * 1600})
    assert await subscriber.closing() == "Track message size exceeded"
