"""A websocket server that speaks Realtime's protocol 1.0.0 and misbehaves on request (facts 1.3 and 1.4).

Every behavior is one that the hosted service shows: refusing the handshake, refusing a join, closing with
1001 or by dropping the line, `system` error then `phx_close`, delivering twice, saying nothing at all.
"""

from __future__ import annotations

import asyncio
import contextlib
import json
from collections import deque
from collections.abc import AsyncIterator
from dataclasses import dataclass, field
from http import HTTPStatus
from typing import Any
from urllib.parse import parse_qs, urlsplit

from websockets.asyncio.server import ServerConnection, serve
from websockets.http11 import Request, Response

Frame = dict[str, Any]


@dataclass
class FakeRealtime:
    """`refusals` are answered to the next handshakes; `joins` decides what a join gets, by topic."""

    refusals: deque[tuple[int, str]] = field(default_factory=deque)
    join_errors: dict[str, deque[str]] = field(default_factory=dict)
    answers_heartbeats: bool = True
    url: str = ""
    handshakes: int = 0
    #: Every frame received, and every join by topic with its token.
    frames: asyncio.Queue[Frame] = field(default_factory=asyncio.Queue)
    joins: asyncio.Queue[tuple[str, str]] = field(default_factory=asyncio.Queue)
    sockets: list[ServerConnection] = field(default_factory=list)
    queries: list[dict[str, list[str]]] = field(default_factory=list)
    extensions: list[str] = field(default_factory=list)

    @contextlib.asynccontextmanager
    async def serve(self) -> AsyncIterator[FakeRealtime]:
        async with serve(
            self._handle, "127.0.0.1", 0, process_request=self._handshake, ping_interval=None
        ) as server:
            port = next(iter(server.sockets)).getsockname()[1]
            self.url = f"http://127.0.0.1:{port}"
            yield self

    async def wake(self, topic: str, *, message_id: str | None = None, **payload: Any) -> None:
        """A broadcast from the database to the newest socket."""
        body: Frame = {"type": "broadcast", "event": "wake", "payload": {"v": 1, **payload}}
        if message_id is not None:
            body["meta"] = {"id": message_id}
        await self.send(topic, "broadcast", body)

    async def raw_wake(self, topic: str, payload: Any) -> None:
        await self.send(topic, "broadcast", {"type": "broadcast", "event": "wake", "payload": payload})

    async def kick(self, topic: str, message: str) -> None:
        """What the service does at token expiry and over a limit."""
        await self.send(
            topic, "system",
            {"extension": "system", "status": "error", "message": message, "channel": topic},
        )  # fmt: skip
        await self.send(topic, "phx_close", {})

    async def send(self, topic: str, event: str, payload: Any) -> None:
        frame = {"topic": f"realtime:{topic}", "event": event, "payload": payload, "ref": None}
        await self.sockets[-1].send(json.dumps(frame))

    async def joined(self, *topics: str) -> str:
        """Wait until these topics were joined, in order; returns the token of the last join."""
        token = ""
        for expected in topics:
            # A failure instead of a hang when the join never comes.
            async with asyncio.timeout(20):
                topic, token = await self.joins.get()
            assert topic == expected
        return token

    def _handshake(self, connection: ServerConnection, request: Request) -> Response | None:
        self.handshakes += 1
        self.queries.append(parse_qs(urlsplit(request.path).query))
        self.extensions.append(request.headers.get("Sec-WebSocket-Extensions", ""))
        if not self.refusals:
            return None
        status, message = self.refusals.popleft()
        return connection.respond(HTTPStatus(status), json.dumps({"error": message}))

    async def _handle(self, socket: ServerConnection) -> None:
        self.sockets.append(socket)
        async for text in socket:
            frame: Frame = json.loads(text)
            self.frames.put_nowait(frame)
            if frame["event"] == "heartbeat":
                if self.answers_heartbeats:
                    await self._reply(socket, frame, "ok", {})
            elif frame["event"] == "phx_join":
                await self._join(socket, frame)

    async def _join(self, socket: ServerConnection, frame: Frame) -> None:
        topic = frame["topic"].removeprefix("realtime:")
        errors = self.join_errors.get(topic)
        if errors:
            await self._reply(socket, frame, "error", {"reason": errors.popleft()})
            return
        assert frame["payload"]["config"]["private"] is True
        await self._reply(socket, frame, "ok", {"postgres_changes": []})
        self.joins.put_nowait((topic, frame["payload"].get("access_token", "")))

    @staticmethod
    async def _reply(socket: ServerConnection, frame: Frame, status: str, response: Frame) -> None:
        await socket.send(
            json.dumps(
                {
                    "topic": frame["topic"], "event": "phx_reply", "ref": frame["ref"],
                    "payload": {"status": status, "response": response},
                }
            )
        )  # fmt: skip
