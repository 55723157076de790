"""`realtime`'s client with our socket and our heartbeat: one connection, which never reconnects by itself.

Cost while idle: one heartbeat of 67 bytes and its reply every 50 s (the server closes a socket that is silent
for 60 s). The reply is also how a half-open connection is noticed, which makes the protocol pings of
`websockets` (every 20 s) unnecessary; compression is off, because frames of this size grow by it and its
windows cost memory.
"""

from __future__ import annotations

import asyncio
import contextlib
import json
import ssl
from dataclasses import dataclass

import websockets
from realtime import AsyncRealtimeClient, RealtimeSubscribeStates
from websockets.asyncio.client import ClientConnection

from fleet_agent.support import retry

#: Below the server's 60 s of tolerated silence, with room for a slow link.
HEARTBEAT_S = 50.0
#: How long the reply to a heartbeat may take before the connection counts as dead.
REPLY_S = 15.0
OPEN_TIMEOUT_S = 15
#: A session shorter than this counts as a failure, so that connect-and-be-closed does not spin.
STABLE_S = 60.0
#: A server that counts joins is not helped by the usual five seconds.
RATE_LIMITED_BASE_S = 30.0
_HEARTBEAT = json.dumps(
    {"topic": "phoenix", "event": "heartbeat", "payload": {}, "ref": "hb"}, separators=(",", ":")
)


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


class RealtimeClient(AsyncRealtimeClient):
    """`realtime`'s client with our socket and our heartbeat; it never reconnects."""

    def __init__(self, url: str, key: str, timing: Timing, tls: ssl.SSLContext | None) -> None:
        super().__init__(url, token=key, auto_reconnect=False, max_retries=1, timeout=timing.join_timeout)
        self._timing = timing
        self._tls = tls
        self._socket: _Connection | None = None

    async def connect(self) -> None:
        """Open the socket. Raises Lost."""
        try:
            self._socket = self._ws_connection = await self._open()
            await self._on_connect()
        except websockets.InvalidStatus as error:
            status = error.response.status_code
            body = bytes(error.response.body or b"")[:200].decode(errors="replace")
            reason = f"the server refused the connection: {status} {body}".strip()
            base_s = self._timing.rate_limited_base if status == 429 else retry.WAKE_BASE_S
            raise Lost(reason, base_s=base_s) from error
        except (OSError, TimeoutError, websockets.WebSocketException, ValueError) as error:
            raise Lost(f"no connection: {error or type(error).__name__}") from error

    async def _open(self) -> _Connection:
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
        return socket

    async def _heartbeat(self) -> None:
        """Keep the server from closing the socket, and close it if the server does not answer."""
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
                # No close handshake with a server that does not answer.
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


def lost_by(topic: str, state: RealtimeSubscribeStates, error: Exception | None, timing: Timing) -> Lost:
    if state == RealtimeSubscribeStates.TIMED_OUT:
        return Lost(f"{topic} was not joined in time")
    said = str(error) if error is not None else "closed by the server"
    return Lost(
        f"{topic}: {said}",
        base_s=timing.rate_limited_base if "RateLimit" in said else retry.WAKE_BASE_S,
        # `InvalidJWTToken: Token has expired 3 seconds ago`; the documentation has other codes.
        token_refused="expired" in said.lower() or "jwt" in said.lower(),
    )
