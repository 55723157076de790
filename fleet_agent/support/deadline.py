"""A connection that ends in time, whatever the other side does.

A socket's own timeout is one of silence: a byte now and then keeps a reader for ever.
"""

from __future__ import annotations

import contextlib
import socket
import threading
from collections.abc import Iterator


@contextlib.contextmanager
def limited(connection: socket.socket, seconds: float) -> Iterator[threading.Event]:
    """Shut `connection` down after `seconds`: who reads it finds its end. The event tells that it was."""
    late = threading.Event()

    def end() -> None:
        late.set()
        with contextlib.suppress(OSError):
            # Not the method: that of a TLS connection is not for another thread.
            socket.socket.shutdown(connection, socket.SHUT_RDWR)

    timer = threading.Timer(max(0.0, seconds), end)
    timer.daemon = True
    timer.start()
    try:
        yield late
    finally:
        # Waited for: programs are forked with one thread only.
        timer.cancel()
        timer.join()
