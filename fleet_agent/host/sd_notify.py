"""sd_notify: tells systemd that the daemon is ready and alive, and what it does."""

from __future__ import annotations

import contextlib
import os
import socket
import time
from collections.abc import Mapping

SEND_LIMIT_S = 1.0


class Notifier:
    """Sends to `$NOTIFY_SOCKET`. The watchdog is fed by the loop's progress, never by a timer of its own.

    `watchdog_s` is how long systemd waits for `alive` before it kills the process; None if it does not.
    """

    def __init__(self, address: str | None = None, environment: Mapping[str, str] = os.environ) -> None:
        self._address = address if address is not None else environment.get("NOTIFY_SOCKET", "")
        self._status = ""
        self.watchdog_s = _watchdog_s(environment) if self._address else None

    def ready(self) -> None:
        self._send("READY=1")

    def reloading(self) -> None:
        """The configuration is being re-read; `ready` ends it."""
        self._send(f"RELOADING=1\nMONOTONIC_USEC={time.monotonic_ns() // 1000}")

    def alive(self) -> None:
        self._send("WATCHDOG=1")

    def stopping(self) -> None:
        self._send("STOPPING=1")

    def status(self, text: str) -> None:
        """One line for `systemctl status`."""
        # A second line would be read as another variable.
        line = " ".join(text.split())
        if line != self._status:
            self._status = line
            self._send(f"STATUS={line}")

    def feed_s(self, at_most: float) -> float:
        """How often to call `alive` (seconds): three times within systemd's limit, or more often."""
        return at_most if self.watchdog_s is None else min(at_most, self.watchdog_s / 3)

    def _send(self, message: str) -> None:
        if not self._address:
            return
        # "@" names a socket in the abstract namespace.
        address = "\0" + self._address[1:] if self._address.startswith("@") else self._address
        with contextlib.suppress(OSError), socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as channel:
            # A full queue must not hang the loop.
            channel.settimeout(SEND_LIMIT_S)
            channel.sendto(message.encode(), address)


def _watchdog_s(environment: Mapping[str, str]) -> float | None:
    """The watchdog's limit, if systemd watches this very process."""
    if environment.get("WATCHDOG_PID", str(os.getpid())) != str(os.getpid()):
        return None
    try:
        microseconds = int(environment.get("WATCHDOG_USEC", ""))
    except ValueError:
        return None
    return microseconds / 1_000_000 if microseconds > 0 else None
