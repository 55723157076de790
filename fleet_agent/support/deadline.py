"""A connection that ends in time, whatever the other side does.

A socket's own timeout limits one read: a byte now and then keeps a reader waiting forever.
"""

from __future__ import annotations

import contextlib
import socket
import threading
from collections.abc import Iterator


@contextlib.contextmanager
def limited(connection: socket.socket, seconds: float) -> Iterator[threading.Event]:
    """Shut `connection` down after `seconds`: its reader finds the end. The event is set if that happened."""
    late = threading.Event()

    def end() -> None:
        late.set()
        with contextlib.suppress(OSError):
            # Not the method: that of a TLS connection is not for use by another thread.
            socket.socket.shutdown(connection, socket.SHUT_RDWR)

    timer = threading.Timer(max(0.0, seconds), end)
    timer.daemon = True
    timer.start()
    try:
        yield late
    finally:
        # Joined: programs are started while there is one thread only.
        timer.cancel()
        timer.join()
