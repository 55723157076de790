"""The Realtime subscription that lets a device act before its next poll.

`realtime`'s own reconnecting gives up for good after five tries, never rejoins a channel that the server
closed (an expired token, a rate limit) and has no jitter. So its part here ends with the first trouble: one
client, one session; when anything is wrong the session is torn down and, after a full-jitter backoff, a new
one is built. A wake is a hint: nothing is lost when this does not work, the poll finds everything.

Cost of an idle subscription: one heartbeat of 67 bytes and its reply every 50 s (the server closes a socket
that is silent for 60 s). The reply is also how a half-open connection is noticed, which makes the protocol
pings of `websockets` (every 20 s) unnecessary; compression is off, because frames of this size grow by it and
its windows cost memory.
"""

from __future__ import annotations

import asyncio
import contextlib
import json
import ssl
from collections import deque
from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

import websockets
from loguru import logger
from pydantic import ConfigDict, Field
from pydantic import ValidationError as PydanticValidationError
from realtime import AsyncRealtimeClient, RealtimeSubscribeStates
from websockets.asyncio.client import ClientConnection

from fleet_agent.control_plane.tokens import Token, Tokens
from fleet_agent.errors import FleetError
from fleet_agent.model import Frozen
from fleet_agent.support import retry
from fleet_agent.support.clock import Clock

#: Below the server's 60 s of tolerated silence, with room for a slow link.
HEARTBEAT_S = 50.0
#: How long the reply to a heartbeat may take before the connection counts as dead.
REPLY_S = 15.0
OPEN_TIMEOUT_S = 15
#: A session shorter than this counts as a failure, so that connect-and-be-closed does not spin.
STABLE_S = 60.0
#: A server that counts joins is not helped by the usual five seconds.
RATE_LIMITED_BASE_S = 30.0
#: A malformed wake still wakes, spread over this.
DEFAULT_SPREAD_S = 30.0
SPREAD_LIMIT_S = 3600.0
REMEMBERED_IDS = 64
_EVENT = "wake"
_HEARTBEAT = json.dumps(
    {"topic": "phoenix", "event": "heartbeat", "payload": {}, "ref": "hb"}, separators=(",", ":")
)


class Wake(Frozen):
    """What the server sends on `device:<id>` and `segment:<name>`; the device waits `U(0, spread_s)`."""

    model_config = ConfigDict(frozen=True, extra="ignore")

    reason: str = Field(default="", max_length=200)
    spread_s: float = Field(default=DEFAULT_SPREAD_S, ge=0, le=SPREAD_LIMIT_S)


class Lost(Exception):  # noqa: N818 - an event of the connection's life, not an error to show
    """The session ended; `base_s` is the backoff's base, `token_refused` asks for a new token."""

    def __init__(
        self, reason: str, *, base_s: float = retry.WAKE_BASE_S, token_refused: bool = False
    ) -> None:
        super().__init__(reason)
        self.base_s = base_s
        self.token_refused = token_refused


@dataclass(frozen=True)
class Timing:
    """Seconds; tests make them small."""

    heartbeat: float = HEARTBEAT_S
    reply: float = REPLY_S
    stable: float = STABLE_S
    backoff_base: float = retry.WAKE_BASE_S
    backoff_cap: float = retry.WAKE_CAP_S
    rate_limited_base: float = RATE_LIMITED_BASE_S
    join_timeout: int = 20


class _Connection(ClientConnection):
    """Remembers when something last arrived."""

    heard_at: float = 0.0

    def data_received(self, data: bytes) -> None:
        self.heard_at = asyncio.get_running_loop().time()
        super().data_received(data)


class _Client(AsyncRealtimeClient):
    """`realtime`'s client with our socket and our heartbeat; it never reconnects."""

    def __init__(self, url: str, key: str, timing: Timing, tls: ssl.SSLContext | None) -> None:
        super().__init__(url, token=key, auto_reconnect=False, max_retries=1, timeout=timing.join_timeout)
        self._timing = timing
        self._tls = tls
        self._socket: _Connection | None = None

    async def connect(self) -> None:
        """Open the socket. Raises OSError, TimeoutError or websockets.WebSocketException."""
        socket = await websockets.connect(
            self.endpoint_url(),
            open_timeout=OPEN_TIMEOUT_S,
            close_timeout=2,
            compression=None,
            ping_interval=None,
            ssl=self._tls,
            create_connection=_Connection,
        )
        assert isinstance(socket, _Connection)  # noqa: S101 - made by create_connection just above
        self._socket = self._ws_connection = socket
        await self._on_connect()

    async def _heartbeat(self) -> None:
        """Keep the server from hanging up, and hang up on a server that does not answer."""
        socket = self._socket
        loop = asyncio.get_running_loop()
        while socket is not None and self.is_connected:
            # The first one waits too: the join was traffic enough.
            await asyncio.sleep(self._timing.heartbeat - self._timing.reply)
            asked_at = loop.time()
            try:
                await socket.send(_HEARTBEAT)
            except websockets.ConnectionClosed:
                return
            await asyncio.sleep(self._timing.reply)
            if socket.heard_at < asked_at:
                # No close handshake with somebody who does not answer.
                socket.transport.abort()
                return

    @property
    def listening(self) -> asyncio.Task[None] | None:
        return self._listen_task

    async def tear_down(self) -> None:
        """Close the socket and stop every timer of the channels."""
        for channel in list(self.channels.values()):
            channel.rejoin_timer.reset()
            channel.join_push.destroy()
        with contextlib.suppress(websockets.WebSocketException, OSError, TimeoutError):
            await self.close()


@dataclass
class Subscription:
    """Keeps one subscription alive until cancelled: `run()` never returns by itself.

    `on_wake` is called for each new wake, `on_subscribed` each time the device's own topic is joined: what
    was sent before that was missed, so the loop should look for itself.
    """

    url: str
    key: str
    device_id: str
    tokens: Tokens
    clock: Clock
    on_wake: Callable[[Wake], None]
    on_subscribed: Callable[[], None]
    tls: ssl.SSLContext | None = None
    timing: Timing = field(default_factory=Timing)
    sleep: Callable[[float], Awaitable[Any]] = asyncio.sleep
    uniform: Callable[[float, float], float] = retry.uniform
    joined: bool = False
    last_problem: str | None = None
    _segment: str | None = None
    _moved: asyncio.Event = field(default_factory=asyncio.Event)
    _seen: deque[str] = field(default_factory=lambda: deque(maxlen=REMEMBERED_IDS))

    def move_to(self, segment: str | None) -> None:
        """Listen to this segment's topic from now on."""
        if segment != self._segment:
            self._segment = segment
            self._moved.set()

    async def run(self) -> None:
        failures = 0
        while True:
            started = self.clock.monotonic()
            base_s = self.timing.backoff_base
            try:
                await self._session()
                failures = 0
                continue  # a planned new session: the device moved to another segment
            except Lost as lost:
                problem = str(lost)
                base_s = max(base_s, lost.base_s) if lost.base_s > retry.WAKE_BASE_S else base_s
            except FleetError as error:  # no token: suspended, or the control plane is away
                problem = f"{error.kind}: {error}"
            finally:
                self.joined = False
            stable = self.clock.monotonic() - started >= self.timing.stable
            failures = 1 if stable else failures + 1
            self.last_problem = problem
            wait = retry.full_jitter(
                failures, base_s=base_s, cap_s=self.timing.backoff_cap, uniform=self.uniform
            )
            logger.info(
                "realtime is away ({reason}), try {n} in {wait:.1f} s; polling goes on",
                reason=problem, n=failures + 1, wait=wait,
            )  # fmt: skip
            await self.sleep(wait)

    async def _session(self) -> None:
        """One connection's life. Returns when the topics changed, raises Lost for everything else."""
        self._moved.clear()
        token = await self.tokens.get()
        client = _Client(f"{self.url}/realtime/v1", self.key, self.timing, self.tls)
        try:
            await _connect(client)
            await client.set_auth(token.value)
            lost: asyncio.Future[Lost] = asyncio.get_running_loop().create_future()
            await self._join(client, f"device:{self.device_id}", lost, required=True)
            if self._segment is not None:
                await self._join(client, f"segment:{self._segment}", lost, required=False)
            self.joined, self.last_problem = True, None
            logger.info(
                "realtime subscribed{segment}", segment=f" ({self._segment})" if self._segment else ""
            )
            self.on_subscribed()
            await self._stay(client, token, lost)
        except Lost as error:
            if error.token_refused:
                self.tokens.reject(token)
            raise
        finally:
            self.joined = False
            await client.tear_down()

    async def _join(self, client: _Client, topic: str, lost: asyncio.Future[Lost], *, required: bool) -> None:
        channel = client.channel(
            topic,
            {
                "config": {
                    "private": True,
                    "broadcast": {"ack": False, "self": False},
                    "presence": {"key": "", "enabled": False},
                }
            },
        )
        joining = True
        outcome: Lost | None = None

        def on_status(state: RealtimeSubscribeStates, error: Exception | None) -> None:
            nonlocal outcome
            if state == RealtimeSubscribeStates.SUBSCRIBED:
                return
            trouble = _lost(topic, state, error, self.timing)
            if joining:
                outcome = outcome or trouble
            elif not lost.done():
                lost.set_result(trouble)

        channel.on_broadcast(_EVENT, self._on_broadcast)
        await channel.subscribe(on_status)
        joining = False
        if outcome is None:
            return
        # The library would rejoin by itself, unspread and for ever.
        channel.rejoin_timer.reset()
        if required or "Unauthorized" not in str(outcome):
            raise outcome
        logger.warning("the topic {topic} is refused: {reason}", topic=topic, reason=outcome)

    async def _stay(self, client: _Client, token: Token, lost: asyncio.Future[Lost]) -> None:
        """Wait for the end of the session, renewing the token when it is due."""
        listening = client.listening
        moved = asyncio.create_task(self._moved.wait())
        try:
            while True:
                due = max(token.renew - self.clock.monotonic(), 0.0)
                ends: set[asyncio.Future[Any]] = {lost, moved}
                if listening is not None:
                    ends.add(listening)
                await asyncio.wait(ends, timeout=due, return_when=asyncio.FIRST_COMPLETED)
                if lost.done():
                    raise lost.result()
                if moved.done():
                    return
                if listening is not None and listening.done():
                    raise Lost("the connection ended")
                token = await self._renewed(client, token)
        finally:
            moved.cancel()

    async def _renewed(self, client: _Client, token: Token) -> Token:
        try:
            fresh = await self.tokens.renew()
        except FleetError as error:
            remaining = token.ends - self.clock.monotonic()
            if remaining <= 0:
                raise
            logger.info("the token could not be renewed yet: {error}", error=error)
            # The present one still works; ask again after a tenth of what is left of it.
            return Token(token.value, token.ends, self.clock.monotonic() + max(remaining / 10, 1.0))
        if fresh.value != token.value:
            await client.set_auth(fresh.value)
        return fresh

    def _on_broadcast(self, message: Mapping[str, Any]) -> None:
        meta = message.get("meta")
        message_id = str(meta.get("id") or "") if isinstance(meta, Mapping) else ""
        if message_id:
            if message_id in self._seen:
                logger.debug("wake {id} again, ignored", id=message_id)
                return
            self._seen.append(message_id)
        try:
            wake = Wake.model_validate(message.get("payload"))
        except PydanticValidationError:
            logger.debug("a wake that says nothing readable")
            wake = Wake(reason="unreadable wake")
        self.on_wake(wake)


async def _connect(client: _Client) -> None:
    try:
        await client.connect()
    except websockets.InvalidStatus as error:
        status = error.response.status_code
        body = bytes(error.response.body or b"")[:200].decode(errors="replace")
        reason = f"the server refused the connection: {status} {body}".strip()
        base_s = client._timing.rate_limited_base if status == 429 else retry.WAKE_BASE_S
        raise Lost(reason, base_s=base_s) from error
    except (OSError, TimeoutError, websockets.WebSocketException, ValueError) as error:
        raise Lost(f"no connection: {error or type(error).__name__}") from error


def _lost(topic: str, state: RealtimeSubscribeStates, error: Exception | None, timing: Timing) -> Lost:
    if state == RealtimeSubscribeStates.TIMED_OUT:
        return Lost(f"{topic} was not joined in time")
    said = str(error) if error is not None else "closed by the server"
    return Lost(
        f"{topic}: {said}",
        base_s=timing.rate_limited_base if "RateLimit" in said else retry.WAKE_BASE_S,
        # `InvalidJWTToken: Token has expired 3 seconds ago`; the documentation has other codes.
        token_refused="expired" in said.lower() or "jwt" in said.lower(),
    )
