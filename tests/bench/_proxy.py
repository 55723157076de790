"""A TCP relay that counts what passes: the only honest way to know what an agent puts on the wire."""

from __future__ import annotations

import asyncio
import contextlib
import threading
from dataclasses import dataclass


@dataclass
class Traffic:
    """Bytes of payload and number of segments relayed so far, both directions together."""

    payload: int = 0
    segments: int = 0
    connections: int = 0
    requests: int = 0

    def since(self, earlier: Traffic) -> Traffic:
        return Traffic(
            self.payload - earlier.payload,
            self.segments - earlier.segments,
            self.connections - earlier.connections,
            self.requests - earlier.requests,
        )

    def on_the_wire(self) -> int:
        """Payload plus TCP/IP headers, an acknowledgment a segment, and a TLS 1.3 record around it."""
        ip_tcp, ack, tls_record, tls_handshake = 52, 52, 22, 4500
        return self.payload + self.segments * (ip_tcp + ack + tls_record) + self.connections * tls_handshake


class CountingProxy:
    """Relay 127.0.0.1:<port> to `target`; `count` names a byte string whose occurrences are counted."""

    def __init__(self, target: tuple[str, int], count: bytes = b"/rpc/desired_state") -> None:
        self.target = target
        self.count = count
        self.traffic = Traffic()
        self.port = 0
        self._loop = asyncio.new_event_loop()
        self._ready = threading.Event()
        self._thread = threading.Thread(target=self._serve, daemon=True)

    def __enter__(self) -> CountingProxy:
        self._thread.start()
        self._ready.wait()
        return self

    def __exit__(self, *_: object) -> None:
        self._loop.call_soon_threadsafe(self._loop.stop)
        self._thread.join()

    def snapshot(self) -> Traffic:
        return Traffic(**vars(self.traffic))

    def _serve(self) -> None:
        asyncio.set_event_loop(self._loop)
        server = self._loop.run_until_complete(asyncio.start_server(self._relay, "127.0.0.1", 0))
        self.port = server.sockets[0].getsockname()[1]
        self._ready.set()
        self._loop.run_forever()
        server.close()

    async def _relay(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.traffic.connections += 1
        try:
            up_reader, up_writer = await asyncio.open_connection(*self.target)
        except OSError:
            writer.close()
            return
        await asyncio.gather(self._pump(reader, up_writer), self._pump(up_reader, writer))

    async def _pump(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        with contextlib.suppress(ConnectionError, asyncio.CancelledError):
            while data := await reader.read(65536):
                self.traffic.payload += len(data)
                self.traffic.segments += 1 + len(data) // 1448
                self.traffic.requests += data.count(self.count)
                writer.write(data)
                await writer.drain()
        with contextlib.suppress(OSError):
            writer.close()
