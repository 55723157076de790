"""A way to a real server that can go wrong: one listening socket, and what becomes of each connection."""

from __future__ import annotations

import asyncio
import contextlib
import ssl
from enum import Enum, auto


class Fault(Enum):
    NONE = auto()
    HALF_OPEN = auto()  # accepts, reads, never says a word
    SLOW_LORIS = auto()  # a byte now and then, for ever
    RESET = auto()  # accepts and resets
    CUT_OFF = auto()  # the answer ends in its middle
    CANNED = auto()  # answers `canned`, whatever was asked


SIGN_IN = b"<html><h1>Welcome to the station's WLAN</h1></html>"


def http_answer(status: int, body: bytes, **headers: str) -> bytes:
    """One whole HTTP/1.1 answer; headers by name with `_` for `-`."""
    lines = [f"HTTP/1.1 {status} As-Said", f"Content-Length: {len(body)}", "Connection: close"]
    lines += [f"{name.replace('_', '-')}: {value}" for name, value in headers.items()]
    return "\r\n".join(lines).encode() + b"\r\n\r\n" + body


class Proxy:
    """Passes requests on to `upstream` (answers by path), or does what `fault` says.

    With `tls` it speaks TLS. `served` counts requests by path (without the query), whatever became of them.
    """

    def __init__(self, answers: dict[str, bytes], *, tls: ssl.SSLContext | None = None) -> None:
        self.answers = answers
        self.fault = Fault.NONE
        #: Used up one a request; the last one stays.
        self.canned: list[bytes] = []
        self.served: dict[str, int] = {}
        self.port = 0
        self.news = asyncio.Event()
        self._tls = tls
        self._open: set[asyncio.Task[None]] = set()

    @property
    def url(self) -> str:
        return f"{'https' if self._tls else 'http'}://localhost:{self.port}"

    async def __aenter__(self) -> Proxy:
        self._server = await asyncio.start_server(self._accept, "localhost", 0, ssl=self._tls)
        self.port = self._server.sockets[0].getsockname()[1]
        for other in self._server.sockets[1:]:
            other.close()
        return self

    async def __aexit__(self, *_: object) -> None:
        self._server.close()
        for task in self._open:
            task.cancel()
        await asyncio.gather(*self._open, return_exceptions=True)

    async def served_again(self, path: str, times: int = 1) -> None:
        """Wait for so many further requests of `path`."""
        wanted = self.served.get(path, 0) + times
        while self.served.get(path, 0) < wanted:
            self.news.clear()
            await self.news.wait()

    async def all_closed(self) -> None:
        """Wait until nobody is connected any more."""
        await asyncio.gather(*self._open)

    async def _accept(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        task = asyncio.current_task()
        assert task is not None
        self._open.add(task)
        try:
            with contextlib.suppress(OSError, asyncio.IncompleteReadError, asyncio.CancelledError):
                await self._serve(reader, writer)
        finally:
            self._open.discard(task)
            writer.close()

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        if self.fault is Fault.RESET:
            writer.transport.abort()
            return
        first = await reader.readexactly(1)
        if first == b"\x16":  # a TLS greeting to a server without TLS
            writer.write(http_answer(400, b""))
            return
        path = await self._read_request(reader, first)
        self.served[path] = self.served.get(path, 0) + 1
        self.news.set()
        match self.fault:
            case Fault.HALF_OPEN:
                await asyncio.Event().wait()
            case Fault.SLOW_LORIS:
                writer.write(
                    b"HTTP/1.1 200 OK\r\nContent-Type: application/json\r\nContent-Length: 9999\r\n\r\n"
                )
                while True:
                    writer.write(b" ")
                    await writer.drain()
                    await asyncio.sleep(0.02)
            case Fault.CANNED:
                writer.write(self.canned.pop(0) if len(self.canned) > 1 else self.canned[0])
            case Fault.CUT_OFF:
                answer = self.answers[path]
                writer.write(answer[: len(answer) - 20])
            case _:
                writer.write(
                    self.answers.get(path) or http_answer(404, b"{}", Content_Type="application/json")
                )
        await writer.drain()

    @staticmethod
    async def _read_request(reader: asyncio.StreamReader, first: bytes) -> str:
        head = (first + await reader.readuntil(b"\r\n\r\n")).decode()
        length = next(
            (
                int(line.split(":")[1])
                for line in head.split("\r\n")
                if line.lower().startswith("content-length:")
            ),
            0,
        )
        await reader.readexactly(length)
        return head.split()[1].partition("?")[0]
