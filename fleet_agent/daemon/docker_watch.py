"""Docker's end and return, noticed at rest: what it dropped is looked after within seconds of its return."""

from __future__ import annotations

import asyncio
import contextlib
import os
from collections.abc import Callable
from urllib.parse import urlsplit

from loguru import logger

#: Seconds from one try to reach a Docker that is away to the next.
RETRY_S = 2.0
#: A stream of events of which there are hardly any: it ends when Docker does. An idle connection would not
#: do, since newer versions of Docker close one after five minutes.
_REQUEST = (
    b"GET /events?filters=%7B%22type%22%3A%5B%22daemon%22%5D%7D HTTP/1.1\r\n"
    b"Host: docker\r\nUser-Agent: fleet-agent\r\n\r\n"
)


def docker_address() -> str:
    return os.environ.get("DOCKER_HOST") or "unix:///var/run/docker.sock"


class DockerWatch:
    """Calls `on_return` each time that Docker answers after it was away. Address as in `DOCKER_HOST`.

    Over anything but `unix://` and `tcp://` nothing is noticed.
    """

    def __init__(self, on_return: Callable[[], None], address: str, *, retry_s: float = RETRY_S) -> None:
        self._on_return, self._address, self._retry_s = on_return, urlsplit(address), retry_s

    async def run(self) -> None:
        """Until canceled."""
        if self._address.scheme not in ("unix", "http+unix", "tcp"):
            return
        was_away = False
        while True:
            with contextlib.suppress(OSError):
                await self._follow(was_away=was_away)
            was_away = True
            await asyncio.sleep(self._retry_s)

    async def _follow(self, *, was_away: bool) -> None:
        """Returns when Docker has ended. Raises OSError if it cannot be reached."""
        reader, writer = await self._connect()
        try:
            writer.write(_REQUEST)
            await writer.drain()
            if not await reader.read(4096):
                return
            if was_away:
                logger.info("Docker was away and has returned")
                self._on_return()
            while await reader.read(4096):
                pass
        finally:
            writer.close()

    async def _connect(self) -> tuple[asyncio.StreamReader, asyncio.StreamWriter]:
        if self._address.scheme == "tcp":
            return await asyncio.open_connection(self._address.hostname, self._address.port or 2375)
        return await asyncio.open_unix_connection(self._address.path)
