"""An idle connection to Docker: it ends when Docker does, even if Docker is away for only a second."""

from __future__ import annotations

import socket
from urllib.parse import urlsplit

#: Seconds that connecting over a network may take.
_PATIENCE_S = 5.0


class DockerConnection:
    """To Docker at `address`: `unix://…` or `tcp://…`. Over anything else a restart is not noticed."""

    def __init__(self, address: str) -> None:
        self._address = address
        self._held: socket.socket | None = None
        self._lost = False

    def open(self) -> None:
        """Connect to the Docker that runs now; from here on its end is noticed."""
        self.close()
        self._lost = False
        self._held = self._connect()

    def was_replaced(self) -> bool:
        """Whether another Docker has taken its place; true once for each, which is then connected to."""
        if self._held is not None and _ended(self._held):
            self.close()
            self._lost = True
        if self._held is None and self._lost:
            self._held = self._connect()
            if self._held is not None:
                self._lost = False
                return True
        return False

    def close(self) -> None:
        if self._held is not None:
            self._held.close()
            self._held = None

    def _connect(self) -> socket.socket | None:
        parts = urlsplit(self._address)
        try:
            if parts.scheme in ("unix", "http+unix"):
                held = socket.socket(socket.AF_UNIX)
                held.connect(parts.path)
            elif parts.scheme == "tcp" and parts.hostname:
                held = socket.create_connection((parts.hostname, parts.port or 2375), _PATIENCE_S)
            else:
                return None
        except OSError:
            return None
        held.setblocking(False)
        return held


def _ended(held: socket.socket) -> bool:
    try:
        return not held.recv(4096)
    except BlockingIOError:
        return False
    except OSError:
        return True
