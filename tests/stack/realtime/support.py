"""What the Realtime tests share: the cast, the official client with its events in queues, raw frames."""

from __future__ import annotations

import asyncio
import json
import os
import secrets
import signal
import subprocess
import time
import uuid
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from types import TracebackType
from typing import Any, Self, cast

import jwt
import psycopg
from realtime import AsyncRealtimeChannel, AsyncRealtimeClient, RealtimeSubscribeStates
from websockets.asyncio.client import ClientConnection, connect

from fleetctl.stack.deno import find_deno
from fleetctl.stack.local_stack import LocalStack
from tests.support.patience import PATIENCE_S

ROOT = Path(__file__).resolve().parents[3]


@dataclass(frozen=True)
class Project:
    """Where the project is and what opens it."""

    db_url: str
    realtime_url: str
    jwt_secret: str
    publishable_key: str
    secret_key: str

    @classmethod
    def of(cls, stack: LocalStack) -> Self:
        """The project that a running stack serves."""
        return cls(
            db_url=stack.db_url,
            realtime_url=f"{stack.api_url}/realtime/v1",
            jwt_secret=stack.jwt_secret,
            publishable_key=stack.publishable_key,
            secret_key=stack.secret_key,
        )

    def token(self, role: str, sub: uuid.UUID | str | None = None, ttl_s: int = 3600, **claims: Any) -> str:
        """A user's or device's JWT as the project's own functions mint it."""
        now = int(time.time())
        payload = {"role": role, "iat": now, "exp": now + ttl_s, **claims}
        if sub is not None:
            payload["sub"] = str(sub)
        return jwt.encode(payload, self.jwt_secret, algorithm="HS256")


@dataclass(frozen=True)
class Cast:
    """Who acts in the access tests."""

    device: uuid.UUID
    neighbor: uuid.UUID
    suspended: uuid.UUID
    operator: uuid.UUID

    @property
    def devices(self) -> list[uuid.UUID]:
        """All rows of `devices` that the cast owns."""
        return [self.device, self.neighbor, self.suspended]


def make_device(connection: psycopg.Connection, state: str, segment: str) -> uuid.UUID:
    """Insert a device and return its id."""
    connection.execute("insert into public.device_roles (name) values ('beacon') on conflict do nothing")
    row = connection.execute(
        """insert into public.devices (name, role, segment, state, public_key)
           values (%s, 'beacon', %s, %s::public.device_state, %s) returning id""",
        [f"rt-{secrets.token_hex(6)}", segment, state, secrets.token_urlsafe(32)],
    ).fetchone()
    assert row is not None
    return cast(uuid.UUID, row[0])


def send(
    connection: psycopg.Connection, topic: str, event: str, payload: dict[str, Any], *, private: bool = True
) -> None:
    """Broadcast from the database, as the migrations' triggers do."""
    connection.execute(
        "select realtime.send(%s::jsonb, %s, %s, %s)", [json.dumps(payload), event, topic, private]
    )


@dataclass
class Endpoint:
    """Our Realtime endpoint in a process of its own, on the project's database."""

    url: str
    log: Path
    process: subprocess.Popen[str]

    @classmethod
    def start(cls, project: Project, limits: dict[str, int | bool], log: Path) -> Self:
        """Start and wait until it listens. It refuses without the usual pause and allows public channels."""
        quick = {"connectErrorDelayMs": 0, "channelErrorDelayMs": 0, "privateOnly": False, **limits}
        with log.open("w") as stderr:
            process = subprocess.Popen(
                [find_deno(), "run", "-A", "dev_server.ts"],
                cwd=ROOT / "supabase/local/realtime",
                env={
                    **os.environ,
                    "FLEET_DB_URL": project.db_url,
                    "FLEET_JWT_SECRET": project.jwt_secret,
                    "FLEET_PUBLISHABLE_KEY": project.publishable_key,
                    "FLEET_SECRET_KEY": project.secret_key,
                    "FLEET_REALTIME_LIMITS": json.dumps(quick),
                    "FLEET_PORT": "0",
                },
                stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=stderr, text=True,
            )  # fmt: skip
        assert process.stdout is not None
        line = process.stdout.readline()
        assert line, f"the endpoint did not start: {log.read_text()}"
        return cls(url=json.loads(line)["url"] + "/realtime/v1", log=log, process=process)

    def stop(self) -> None:
        """Stop it as the stack does."""
        self.process.send_signal(signal.SIGTERM)
        self.process.wait(PATIENCE_S)
        for pipe in (self.process.stdin, self.process.stdout):
            if pipe is not None:
                pipe.close()


EndpointFactory = Callable[..., Endpoint]


@dataclass
class Subscriber:
    """The official Python client with one channel, its broadcasts and states in queues."""

    client: AsyncRealtimeClient
    channel: AsyncRealtimeChannel
    broadcasts: asyncio.Queue[dict[str, Any]] = field(default_factory=asyncio.Queue)
    states: asyncio.Queue[tuple[RealtimeSubscribeStates, str]] = field(default_factory=asyncio.Queue)
    system: asyncio.Queue[dict[str, Any]] = field(default_factory=asyncio.Queue)

    async def subscribe(self) -> tuple[RealtimeSubscribeStates, str]:
        """Join; return the outcome and, for a refusal, its reason."""

        def changed(state: RealtimeSubscribeStates, error: Exception | None) -> None:
            self.states.put_nowait((state, str(error or "")))

        self.channel.on_broadcast(
            "*", lambda message: self.broadcasts.put_nowait(cast(dict[str, Any], message))
        )
        self.channel.on_system(lambda message: self.system.put_nowait(message.model_dump()))
        await self.channel.subscribe(changed)
        return await self.state()

    async def join(self) -> Self:
        """Join and insist that it works."""
        assert await self.subscribe() == (RealtimeSubscribeStates.SUBSCRIBED, "")
        return self

    async def refusal(self) -> str:
        """Join, insist that it is refused, and return the reason."""
        state, error = await self.subscribe()
        assert state is RealtimeSubscribeStates.CHANNEL_ERROR, f"the join was not refused but {state}"
        return str(json.loads(error)["reason"])

    async def state(self) -> tuple[RealtimeSubscribeStates, str]:
        """The next change of the channel's state."""
        async with asyncio.timeout(PATIENCE_S):
            return await self.states.get()

    async def broadcast(self) -> dict[str, Any]:
        """The next broadcast."""
        async with asyncio.timeout(PATIENCE_S):
            return await self.broadcasts.get()

    async def events(self, last: str) -> list[str]:
        """The names of the broadcasts up to and without `last`."""
        seen: list[str] = []
        while (event := (await self.broadcast())["event"]) != last:
            seen.append(event)
        return seen

    async def closing(self) -> str:
        """Wait until the server closes the channel; return the sentence it gave before."""
        state, error = await self.state()
        assert state is RealtimeSubscribeStates.CHANNEL_ERROR
        assert (await self.state())[0] is RealtimeSubscribeStates.CLOSED
        payload = json.loads(error)
        assert payload["extension"] == "system"
        return str(payload["message"])


class Subscribers:
    """Makes subscribers and closes their sockets in the end."""

    def __init__(self, project: Project) -> None:
        self._project = project
        self._clients: list[AsyncRealtimeClient] = []

    def __call__(
        self,
        topic: str,
        *,
        token: str | None = None,
        private: bool = True,
        ack: bool = False,
        self_: bool = False,
        url: str | None = None,
        presence_key: str | None = None,
        replay: dict[str, int] | None = None,
        replication_ready: bool = False,
        auto_reconnect: bool = True,
    ) -> Subscriber:
        """A client with the publishable key; `token` is what it joins with, if anything."""
        client = AsyncRealtimeClient(
            url or self._project.realtime_url, self._project.publishable_key, auto_reconnect=auto_reconnect
        )
        self._clients.append(client)
        if token is not None:
            client.access_token = token
        broadcast: dict[str, Any] = {"ack": ack, "self": self_}
        if replay is not None:
            broadcast["replay"] = replay
        if replication_ready:
            broadcast["replication_ready"] = True
        presence = {"key": presence_key or "", "enabled": presence_key is not None}
        config = {"private": private, "broadcast": broadcast, "presence": presence}
        return Subscriber(client, client.channel(topic, cast(Any, {"config": config})))

    async def join_as_service(self, topic: str, url: str | None = None) -> Subscriber:
        """Join a private topic as the role that every policy lets pass."""
        return await self(topic, token=self._project.token("service_role"), url=url).join()

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        for client in self._clients:
            for channel in client.get_channels():
                channel.rejoin_timer.reset()
            await client.close()


class Raw:
    """One socket and plain frames, for what no official client lets a test do or see."""

    def __init__(self, socket: ClientConnection, vsn: str) -> None:
        self.socket = socket
        self._vsn = vsn

    @classmethod
    def open(cls, url: str, apikey: str, vsn: str = "1.0.0", **options: Any) -> connect:
        """`async with Raw.open(...) as socket`, then `Raw(socket, vsn)`."""
        address = f"{url.replace('http', 'ws', 1)}/websocket?apikey={apikey}&vsn={vsn}"
        return connect(address, **options)

    async def push(
        self, topic: str, event: str, payload: Any, ref: str | None = "1", join_ref: str | None = "1"
    ) -> None:
        """Send one frame in this socket's framing."""
        message: Any = {"topic": topic, "event": event, "payload": payload, "ref": ref, "join_ref": join_ref}
        if self._vsn == "2.0.0":
            message = [join_ref, ref, topic, event, payload]
        await self.socket.send(json.dumps(message))

    async def receive(self) -> Any:
        """The next frame: decoded JSON, or bytes."""
        async with asyncio.timeout(PATIENCE_S):
            frame = await self.socket.recv()
        return frame if isinstance(frame, bytes) else json.loads(frame)

    async def join(self, topic: str, config: dict[str, Any] | None = None, **payload: Any) -> Any:
        """Join and return the reply."""
        await self.push(f"realtime:{topic}", "phx_join", {"config": config or {}, **payload})
        return await self.receive()

    async def closed(self) -> int | None:
        """Wait for the server to close the socket; return the code."""
        async with asyncio.timeout(PATIENCE_S):
            await self.socket.wait_closed()
        return self.socket.close_code
