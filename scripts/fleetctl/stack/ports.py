"""Loopback ports: which are free, and who has those that are not."""

from __future__ import annotations

import contextlib
import secrets
import socket
import time
from collections.abc import Callable
from itertools import islice

import psutil  # type: ignore[import-untyped]  # ships no types

from fleetctl.errors import FleetctlError

# Below the range from which Linux hands out outgoing ports, so that a picked port is not taken in between.
_PICK_FROM, _PICK_TO = 20_000, 32_000
# How long Linux keeps the port of a closed outgoing connection, and a little more.
_OUTGOING_S = 65.0


def is_free(host: str, port: int) -> bool:
    """Whether a server could listen there now."""
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    with socket.socket(family, socket.SOCK_STREAM) as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind((host, port))
        except OSError:
            return False
    return True


def require_free(
    host: str,
    port: int,
    purpose: str,
    hint: str,
    *,
    waiting: Callable[[str], None] = lambda text: None,
    patience_s: float = _OUTGOING_S,
) -> None:
    """Raise FleetctlError `port_taken`, naming the port and, if the system reveals it, its owner.

    The default ports lie in the range that Linux also uses for outgoing connections. Such a port has no
    listener and becomes free on its own, so this waits for it.
    """
    deadline = time.monotonic() + patience_s
    told = False
    while not is_free(host, port):
        owner = who_listens(port)
        if owner is None and _used_by_outgoing(port) and time.monotonic() < deadline:
            if not told:
                waiting(f"Waiting for port {port}, which an outgoing connection uses")
                told = True
            time.sleep(0.25)
            continue
        raise FleetctlError(
            "port_taken",
            f"Port {port}, needed for {purpose}, is in use{f' by {owner}' if owner else ''}.",
            hint=hint,
        )


def who_listens(port: int) -> str | None:
    """`name (process 123)` of the listener, or None if there is none or the system does not reveal it."""
    for connection in _connections(port):
        if connection.status == psutil.CONN_LISTEN and connection.pid:
            with contextlib.suppress(psutil.Error):
                return f"{psutil.Process(connection.pid).name()} (process {connection.pid})"
    return None


def free_ports(count: int, host: str = "127.0.0.1") -> list[int]:
    """`count` different ports on which nothing listens now. Raises FleetctlError `no_free_port`."""
    tried = [_PICK_FROM + secrets.randbelow(_PICK_TO - _PICK_FROM) for _ in range(200 + count)]
    found = list(islice((port for port in dict.fromkeys(tried) if is_free(host, port)), count))
    if len(found) < count:
        raise FleetctlError(
            "no_free_port", f"Could not find {count} free ports.", hint="Stop other programs that use ports."
        )
    return found


def pick_base(host: str) -> int:
    """A port p such that p (API), p+1 (Postgres) and p+2 (table editor) are free."""
    for _ in range(200):
        base = _PICK_FROM + secrets.randbelow((_PICK_TO - _PICK_FROM) // 3) * 3
        if is_free(host, base) and is_free("127.0.0.1", base + 1) and is_free("127.0.0.1", base + 2):
            return base
    raise FleetctlError(
        "no_free_port", "Could not find three free ports in a row.", hint="Choose one with --port."
    )


def _used_by_outgoing(port: int) -> bool:
    found = _connections(port)
    return bool(found) and all(connection.status != psutil.CONN_LISTEN for connection in found)


def _connections(port: int) -> list[psutil._common.sconn]:
    """Empty if the system does not reveal them (macOS without root)."""
    with contextlib.suppress(psutil.Error, OSError):
        return [item for item in psutil.net_connections("tcp") if item.laddr and item.laddr.port == port]
    return []
