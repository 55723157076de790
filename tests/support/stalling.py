"""A way to Docker that can be told to swallow a request: what asked waits, as before a Docker that hangs."""

from __future__ import annotations

import contextlib
import os
import socket
import threading
from collections.abc import Iterator
from pathlib import Path


class Stalling:
    """Passes everything on to the real socket until `swallow` is set: what contains it is never answered."""

    def __init__(self, socket_file: Path, real: str) -> None:
        self.swallow: bytes | None = None
        self.swallowed = threading.Event()
        self._real = real
        self._server = socket.socket(socket.AF_UNIX)
        self._server.bind(str(socket_file))
        self._server.listen(64)
        threading.Thread(target=self._accept, daemon=True).start()

    def close(self) -> None:
        self._server.close()

    def _accept(self) -> None:
        with contextlib.suppress(OSError):
            while True:
                client, _ = self._server.accept()
                threading.Thread(target=self._serve, args=(client,), daemon=True).start()

    def _serve(self, client: socket.socket) -> None:
        with contextlib.suppress(OSError), client, socket.socket(socket.AF_UNIX) as docker:
            docker.connect(self._real)
            back = threading.Thread(target=_copy, args=(docker, client), daemon=True)
            back.start()
            while piece := client.recv(65536):
                if self.swallow is not None and self.swallow in piece:
                    self.swallowed.set()
                    # Nothing more is passed on; the connection stays until the client goes.
                    while client.recv(65536):
                        pass
                    return
                docker.sendall(piece)
            docker.shutdown(socket.SHUT_WR)
            back.join()


def _copy(source: socket.socket, target: socket.socket) -> None:
    with contextlib.suppress(OSError):
        while piece := source.recv(65536):
            target.sendall(piece)
        target.shutdown(socket.SHUT_WR)


@contextlib.contextmanager
def stalling(folder: Path) -> Iterator[Stalling]:
    """One in front of this machine's Docker, and DOCKER_HOST set to it meanwhile."""
    before = os.environ.get("DOCKER_HOST")
    real = (before or "unix:///var/run/docker.sock").removeprefix("unix://")
    proxy = Stalling(folder / "docker.sock", real)
    os.environ["DOCKER_HOST"] = f"unix://{folder / 'docker.sock'}"
    try:
        yield proxy
    finally:
        os.environ.pop("DOCKER_HOST")
        if before is not None:
            os.environ["DOCKER_HOST"] = before
        proxy.close()
