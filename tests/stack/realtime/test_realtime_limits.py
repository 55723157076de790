"""What happens at a limit: the documented sentence, and just under it nothing."""

from __future__ import annotations

import asyncio
import json

import pytest
from websockets.exceptions import ConnectionClosed, InvalidStatus

from tests.stack.realtime.support import EndpointFactory, Project, Raw, Subscribers

#: Averages over ticks of 50 ms instead of 5 s, so that a test need not wait for one.
FAST = {"rateTickMs": 50}


async def test_one_connection_more_than_allowed_is_refused(
    project: Project, endpoint: EndpointFactory
) -> None:
    url = endpoint(maxConnections=1).url
    async with Raw.open(url, project.publishable_key):
        with pytest.raises(InvalidStatus) as error:
            async with Raw.open(url, project.publishable_key):
                pass
    assert error.value.response.status_code == 429
    assert json.loads(error.value.response.body) == {"error": "Too many connected users"}


async def test_one_channel_more_than_allowed_is_refused(project: Project, endpoint: EndpointFactory) -> None:
    url = endpoint(channelsPerConnection=2).url
    async with Raw.open(url, project.publishable_key) as socket:
        raw = Raw(socket, "1.0.0")
        replies = [(await raw.join(topic))["payload"] for topic in ("one", "two", "three")]
        assert [reply["status"] for reply in replies] == ["ok", "ok", "error"]
        assert replies[2]["response"] == {"reason": "ChannelRateLimitReached: Too many channels"}
        # The refused one takes no place: leaving one makes room for another.
        await raw.push("realtime:one", "phx_leave", {})
        assert [(await raw.receive())["event"] for _ in range(2)] == ["phx_reply", "phx_close"]
        assert (await raw.join("three"))["payload"]["status"] == "ok"


async def test_too_many_joins_refuse_the_join_and_drop_the_socket(
    project: Project, endpoint: EndpointFactory
) -> None:
    url = endpoint(joinsPerSecond=1, channelsPerConnection=10_000, **FAST).url
    async with Raw.open(url, project.publishable_key) as socket:
        raw = Raw(socket, "1.0.0")
        number = 0
        while (reply := (await raw.join(f"topic-{number}"))["payload"])["status"] == "ok":
            number += 1
        assert reply["response"] == {"reason": "ClientJoinRateLimitReached: Too many joins per second"}
        assert await raw.closed() == 1000
    with pytest.raises(InvalidStatus) as error:
        async with Raw.open(url, project.publishable_key):
            pass
    assert json.loads(error.value.response.body) == {"error": "Too many joins per second"}


async def test_too_many_messages_end_the_channels_that_receive(
    subscribers: Subscribers, endpoint: EndpointFactory, topic: str
) -> None:
    url = endpoint(messagesPerSecond=200, **FAST).url
    sender = await subscribers(topic, private=False, url=url).join()
    receiver = await subscribers(topic, private=False, url=url).join()
    closing = asyncio.create_task(receiver.closing())
    while not closing.done():
        await sender.channel.send_broadcast("flood", {})
        await asyncio.sleep(0)
    assert await closing == "Too many messages per second"
    assert sender.states.empty()


async def test_a_full_authorization_queue_says_so(
    project: Project, endpoint: EndpointFactory, subscribers: Subscribers, topic: str
) -> None:
    url = endpoint(authorizationQueue=0).url
    refusal = await subscribers(topic, token=project.token("service_role"), url=url).refusal()
    assert refusal == "IncreaseConnectionPool: Please increase your connection pool size"


async def test_a_client_that_does_not_read_is_closed(
    project: Project, endpoint: EndpointFactory, topic: str
) -> None:
    """Its unsent broadcasts would fill the memory that everybody shares."""
    url = endpoint(bufferedBytes=2_000_000).url
    filler = "x" * 500_000
    slow = Raw.open(url, project.publishable_key, max_queue=1, max_size=None)
    async with slow as lagging, Raw.open(url, project.publishable_key) as sending:
        reader, sender = Raw(lagging, "1.0.0"), Raw(sending, "1.0.0")
        await reader.join(topic)
        await sender.join(topic, {"broadcast": {"ack": True}})
        broadcast = {"type": "broadcast", "event": "e", "payload": {"filler": filler}}
        for _ in range(40):
            await sender.push(f"realtime:{topic}", "broadcast", broadcast)
            assert (await sender.receive())["payload"]["status"] == "ok"
        with pytest.raises(ConnectionClosed) as closed:
            while True:
                await reader.receive()
    assert closed.value.rcvd is not None
    assert (closed.value.rcvd.code, closed.value.rcvd.reason) == (1013, "Too slow")
