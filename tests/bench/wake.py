"""From the commit of a policy change to the agents' next `desired_state()` call.

N subscriptions and N control-plane clients of the real agent live in one process of their own, spread 0; a
release is committed, each wake makes its device ask. Latency is taken when the call begins. The embedded
stack and all the devices share this machine's cores.
"""

from __future__ import annotations

import argparse
import asyncio
import base64
import os
import tempfile
import time
import uuid
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any, cast

import jwt
import psycopg

from fleet_agent.config import DeviceConfig
from fleet_agent.control_plane.client import ControlPlane
from fleet_agent.control_plane.identity import Identity
from fleet_agent.control_plane.subscription import Subscription, Wake
from fleet_agent.control_plane.tokens import Token, Tokens
from fleet_agent.support.clock import Clock
from fleetctl.stack.local_stack import LocalStack
from tests.bench.table import Row, spread
from tests.support.stack import make_immediate

AUDIENCES = (1, 50, 500)
ROUNDS = 5


@dataclass
class _Minted:
    """A token signed with the stack's own secret: the edge function is not what is measured."""

    token: Token

    async def get(self) -> Token:
        return self.token

    async def renew(self) -> Token:
        return self.token


@dataclass
class _Known:
    device_id: uuid.UUID
    folder: Path


def run(options: argparse.Namespace) -> list[Row]:
    rows = []
    with (
        tempfile.TemporaryDirectory(prefix="fleet-bench-") as folder,
        LocalStack.start(data=Path(folder) / "data", port=0, web=False) as stack,
    ):
        for audience in AUDIENCES:
            devices = _enroll(stack, audience)
            asked, answered = asyncio.run(_measure(stack, devices, Path(folder)))
            how = f"{ROUNDS} releases, {audience} devices, spread 0"
            rows.append(
                Row(
                    f"wake: commit to the agent's desired_state() call, {audience} subscribed",
                    spread(asked, "ms", 1), how,
                )
            )  # fmt: skip
            rows.append(
                Row(
                    f"wake: commit to desired_state() answered, {audience} subscribed",
                    spread(answered, "ms", 1), how,
                )
            )  # fmt: skip
            with psycopg.connect(stack.db_url, autocommit=True) as connection:
                connection.execute("update public.devices set state = 'retired' where state = 'active'")
    return rows


def _enroll(stack: LocalStack, count: int) -> list[uuid.UUID]:
    """Rows as enrollment makes them; the keys are random, nobody signs with them here."""
    with psycopg.connect(stack.db_url, autocommit=True) as connection:
        connection.execute("update public.fleet_settings set spread_ms_per_device = 0 where true")
        found = []
        for _ in range(count):
            key = base64.urlsafe_b64encode(os.urandom(32)).rstrip(b"=").decode()
            row = connection.execute(
                "insert into public.devices (name, role, state, public_key, enrolled_at)"
                " values (%s, 'beacon', 'active', %s, now()) returning id",
                (f"bench-{uuid.uuid4().hex[:12]}", key),
            ).fetchone()
            assert row is not None
            found.append(row[0])
        return found


def _mint(stack: LocalStack, device: uuid.UUID) -> str:
    now = datetime.now(UTC)
    claims = {"role": "fleet_device", "sub": str(device), "iat": now, "exp": now + timedelta(hours=1)}
    return jwt.encode(claims, stack.jwt_secret, algorithm="HS256")


async def _measure(
    stack: LocalStack, devices: list[uuid.UUID], folder: Path
) -> tuple[list[float], list[float]]:
    committed = 0.0
    asked: list[float] = []
    answered: list[float] = []
    joined = asyncio.Semaphore(0)
    done = asyncio.Semaphore(0)
    tasks: list[asyncio.Task[Any]] = []

    async def ask(plane: ControlPlane) -> None:
        asked.append((time.monotonic() - committed) * 1000)
        await plane.desired_state()
        answered.append((time.monotonic() - committed) * 1000)
        done.release()

    planes = []
    config = DeviceConfig(
        api_url=stack.api_url,
        publishable_key=stack.publishable_key,
        git_url="file:///nowhere",
        verify_signatures=False,
    )
    for device in devices:
        clock = Clock(folder / "clock", monotonic=time.monotonic)
        identity = cast(Identity, _Known(device, folder / str(device)))
        plane = ControlPlane(config, identity, clock)
        plane.tokens = cast(
            Tokens, _Minted(Token(_mint(stack, device), time.monotonic() + 3600, time.monotonic() + 3600))
        )
        planes.append(plane)

        def woken(wake: Wake, plane: ControlPlane = plane) -> None:
            tasks.append(asyncio.create_task(ask(plane)))

        subscription = Subscription(
            url=stack.api_url,
            key=stack.publishable_key,
            device_id=str(device),
            tokens=plane.tokens,
            clock=clock,
            on_wake=woken,
            on_subscribed=joined.release,
        )
        subscription.move_to("stable")
        tasks.append(asyncio.create_task(subscription.run()))
        if len(tasks) % 20 == 0:
            await asyncio.sleep(0.1)
    for _ in devices:
        await asyncio.wait_for(joined.acquire(), 120)
    await asyncio.sleep(2)  # the segment's topic is joined after the device's own
    make_immediate(stack)
    async with await psycopg.AsyncConnection.connect(stack.db_url) as connection:
        for _ in range(ROUNDS):
            await connection.execute(
                "insert into public.releases (commit_sha, branch, version) values (%s, 'main', %s)",
                (os.urandom(20).hex(), uuid.uuid4().hex[:8]),
            )
            committed = time.monotonic()
            await connection.commit()
            for _ in devices:
                await asyncio.wait_for(done.acquire(), 60)
    for task in tasks:
        task.cancel()
    await asyncio.gather(*tasks, return_exceptions=True)
    for plane in planes:
        await plane.close()
    return asked, answered
