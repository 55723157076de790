"""An idle connection tells whether the same Docker is still there: real sockets."""

from __future__ import annotations

import socket
from collections.abc import Iterator
from pathlib import Path

import pytest

from fleet_agent.containers.docker_connection import Lifeline


class Daemon:
    """Accepts, and never answers."""

    def __init__(self, file: Path) -> None:
        self._server = socket.socket(socket.AF_UNIX)
        self._server.bind(str(file))
        self._server.listen()
        self._file = file
        self._held: list[socket.socket] = []

    def accept(self) -> None:
        self._held.append(self._server.accept()[0])

    def end(self) -> None:
        for one in (*self._held, self._server):
            one.close()
        self._file.unlink(missing_ok=True)


@pytest.fixture
def file(tmp_path: Path) -> Path:
    return tmp_path / "docker.sock"


@pytest.fixture
def lifeline(file: Path) -> Iterator[Lifeline]:
    found = Lifeline(f"unix://{file}")
    yield found
    found.let_go()


def test_the_same_docker_is_no_other(file: Path, lifeline: Lifeline) -> None:
    docker = Daemon(file)
    lifeline.hold()
    docker.accept()
    assert [lifeline.cut(), lifeline.cut()] == [False, False]
    docker.end()


def test_one_that_was_replaced_is_told_once(file: Path, lifeline: Lifeline) -> None:
    first = Daemon(file)
    lifeline.hold()
    first.accept()
    first.end()
    second = Daemon(file)
    assert [lifeline.cut(), lifeline.cut()] == [True, False]
    second.end()


def test_one_that_is_away_is_told_when_it_is_back(file: Path, lifeline: Lifeline) -> None:
    first = Daemon(file)
    lifeline.hold()
    first.accept()
    first.end()
    assert [lifeline.cut(), lifeline.cut()] == [False, False]
    second = Daemon(file)
    assert [lifeline.cut(), lifeline.cut()] == [True, False]
    second.end()


def test_what_was_never_held_was_never_cut(file: Path, lifeline: Lifeline) -> None:
    lifeline.hold()
    docker = Daemon(file)
    assert lifeline.cut() is False
    docker.end()


def test_over_tcp() -> None:
    with socket.create_server(("127.0.0.1", 0)) as server:
        port = server.getsockname()[1]
        lifeline = Lifeline(f"tcp://127.0.0.1:{port}")
        lifeline.hold()
        accepted, _ = server.accept()
        assert lifeline.cut() is False
        accepted.close()
        # The end travels; it is there at the latest once another connection was made after it.
        socket.create_connection(("127.0.0.1", port)).close()
        assert lifeline.cut() is True
        lifeline.let_go()


def test_another_way_to_docker_is_not_watched() -> None:
    lifeline = Lifeline("ssh://somewhere")
    lifeline.hold()
    assert lifeline.cut() is False
