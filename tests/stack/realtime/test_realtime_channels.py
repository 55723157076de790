"""Joining, sending, leaving: with the official Python client, and with plain frames where it cannot tell."""

from __future__ import annotations

import json
from typing import Any

import psycopg
import pytest
from realtime import RealtimeSubscribeStates

from tests.stack.realtime.support import Endpoint, EndpointFactory, Project, Raw, Subscribers, send


@pytest.fixture(scope="module")
def project(open_project: Project) -> Project:
    """Of this file: the protocol is the same on private and public channels, and these need no token."""
    return open_project


@pytest.fixture(scope="module")
def small(endpoint: EndpointFactory) -> Endpoint:
    """An endpoint with a payload limit of 1,000 bytes (hosted's padding of 500 comes on top)."""
    return endpoint(payloadBytes=1000)


async def test_a_client_broadcast_reaches_the_others_and_not_the_sender(
    subscribers: Subscribers, topic: str
) -> None:
    sender = await subscribers(topic, private=False).join()
    other = await subscribers(topic, private=False).join()
    await sender.channel.send_broadcast("ping", {"n": 1})
    assert await other.broadcast() == {"event": "ping", "payload": {"n": 1}}
    await other.channel.send_broadcast("pong", {"n": 2})
    assert await sender.broadcast() == {"event": "pong", "payload": {"n": 2}}


async def test_with_self_the_sender_gets_its_own_broadcast(subscribers: Subscribers, topic: str) -> None:
    sender = await subscribers(topic, private=False, self_=True).join()
    await sender.channel.send_broadcast("echo", {"n": 1})
    assert (await sender.broadcast())["event"] == "echo"


async def test_with_ack_a_broadcast_is_answered(project: Project, topic: str) -> None:
    async with Raw.open(project.realtime_url, project.publishable_key) as socket:
        raw = Raw(socket, "1.0.0")
        await raw.join(topic, {"broadcast": {"ack": True}})
        await raw.push(
            f"realtime:{topic}", "broadcast", {"type": "broadcast", "event": "e", "payload": {}}, ref="7"
        )
        assert await raw.receive() == {
            "topic": f"realtime:{topic}",
            "event": "phx_reply",
            "payload": {"status": "ok", "response": {}},
            "ref": "7",
        }


async def test_without_ack_a_broadcast_is_not_answered(project: Project, topic: str) -> None:
    async with Raw.open(project.realtime_url, project.publishable_key) as socket:
        raw = Raw(socket, "1.0.0")
        await raw.join(topic)
        await raw.push(
            f"realtime:{topic}", "broadcast", {"type": "broadcast", "event": "e", "payload": {}}, ref="7"
        )
        await raw.push("phoenix", "heartbeat", {}, ref="8")
        assert (await raw.receive())["ref"] == "8"


@pytest.mark.parametrize(("size", "answer"), [(1400, "ok"), (1600, "error")])
async def test_a_payload_over_the_limit_is_refused_with_ack(
    project: Project, small: Endpoint, topic: str, size: int, answer: str
) -> None:
    async with Raw.open(small.url, project.publishable_key) as socket:
        raw = Raw(socket, "1.0.0")
        await raw.join(topic, {"broadcast": {"ack": True}})
        await raw.push(
            f"realtime:{topic}",
            "broadcast",
            {"type": "broadcast", "event": "e", "payload": {"x": "x" * size}},
        )
        expected: dict[str, Any] = {} if answer == "ok" else {"error": "payload_size_exceeded"}
        assert (await raw.receive())["payload"] == {"status": answer, "response": expected}


async def test_private_and_public_topics_of_one_name_are_apart(
    project: Project, subscribers: Subscribers, db: psycopg.Connection, topic: str
) -> None:
    private = await subscribers(topic, token=project.token("service_role")).join()
    public = await subscribers(topic, private=False).join()
    for is_private in (True, False):
        send(db, topic, "private" if is_private else "public", {"v": 1}, private=is_private)
        send(db, topic, "end", {"v": 1}, private=not is_private)
    assert [(await private.broadcast())["event"] for _ in range(2)] == ["private", "end"]
    assert [(await public.broadcast())["event"] for _ in range(2)] == ["end", "public"]


async def test_leaving_closes_the_channel_and_stops_its_broadcasts(
    project: Project, db: psycopg.Connection, topic: str
) -> None:
    async with Raw.open(project.realtime_url, project.publishable_key) as socket:
        raw = Raw(socket, "1.0.0")
        await raw.join(topic)
        await raw.push(f"realtime:{topic}", "phx_leave", {}, ref="9")
        assert (await raw.receive())["payload"] == {"status": "ok", "response": {}}
        assert (await raw.receive())["event"] == "phx_close"
        send(db, topic, "late", {"v": 1}, private=False)
        await raw.join("another")
        send(db, "another", "marker", {"v": 1}, private=False)
        assert (await raw.receive())["payload"]["event"] == "marker"


async def test_the_official_client_sees_its_leaving_as_closed(subscribers: Subscribers, topic: str) -> None:
    subscriber = await subscribers(topic, private=False).join()
    await subscriber.channel.unsubscribe()
    assert (await subscriber.state())[0] is RealtimeSubscribeStates.CLOSED


async def test_joining_a_topic_again_closes_the_first_channel(project: Project, topic: str) -> None:
    async with Raw.open(project.realtime_url, project.publishable_key, "2.0.0") as socket:
        raw = Raw(socket, "2.0.0")
        assert (await raw.join(topic))[3] == "phx_reply"
        await raw.push(f"realtime:{topic}", "phx_join", {"config": {}}, ref="2", join_ref="2")
        assert await raw.receive() == ["1", "1", f"realtime:{topic}", "phx_close", {}]
        assert (await raw.receive())[:4] == ["2", "2", f"realtime:{topic}", "phx_reply"]


async def test_a_join_that_another_one_overtakes_is_answered_once(project: Project, topic: str) -> None:
    """Told that the first one closed, a v1 client would take it for the second and give up."""
    join = {"config": {"private": True}, "access_token": project.token("service_role")}
    async with Raw.open(project.realtime_url, project.publishable_key) as socket:
        raw = Raw(socket, "1.0.0")
        with psycopg.connect(project.db_url) as db:
            # No policy can be asked until this transaction ends, so all three joins are under way at once.
            db.execute("lock table realtime.messages")
            for ref in ("1", "2", "3"):
                await raw.push(f"realtime:{topic}", "phx_join", join, ref=ref, join_ref=None)
            await raw.push("phoenix", "heartbeat", {}, ref="4")
            assert (await raw.receive())["ref"] == "4"
        assert (await raw.receive())["ref"] == "3"
        await raw.push("phoenix", "heartbeat", {}, ref="5")
        assert (await raw.receive())["ref"] == "5"


@pytest.mark.parametrize("join_ref", ["of another join", None])
async def test_a_stale_join_ref_is_answered_as_hosted_does(
    project: Project, topic: str, join_ref: str | None
) -> None:
    """Handled like any other (Realtime's own tests say so), except for a leave, which is not answered."""
    wire = f"realtime:{topic}"
    ok = {"status": "ok", "response": {}}
    async with Raw.open(project.realtime_url, project.publishable_key, "2.0.0") as socket:
        raw = Raw(socket, "2.0.0")
        await raw.join(topic, {"broadcast": {"ack": True}})
        broadcast = {"type": "broadcast", "event": "e", "payload": {}}
        await raw.push(wire, "broadcast", broadcast, ref="2", join_ref=join_ref)
        assert await raw.receive() == ["1", "2", wire, "phx_reply", ok]
        await raw.push(wire, "phx_leave", {}, ref="3", join_ref=join_ref)
        await raw.push(wire, "broadcast", broadcast, ref="4")
        assert await raw.receive() == ["1", "4", wire, "phx_reply", ok]
        await raw.push(wire, "phx_leave", {}, ref="5")
        assert await raw.receive() == ["1", "5", wire, "phx_reply", ok]
        assert (await raw.receive())[3] == "phx_close"
        # A topic that is not joined is left whatever the join_ref is.
        await raw.push(wire, "phx_leave", {}, ref="6", join_ref=join_ref)
        assert await raw.receive() == [join_ref, "6", wire, "phx_reply", ok]


async def test_a_join_without_topic_is_refused(project: Project, small: Endpoint) -> None:
    async with Raw.open(small.url, project.publishable_key) as socket:
        reply = await Raw(socket, "1.0.0").join("")
        assert reply["payload"]["response"]["reason"] == "TopicNameRequired: You must provide a topic name"


async def test_a_broadcast_from_the_database_carries_its_id(
    subscribers: Subscribers, db: psycopg.Connection, topic: str
) -> None:
    subscriber = await subscribers(topic, private=False).join()
    send(db, topic, "changed", {"v": 1}, private=False)
    row = db.execute("select id::text from realtime.messages where topic = %s", [topic]).fetchone()
    assert row is not None
    assert await subscriber.broadcast() == {
        "event": "changed",
        "payload": {"v": 1, "id": row[0]},
        "meta": {"id": row[0]},
    }


async def test_protocol_2_gets_database_broadcasts_as_binary_frames(
    project: Project, db: psycopg.Connection, topic: str
) -> None:
    async with Raw.open(project.realtime_url, project.publishable_key, "2.0.0") as socket:
        raw = Raw(socket, "2.0.0")
        reply = await raw.join(topic)
        assert reply == [
            "1",
            "1",
            f"realtime:{topic}",
            "phx_reply",
            {"status": "ok", "response": {"postgres_changes": []}},
        ]
        send(db, topic, "geändert", {"v": 1, "id": "given"}, private=False)
        frame = await raw.receive()
    assert isinstance(frame, bytes)
    kind, topic_size, event_size, meta_size, encoding = frame[:5]
    name, rest = frame[5 : 5 + topic_size], frame[5 + topic_size :]
    event, meta, body = (
        rest[:event_size],
        rest[event_size : event_size + meta_size],
        rest[event_size + meta_size :],
    )
    assert (kind, encoding) == (4, 1)
    assert (name.decode(), event.decode()) == (f"realtime:{topic}", "geändert")
    assert json.loads(body) == {"v": 1, "id": "given"}
    assert set(json.loads(meta)) == {"id"}


async def test_bytes_from_the_database_reach_protocol_2_only(
    project: Project, subscribers: Subscribers, db: psycopg.Connection, topic: str
) -> None:
    old = await subscribers(topic, private=False).join()
    async with Raw.open(project.realtime_url, project.publishable_key, "2.0.0") as socket:
        raw = Raw(socket, "2.0.0")
        await raw.join(topic)
        db.execute("select realtime.send_binary(%s, 'bytes', %s, false)", [b"\x00\xff", topic])
        send(db, topic, "end", {"v": 1}, private=False)
        frame = await raw.receive()
    assert frame[0] == 4
    assert frame[4] == 0
    assert frame.endswith(b"\x00\xff")
    assert await old.events("end") == []


async def test_postgres_changes_join_but_say_that_they_are_not_offered(project: Project, topic: str) -> None:
    """A subscription that silently never fires would be worse than none."""
    change = {"event": "*", "schema": "public", "table": "devices"}
    async with Raw.open(project.realtime_url, project.publishable_key) as socket:
        raw = Raw(socket, "1.0.0")
        reply = await raw.join(topic, {"postgres_changes": [change]})
        (answered,) = reply["payload"]["response"]["postgres_changes"]
        assert isinstance(answered.pop("id"), int)
        assert answered == change
        system = (await raw.receive())["payload"]
        assert (system["extension"], system["status"]) == ("postgres_changes", "error")
        assert system["message"].startswith("The embedded stack does not support Postgres changes")
