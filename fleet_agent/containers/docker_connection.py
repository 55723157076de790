"""An idle connection to Docker: it ends when Docker does, be it away for a second only."""

from __future__ import annotations

import socket
from urllib.parse import urlsplit

#: Seconds that a connection over a network may take.
_PATIENCE_S = 5.0


class Lifeline:
    """To Docker at `address`: `unix://…` or `tcp://…`. Another way to it cannot be watched: it never ends."""

    def __init__(self, address: str) -> None:
        self._address = address
        self._held: socket.socket | None = None
        self._lost = False

    def hold(self) -> None:
        """From here on, the end of the Docker that is there now is noticed."""
        self.let_go()
        self._lost = False
        self._held = self._connect()

    def cut(self) -> bool:
        """Whether another Docker answers than was held; said once, when it does, and it is held then."""
        if self._held is not None and _ended(self._held):
            self.let_go()
            self._lost = True
        if self._held is None and self._lost:
            self._held = self._connect()
            if self._held is not None:
                self._lost = False
                return True
        return False

    def let_go(self) -> None:
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
