"""What systemd is told, through a real datagram socket."""

from __future__ import annotations

import socket
from collections.abc import Iterator
from pathlib import Path

import pytest

from fleet_agent.notify import Notifier


@pytest.fixture
def systemd(tmp_path: Path) -> Iterator[socket.socket]:
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as listening:
        listening.bind(str(tmp_path / "notify"))
        listening.settimeout(5)
        yield listening


def test_ready_alive_and_stopping_are_told(systemd: socket.socket) -> None:
    notifier = Notifier(systemd.getsockname())
    notifier.ready()
    notifier.alive()
    notifier.stopping()
    assert [systemd.recv(100) for _ in range(3)] == [b"READY=1", b"WATCHDOG=1", b"STOPPING=1"]


def test_the_same_status_is_told_once(systemd: socket.socket) -> None:
    notifier = Notifier(systemd.getsockname())
    notifier.status("already on 1")
    notifier.status("already on 1")
    notifier.status("fetching")
    assert [systemd.recv(100) for _ in range(2)] == [b"STATUS=already on 1", b"STATUS=fetching"]


@pytest.mark.parametrize("address", ["", "/nowhere/notify"])
def test_without_a_listener_nothing_happens(address: str) -> None:
    Notifier(address).ready()
