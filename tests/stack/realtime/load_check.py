"""How long a broadcast from the database takes to reach N subscribers, and how fast they can all join.

    python -m tests.stack.realtime.load_check --subscribers 500 --rounds 30 [--device-policy]
    python -m tests.stack.realtime.load_check --subscribers 2000 --rounds 10 --bare

With --bare, sockets join nothing: what whoever has the publishable key can make the server hold, each kept
open by heartbeats (`--rounds` of them). Starts a stack of its own. Every subscriber is a socket of its
own in this process, on one private topic, so the figures include this process's share: reading N frames.
Prints one JSON object; times in milliseconds.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import statistics
import tempfile
import time
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import psutil  # type: ignore[import-untyped]
import psycopg
from websockets.asyncio.client import ClientConnection, connect

from fleetctl.stack.local_stack import LocalStack
from tests.stack.realtime.support import Project, make_device

#: Joins under way at once; a fleet that reconnects is spread by its own jitter as well.
JOINING_AT_ONCE = 100


def quantiles(values: list[float]) -> dict[str, float]:
    """Median, 99th percentile and worst, rounded to a hundredth."""
    ordered = sorted(values)
    p99 = ordered[min(len(ordered) - 1, int(len(ordered) * 0.99))]
    return {
        "median": round(statistics.median(ordered), 2),
        "p99": round(p99, 2),
        "max": round(ordered[-1], 2),
    }


async def join(
    project: Project, topic: str, token: str, gate: asyncio.Semaphore
) -> tuple[ClientConnection, float]:
    """Connect and join; return the socket and how long both took, in ms."""
    async with gate:
        began = time.perf_counter()
        url = f"{project.realtime_url.replace('http', 'ws', 1)}/websocket?apikey={project.publishable_key}"
        socket = await connect(url, ping_interval=None)
        payload = {"config": {"private": True}, "access_token": token}
        frame = {"topic": f"realtime:{topic}", "event": "phx_join", "payload": payload, "ref": "1"}
        await socket.send(json.dumps(frame))
        reply = json.loads(await socket.recv())
        if reply["payload"]["status"] != "ok":
            raise SystemExit(f"refused: {reply['payload']['response']}")
        return socket, (time.perf_counter() - began) * 1000


async def received(socket: ClientConnection) -> float:
    """When the next frame came."""
    await socket.recv()
    return time.perf_counter()


async def measure(project: Project, subscribers: int, rounds: int, device_policy: bool) -> dict[str, Any]:
    """Join everybody, then broadcast `rounds` times, each once the one before has reached everybody."""
    topic, tokens = "load", [project.token("service_role")] * subscribers
    with psycopg.connect(project.db_url, autocommit=True) as db:
        if device_policy:
            devices = [make_device(db, "active", "canary") for _ in range(subscribers)]
            topic, tokens = "segment:canary", [project.token("fleet_device", device) for device in devices]
        gate = asyncio.Semaphore(JOINING_AT_ONCE)
        began = time.perf_counter()
        joined = await asyncio.gather(*(join(project, topic, token, gate) for token in tokens))
        all_joined = (time.perf_counter() - began) * 1000
        sockets = [socket for socket, _ in joined]
        every: list[float] = []
        last: list[float] = []
        for _ in range(rounds):
            waiting = [asyncio.create_task(received(socket)) for socket in sockets]
            await asyncio.sleep(0)
            sent = time.perf_counter()
            await asyncio.to_thread(
                db.execute,
                'select realtime.send(\'{"v":1,"reason":"load","spread_s":0}\', \'wake\', %s)',
                [topic],
            )
            times = [(at - sent) * 1000 for at in await asyncio.gather(*waiting)]
            every += times
            last.append(max(times))
        await asyncio.gather(*(socket.close() for socket in sockets))
    return {
        "subscribers": subscribers,
        "rounds": rounds,
        "policy": "device" if device_policy else "service_role",
        "all_joined_ms": round(all_joined, 1),
        "join_ms": quantiles([took for _, took in joined]),
        "delivery_ms": quantiles(every),
        "last_subscriber_ms": quantiles(last),
    }


async def measure_bare(stack: LocalStack, sockets: int, rounds: int) -> dict[str, Any]:
    """What sockets that join nothing, and send `rounds` heartbeats each, cost the server."""
    identity = stack.process_of("server")
    assert identity is not None
    server = psutil.Process(identity.pid)
    url = f"{stack.api_url.replace('http', 'ws', 1)}/realtime/v1/websocket?apikey={stack.publishable_key}"
    heartbeat = json.dumps({"topic": "phoenix", "event": "heartbeat", "payload": {}, "ref": "1"})

    async def one() -> ClientConnection:
        async with gate:
            return await connect(url, ping_interval=None)

    async def beat(socket: ClientConnection) -> None:
        await socket.send(heartbeat)
        await socket.recv()

    def used() -> tuple[int, float]:
        return server.memory_info().rss, sum(server.cpu_times()[:2])

    gate = asyncio.Semaphore(JOINING_AT_ONCE)
    before, cpu_at_first = used()
    opened = await asyncio.gather(*(one() for _ in range(sockets)))
    _, cpu_opened = used()
    for _ in range(rounds):
        await asyncio.gather(*(beat(socket) for socket in opened))
    after, cpu_after = used()
    await asyncio.gather(*(socket.close() for socket in opened))
    return {
        "sockets": sockets,
        "memory_kb_each": round((after - before) / 1024 / sockets, 1),
        "opening_cpu_ms_each": round((cpu_opened - cpu_at_first) * 1000 / sockets, 2),
        "heartbeat_cpu_ms_each": round((cpu_after - cpu_opened) * 1000 / sockets / rounds, 3),
    }


def main() -> None:
    """Parse, start what is needed, measure, print."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--subscribers", type=int, default=500)
    parser.add_argument("--rounds", type=int, default=30)
    parser.add_argument("--device-policy", action="store_true", help="join as devices of one segment")
    parser.add_argument("--bare", action="store_true", help="sockets that join nothing")
    given = parser.parse_args()
    with ExitStack() as leave:
        folder = Path(leave.enter_context(tempfile.TemporaryDirectory(prefix="fleet-load-")))
        stack = leave.enter_context(LocalStack.start(data=folder / "data", port=0, web=False, durable=False))
        if given.bare:
            print(json.dumps(asyncio.run(measure_bare(stack, given.subscribers, given.rounds))))
            return
        project = Project.of(stack)
        print(json.dumps(asyncio.run(measure(project, given.subscribers, given.rounds, given.device_policy))))


if __name__ == "__main__":
    main()
