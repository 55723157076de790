"""Docker ends and returns: noticed over real sockets, each time once."""

from __future__ import annotations

import asyncio
from pathlib import Path

import pytest

from fleet_agent.daemon.docker_watch import DockerWatch

PATIENCE_S = 60.0


class Docker:
    """Answers requests with a stream that ends when it does."""

    def __init__(self, file: Path) -> None:
        self.file = file
        self._held: list[asyncio.StreamWriter] = []
        self.asked = asyncio.Event()

    async def start(self) -> None:
        self.asked.clear()
        self._server = await asyncio.start_unix_server(self._answer, self.file)

    async def end(self) -> None:
        self._server.close()
        for writer in self._held:
            writer.close()
        self._held.clear()
        self.file.unlink()

    async def _answer(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        assert (await reader.readline()).startswith(b"GET /events?")
        self._held.append(writer)
        writer.write(b"HTTP/1.1 200 OK\r\n\r\n")
        self.asked.set()


async def test_each_return_is_told_once_and_the_first_sight_is_none(tmp_path: Path) -> None:
    docker, returned, count = Docker(tmp_path / "docker.sock"), asyncio.Event(), 0

    def on_return() -> None:
        nonlocal count
        count += 1
        returned.set()

    watching = asyncio.create_task(DockerWatch(on_return, f"unix://{docker.file}", retry_s=0.01).run())
    async with asyncio.timeout(PATIENCE_S):
        # The first time the watch begins before Docker does, as after a boot.
        await asyncio.sleep(0.1)
        for expected in (1, 2, 3):
            await docker.start()
            await returned.wait()
            returned.clear()
            assert count == expected
            await docker.end()
    watching.cancel()


async def test_a_docker_that_is_there_from_the_start_has_not_returned(tmp_path: Path) -> None:
    docker, returned = Docker(tmp_path / "docker.sock"), asyncio.Event()
    await docker.start()
    watching = asyncio.create_task(DockerWatch(returned.set, f"unix://{docker.file}", retry_s=0.01).run())
    async with asyncio.timeout(PATIENCE_S):
        await docker.asked.wait()
        await docker.end()
        assert not returned.is_set()
        await docker.start()
        await returned.wait()
    watching.cancel()
    await docker.end()


@pytest.mark.parametrize("address", ["ssh://somewhere", "npipe:////./pipe/docker"])
async def test_over_anything_else_nothing_is_noticed(address: str) -> None:
    await DockerWatch(lambda: None, address).run()
