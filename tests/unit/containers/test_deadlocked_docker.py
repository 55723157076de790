"""A Docker that takes every request and answers none is noticed by whoever asks, within its own limit."""

from __future__ import annotations

import socket
import threading
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from fleet_agent.containers.compose import ComposeRuntime
from fleet_agent.errors import ContainerError, Kind

#: Whoever has no limit of its own learns of it here, and the test fails instead of hanging.
PATIENCE_S = 20.0


class Deadlocked:
    """Accepts, reads, never says a word; hangs up after `PATIENCE_S`."""

    def __init__(self, file: Path) -> None:
        self.asked, self.gave_up = threading.Event(), threading.Event()
        self.over = threading.Event()
        self.server = socket.socket(socket.AF_UNIX)
        self.server.bind(str(file))
        self.server.listen(8)
        threading.Thread(target=self._accept, daemon=True).start()

    def _accept(self) -> None:
        while True:
            try:
                client, _ = self.server.accept()
            except OSError:
                return
            threading.Thread(target=self._swallow, args=(client,), daemon=True).start()

    def _swallow(self, client: socket.socket) -> None:
        with client:
            client.recv(65536)
            self.asked.set()
            if not self.over.wait(PATIENCE_S):
                self.gave_up.set()


@pytest.fixture
def docker(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Deadlocked]:
    made = Deadlocked(tmp_path / "docker.sock")
    monkeypatch.setenv("DOCKER_HOST", f"unix://{tmp_path / 'docker.sock'}")
    yield made
    made.over.set()
    made.server.close()


@pytest.mark.parametrize(
    "look",
    [
        pytest.param(lambda runtime: runtime.services("fleet"), id="containers"),
        pytest.param(lambda runtime: runtime.missing_images(["busybox:stable"]), id="images"),
        pytest.param(lambda runtime: runtime.logs("fleet", lines=5), id="logs"),
    ],
)
def test_a_look_at_a_deadlocked_docker_ends_as_unavailable(
    docker: Deadlocked, look: Callable[[ComposeRuntime], Any]
) -> None:
    with pytest.raises(ContainerError) as caught:
        look(ComposeRuntime(["/bin/false"], look_limit_s=1))
    assert (caught.value.kind, caught.value.retryable) == (Kind.DOCKER_UNAVAILABLE, True)
    assert docker.asked.is_set()
    assert not docker.gave_up.is_set()
