"""The supervised subscription against a server that misbehaves as the hosted one does."""

from __future__ import annotations

import asyncio
import contextlib
from collections import deque
from collections.abc import AsyncIterator, Callable
from dataclasses import dataclass, field
from typing import Any

import pytest

from fleet_agent.control_plane.realtime_client import Timing
from fleet_agent.control_plane.subscription import Subscription, Wake
from fleet_agent.control_plane.tokens import Token
from fleet_agent.errors import ControlPlaneError, Kind
from fleet_agent.support.clock import Clock
from tests.support.device import Device
from tests.support.fake_realtime import FakeRealtime

DEVICE = "device:d1"


@dataclass
class FakeTokens:
    """Tokens without a control plane: `renew_in_s` from now they are due, `reject` makes the next one new."""

    clock: Clock
    renew_in_s: float = 3600
    serial: int = 1
    rejected: list[str] = field(default_factory=list)
    failing: ControlPlaneError | None = None
    #: Set once a token was asked for and refused a second time, so after a whole backoff.
    asked: asyncio.Event = field(default_factory=asyncio.Event)
    refusals: int = 0

    async def get(self) -> Token:
        if self.failing is not None:
            self.refusals += 1
            if self.refusals == 2:
                self.asked.set()
            raise self.failing
        return self._token()

    async def renew(self) -> Token:
        if self.failing is not None:
            raise self.failing
        self.serial += 1
        self.renew_in_s = 3600
        return self._token()

    def reject(self, token: Token) -> None:
        self.rejected.append(token.value)
        self.serial += 1

    def _token(self) -> Token:
        now = self.clock.monotonic()
        return Token(f"token-{self.serial}", ends=now + 7200, renew=now + self.renew_in_s)


@dataclass
class Listener:
    subscription: Subscription
    tokens: FakeTokens
    wakes: asyncio.Queue[Wake]
    subscribed: asyncio.Queue[None]
    waits: list[tuple[float, float]]


@pytest.fixture
async def server() -> AsyncIterator[FakeRealtime]:
    async with FakeRealtime().serve() as running:
        yield running


@pytest.fixture
async def listen(device: Device, server: FakeRealtime) -> AsyncIterator[Callable[..., Listener]]:
    """Start a subscription; backoffs are recorded and not waited for."""
    tasks: list[asyncio.Task[None]] = []

    def start(*, segment: str | None = None, **changes: Any) -> Listener:
        clock = device.clock()
        tokens = FakeTokens(clock)
        wakes: asyncio.Queue[Wake] = asyncio.Queue()
        subscribed: asyncio.Queue[None] = asyncio.Queue()
        waits: list[tuple[float, float]] = []

        def uniform(low: float, high: float) -> float:
            waits.append((low, high))
            return 0.0

        subscription = Subscription(
            url=server.url,
            key="sb_publishable_x",
            device_id="d1",
            tokens=tokens,  # type: ignore[arg-type]
            clock=clock,
            on_wake=wakes.put_nowait,
            on_subscribed=lambda: subscribed.put_nowait(None),
            uniform=uniform,
            timing=Timing(**changes),
        )
        subscription.move_to(segment)
        tasks.append(asyncio.create_task(subscription.run()))
        return Listener(subscription, tokens, wakes, subscribed, waits)

    yield start
    for task in tasks:
        assert not task.done(), "the supervisor must never end by itself"
        task.cancel()
        with contextlib.suppress(asyncio.CancelledError):
            await task


Listen = Callable[..., Listener]


async def test_both_topics_are_joined_with_the_devices_token_and_the_publishable_key(
    server: FakeRealtime, listen: Listen
) -> None:
    listener = listen(segment="canary")
    assert await server.joined(DEVICE, "segment:canary") == "token-1"
    await listener.subscribed.get()
    assert listener.subscription.joined
    assert server.queries[0] == {"apikey": ["sb_publishable_x"], "vsn": ["1.0.0"]}


async def test_no_compression_is_negotiated(server: FakeRealtime, listen: Listen) -> None:
    listen()
    await server.joined(DEVICE)
    assert server.extensions == [""]


@pytest.mark.parametrize("topic", [DEVICE, "segment:canary"])
async def test_a_wake_on_either_topic_arrives_with_its_spread(
    server: FakeRealtime, listen: Listen, topic: str
) -> None:
    listener = listen(segment="canary")
    await listener.subscribed.get()
    await server.wake(topic, reason="release_added", spread_s=12)
    assert await listener.wakes.get() == Wake(reason="release_added", spread_s=12)


async def test_the_same_message_twice_wakes_once(server: FakeRealtime, listen: Listen) -> None:
    listener = listen()
    await listener.subscribed.get()
    await server.wake(DEVICE, message_id="m1", reason="one", spread_s=0)
    await server.wake(DEVICE, message_id="m1", reason="one", spread_s=0)
    await server.wake(DEVICE, message_id="m2", reason="two", spread_s=0)
    assert [(await listener.wakes.get()).reason, (await listener.wakes.get()).reason] == ["one", "two"]


@pytest.mark.parametrize("payload", [{"spread_s": -1}, {"spread_s": "soon"}, {"spread_s": 1e9}])
async def test_an_unreadable_wake_still_wakes_spread(
    server: FakeRealtime, listen: Listen, payload: dict[str, Any]
) -> None:
    listener = listen()
    await listener.subscribed.get()
    await server.raw_wake(DEVICE, payload)
    assert (await listener.wakes.get()).spread_s == 30


async def test_a_payload_that_is_no_object_does_not_end_the_subscription(
    server: FakeRealtime, listen: Listen
) -> None:
    listener = listen()
    await listener.subscribed.get()
    await server.raw_wake(DEVICE, ["not", "an", "object"])
    await server.wake(DEVICE, reason="after", spread_s=0)
    assert (await listener.wakes.get()).reason == "after"


async def test_long_refusal_is_outlasted_with_growing_capped_full_jitter(
    server: FakeRealtime, listen: Listen
) -> None:
    """The library gives up for good after five failures."""
    server.refusals.extend([(503, "restarting")] * 9)
    listener = listen()
    await server.joined(DEVICE)
    await listener.subscribed.get()
    assert listener.waits == [(0.0, ceiling) for ceiling in (5, 10, 20, 40, 80, 160, 300, 300, 300)]
    assert server.handshakes == 10


async def test_a_rate_limit_backs_off_further(server: FakeRealtime, listen: Listen) -> None:
    server.refusals.append((429, "Too many connected users"))
    server.join_errors[DEVICE] = deque(["ClientJoinRateLimitReached: Too many joins per second"])
    listener = listen()
    await server.joined(DEVICE)
    assert listener.waits == [(0.0, 30), (0.0, 60)]


async def test_an_expired_token_at_the_join_is_replaced(server: FakeRealtime, listen: Listen) -> None:
    server.join_errors[DEVICE] = deque(["InvalidJWTToken: Token has expired 3 seconds ago"])
    listener = listen()
    assert await server.joined(DEVICE) == "token-2"
    assert listener.tokens.rejected == ["token-1"]


async def test_a_channel_closed_after_a_system_error_is_joined_again_with_a_new_token(
    server: FakeRealtime, listen: Listen
) -> None:
    """The library drops such a channel without a word."""
    listener = listen()
    await listener.subscribed.get()
    assert await server.joined(DEVICE) == "token-1"
    await server.kick(DEVICE, "Token has expired 1 seconds ago")
    assert await server.joined(DEVICE) == "token-2"
    await listener.subscribed.get()
    await server.wake(DEVICE, reason="again", spread_s=0)
    assert (await listener.wakes.get()).reason == "again"


async def test_a_channel_kicked_over_a_limit_keeps_its_token(server: FakeRealtime, listen: Listen) -> None:
    listener = listen()
    await server.joined(DEVICE)
    await listener.subscribed.get()
    await server.kick(DEVICE, "Too many messages per second")
    assert await server.joined(DEVICE) == "token-1"
    assert listener.tokens.rejected == []


@pytest.mark.parametrize("how", ["1001", "1000", "abnormal", "phx_close", "phx_error"])
async def test_any_end_of_the_session_is_followed_by_a_new_one(
    server: FakeRealtime, listen: Listen, how: str
) -> None:
    listener = listen()
    await server.joined(DEVICE)
    await listener.subscribed.get()
    match how:
        case "1001" | "1000":
            await server.sockets[-1].close(int(how))
        case "abnormal":
            server.sockets[-1].transport.abort()
        case event:
            await server.send(DEVICE, event, {})
    await server.joined(DEVICE)
    await listener.subscribed.get()
    await server.wake(DEVICE, reason="again", spread_s=0)
    assert (await listener.wakes.get()).reason == "again"
    assert listener.waits == [(0.0, 5)]


async def test_connect_and_be_closed_does_not_spin(server: FakeRealtime, listen: Listen) -> None:
    """Only a session that lasted resets the backoff."""
    listener = listen()
    for _ in range(4):
        await server.joined(DEVICE)
        await listener.subscribed.get()
        server.sockets[-1].transport.abort()
    await server.joined(DEVICE)
    assert [ceiling for _, ceiling in listener.waits] == [5, 10, 20, 40]


async def test_a_session_that_lasted_resets_the_backoff(server: FakeRealtime, listen: Listen) -> None:
    listener = listen(stable=0.0)
    for _ in range(3):
        await server.joined(DEVICE)
        await listener.subscribed.get()
        server.sockets[-1].transport.abort()
    await server.joined(DEVICE)
    assert [ceiling for _, ceiling in listener.waits] == [5, 5, 5]


async def test_a_server_that_stops_answering_is_left(server: FakeRealtime, listen: Listen) -> None:
    """A half-open connection looks alive to TCP for a quarter of an hour."""
    server.answers_heartbeats = False
    listener = listen(heartbeat=0.2, reply=0.1)
    await server.joined(DEVICE)
    server.answers_heartbeats = False
    await server.joined(DEVICE)
    assert server.handshakes == 2
    assert listener.waits == [(0.0, 5)]


async def test_answered_heartbeats_keep_the_session(server: FakeRealtime, listen: Listen) -> None:
    listener = listen(heartbeat=0.1, reply=0.05)
    await listener.subscribed.get()
    beats = 0
    while beats < 5:
        frame = await server.frames.get()
        beats += frame["event"] == "heartbeat"
    assert server.handshakes == 1
    assert listener.waits == []


async def test_a_token_due_is_renewed_on_the_open_channel(server: FakeRealtime, listen: Listen) -> None:
    listener = listen()
    listener.tokens.renew_in_s = 0.05
    await server.joined(DEVICE)
    frame = await server.frames.get()
    while frame["event"] != "access_token":
        frame = await server.frames.get()
    assert frame["payload"] == {"access_token": "token-2"}
    assert server.handshakes == 1


async def test_a_refused_segment_does_not_cost_the_devices_own_topic(
    server: FakeRealtime, listen: Listen
) -> None:
    server.join_errors["segment:canary"] = deque(
        ["Unauthorized: You do not have permissions to read from this Channel topic: segment:canary"]
    )
    listener = listen(segment="canary")
    await listener.subscribed.get()
    await server.wake(DEVICE, reason="mine", spread_s=0)
    assert (await listener.wakes.get()).reason == "mine"


async def test_a_device_refused_its_own_topic_keeps_trying_with_backoff(
    server: FakeRealtime, listen: Listen
) -> None:
    refusal = "Unauthorized: You do not have permissions to read from this Channel topic: device:d1"
    server.join_errors[DEVICE] = deque([refusal, refusal])
    listener = listen()
    await server.joined(DEVICE)
    assert [ceiling for _, ceiling in listener.waits] == [5, 10]


async def test_moving_to_another_segment_joins_its_topic_at_once(
    server: FakeRealtime, listen: Listen
) -> None:
    listener = listen(segment="canary")
    await server.joined(DEVICE, "segment:canary")
    await listener.subscribed.get()
    listener.subscription.move_to("stable")
    await server.joined(DEVICE, "segment:stable")
    assert listener.waits == []


async def test_without_a_token_it_waits_and_then_subscribes(server: FakeRealtime, listen: Listen) -> None:
    listener = listen()
    listener.tokens.failing = ControlPlaneError(Kind.DEVICE_SUSPENDED, "Suspended.")
    await listener.tokens.asked.wait()
    assert server.handshakes == 0
    assert "device_suspended" in str(listener.subscription.last_problem)
    listener.tokens.failing = None
    await server.joined(DEVICE)
