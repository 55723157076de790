"""An idle connection tells whether the same Docker is still there: real sockets."""

from __future__ import annotations

import socket
from collections.abc import Iterator
from pathlib import Path

import pytest

from fleet_agent.containers.docker_connection import DockerConnection


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
def connection(file: Path) -> Iterator[DockerConnection]:
    found = DockerConnection(f"unix://{file}")
    yield found
    found.close()


def test_the_same_docker_is_no_other(file: Path, connection: DockerConnection) -> None:
    docker = Daemon(file)
    connection.open()
    docker.accept()
    assert [connection.was_replaced(), connection.was_replaced()] == [False, False]
    docker.end()


def test_one_that_was_replaced_is_told_once(file: Path, connection: DockerConnection) -> None:
    first = Daemon(file)
    connection.open()
    first.accept()
    first.end()
    second = Daemon(file)
    assert [connection.was_replaced(), connection.was_replaced()] == [True, False]
    second.end()


def test_one_that_is_away_is_told_when_it_is_back(file: Path, connection: DockerConnection) -> None:
    first = Daemon(file)
    connection.open()
    first.accept()
    first.end()
    assert [connection.was_replaced(), connection.was_replaced()] == [False, False]
    second = Daemon(file)
    assert [connection.was_replaced(), connection.was_replaced()] == [True, False]
    second.end()


def test_what_was_never_held_was_never_cut(file: Path, connection: DockerConnection) -> None:
    connection.open()
    docker = Daemon(file)
    assert connection.was_replaced() is False
    docker.end()


def test_over_tcp() -> None:
    with socket.create_server(("127.0.0.1", 0)) as server:
        port = server.getsockname()[1]
        connection = DockerConnection(f"tcp://127.0.0.1:{port}")
        connection.open()
        accepted, _ = server.accept()
        assert connection.was_replaced() is False
        accepted.close()
        # The end travels; it is there at the latest once another connection was made after it.
        socket.create_connection(("127.0.0.1", port)).close()
        assert connection.was_replaced() is True
        connection.close()


def test_another_way_to_docker_is_not_watched() -> None:
    connection = DockerConnection("ssh://somewhere")
    connection.open()
    assert connection.was_replaced() is False
