"""What systemd is told, through a real datagram socket."""

from __future__ import annotations

import os
import socket
from collections.abc import Iterator
from pathlib import Path

import pytest

from fleet_agent.host.sd_notify import Notifier


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


def test_a_socket_in_the_abstract_namespace_is_reached() -> None:
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as listening:
        listening.bind("")  # the kernel chooses a name
        listening.settimeout(5)
        Notifier("@" + listening.getsockname()[1:].decode()).ready()
        assert listening.recv(100) == b"READY=1"


def test_a_status_is_one_line(systemd: socket.socket) -> None:
    """A second line would be read as another variable."""
    Notifier(systemd.getsockname()).status("no\nREADY=1")
    assert systemd.recv(100) == b"STATUS=no READY=1"


def test_a_reload_carries_the_time(systemd: socket.socket) -> None:
    Notifier(systemd.getsockname()).reloading()
    state, _, time = systemd.recv(100).decode().partition("\n")
    assert state == "RELOADING=1"
    assert int(time.removeprefix("MONOTONIC_USEC=")) > 0


def test_a_listener_that_does_not_read_does_not_hold_up_the_loop(systemd: socket.socket) -> None:
    notifier = Notifier(systemd.getsockname())
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as flood:
        flood.setblocking(False)
        with pytest.raises(BlockingIOError):
            while True:
                flood.sendto(b"x", systemd.getsockname())
    notifier.alive()


@pytest.mark.parametrize(
    ("environment", "patience"),
    [
        ({}, None),
        ({"WATCHDOG_USEC": "90000000"}, 90.0),
        ({"WATCHDOG_USEC": "90000000", "WATCHDOG_PID": str(os.getpid())}, 90.0),
        ({"WATCHDOG_USEC": "90000000", "WATCHDOG_PID": "1"}, None),
        ({"WATCHDOG_USEC": "0"}, None),
        ({"WATCHDOG_USEC": "soon"}, None),
    ],
)
def test_the_watchdogs_patience_is_systemds(environment: dict[str, str], patience: float | None) -> None:
    assert Notifier(environment={"NOTIFY_SOCKET": "/run/x", **environment}).watchdog_s == patience


def test_without_systemd_there_is_no_watchdog() -> None:
    assert Notifier(environment={"WATCHDOG_USEC": "90000000"}).watchdog_s is None


@pytest.mark.parametrize(("patience", "feed"), [(None, 15.0), (90.0, 15.0), (45.0, 15.0), (6.0, 2.0)])
def test_the_watchdog_is_fed_thrice_within_its_patience(patience: float | None, feed: float) -> None:
    notifier = Notifier("")
    notifier.watchdog_s = patience
    assert notifier.feed_s(15.0) == feed
