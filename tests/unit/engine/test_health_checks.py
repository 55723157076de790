"""Each check against the real thing it looks at: sockets, files, answers."""

from __future__ import annotations

import http.server
import os
import socket
import threading
import time
from collections.abc import Iterator
from datetime import timedelta
from pathlib import Path
from typing import cast

import pytest

from fleet_agent.containers.base import CommandResult, Container, LogLine, Runtime
from fleet_agent.health.base import Answer, Reading, Sight
from fleet_agent.health.checks import one
from fleet_agent.role import (
    Check,
    CommandCheck,
    ComposeCheck,
    ContainerCheck,
    FileCheck,
    HttpCheck,
    LogCheck,
    TcpCheck,
)
from tests.engine_kit import START


class Spoken:
    """The part of a runtime that checks ask."""

    def __init__(self, lines: list[LogLine] | None = None, result: CommandResult | None = None) -> None:
        self.lines, self.result = lines or [], result or CommandResult(0, "")

    def logs(self, *_: object, **__: object) -> list[LogLine]:
        return self.lines

    def execute(self, *_: object) -> CommandResult:
        return self.result


def container(service: str = "web", state: str = "running", **facts: object) -> Container:
    return Container.model_validate(
        {"id": service, "service": service, "image": "i:1", "state": state, **facts}
    )


def look(check: Check, *containers: Container, runtime: Spoken | None = None, **facts: object) -> Reading:
    sight = Sight(
        containers=containers,
        expected=("web",),
        runtime=cast(Runtime, runtime or Spoken()),
        project="p",
        since=START,
        now=START + timedelta(seconds=30),
        monotonic=time.monotonic,
        **facts,  # type: ignore[arg-type]
    )
    return one(check).look(sight)


RUNS = ContainerCheck(kind="container")


@pytest.mark.parametrize(
    ("state", "facts", "answer"),
    [
        ("running", {}, Answer.PASS),
        ("created", {}, Answer.WAIT),
        ("restarting", {}, Answer.FAIL),
        ("paused", {}, Answer.FAIL),
        ("exited", {"exit_code": 0}, Answer.FATAL),
        ("exited", {"exit_code": 1}, Answer.FATAL),
        ("dead", {}, Answer.FATAL),
        ("running", {"restarts": 1}, Answer.FATAL),
    ],
)
def test_container_states(state: str, facts: dict[str, object], answer: Answer) -> None:
    assert look(RUNS, container("web", state, **facts)).answer is answer


def test_one_shot_service_may_have_completed_but_not_failed() -> None:
    once = ContainerCheck(kind="container", completed=("web",))
    assert look(once, container(state="exited", exit_code=0)).answer is Answer.PASS
    assert look(once, container(state="exited", exit_code=1)).answer is Answer.FATAL


def test_restarts_from_before_the_update_do_not_count() -> None:
    assert look(RUNS, container(restarts=7), restarts_before={"web": 7}).answer is Answer.PASS
    assert look(RUNS, container(restarts=8), restarts_before={"web": 7}).answer is Answer.FATAL


def test_absent_service_fails() -> None:
    assert look(RUNS).detail == "web has no container"


@pytest.mark.parametrize(
    ("health", "answer"),
    [("healthy", Answer.PASS), ("starting", Answer.WAIT), ("unhealthy", Answer.FAIL), (None, Answer.PASS)],
)
def test_compose_health(health: str | None, answer: Answer) -> None:
    assert look(ComposeCheck(kind="compose"), container(health=health)).answer is answer


def test_named_service_without_healthcheck_can_never_be_healthy() -> None:
    assert look(ComposeCheck(kind="compose", services=("web",)), container()).answer is Answer.FATAL


class _Page(http.server.BaseHTTPRequestHandler):
    def do_GET(self) -> None:
        status = int(self.path.strip("/") or 200)
        self.send_response(status)
        if status == 302:
            self.send_header("Location", "/200")
        self.end_headers()
        if self.path == "/201":
            time.sleep(0.15)
        self.wfile.write(b"all is well\n")

    def log_message(self, *_: object) -> None:
        pass


@pytest.fixture(scope="module")
def url() -> Iterator[str]:
    server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), _Page)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    yield f"http://127.0.0.1:{server.server_port}"
    server.shutdown()
    server.server_close()


@pytest.mark.parametrize(
    ("path", "wanted", "says"),
    [
        ("/200", {}, "answers 200"),
        ("/500", {}, "answers 500"),
        ("/500", {"status": (500,)}, "answers 500"),
        ("/302", {}, "answers 302"),
        ("/200", {"body": "well"}, "answers 200"),
        ("/200", {"body": "ill"}, "answers without 'ill'"),
        ("/200", {"body_is": "all is well"}, "answers 200"),
        ("/200", {"body_is": "all"}, "answers 'all is well' and not 'all'"),
        ("/201", {"status": (201,), "max_latency_ms": 50}, "more than 50 ms"),
    ],
)
def test_http(url: str, path: str, wanted: dict[str, object], says: str) -> None:
    seen = look(HttpCheck.model_validate({"kind": "http", "url": url + path, **wanted}))
    assert says in seen.detail
    ok = says == "answers 200" or wanted.get("status") == (500,)
    assert seen.answer is (Answer.PASS if ok else Answer.FAIL)


def test_http_nobody_there(url: str) -> None:
    with socket.socket() as unused:
        unused.bind(("127.0.0.1", 0))
        seen = look(HttpCheck(kind="http", url=f"http://127.0.0.1:{unused.getsockname()[1]}/"))
    assert (seen.answer, "Connection refused" in seen.detail) == (Answer.FAIL, True)
    del url


def test_tcp() -> None:
    with socket.socket() as server:
        server.bind(("127.0.0.1", 0))
        port = server.getsockname()[1]
        assert look(TcpCheck(kind="tcp", port=port)).answer is Answer.FAIL
        server.listen()
        assert look(TcpCheck(kind="tcp", port=port)).answer is Answer.PASS


@pytest.mark.parametrize(("allowed", "answer"), [(0, Answer.FAIL), (1, Answer.FAIL), (2, Answer.PASS)])
def test_log_rate(allowed: int, answer: Answer) -> None:
    """Two lines match; one that is older than the update is not held against it."""
    lines = [
        LogLine("web", "ERROR one", START + timedelta(seconds=1)),
        LogLine("web", "fine", START + timedelta(seconds=2)),
        LogLine("web", "ERROR two", START + timedelta(seconds=3)),
        LogLine("web", "ERROR before", START - timedelta(seconds=1)),
    ]
    seen = look(LogCheck(kind="log", pattern="^ERROR", max_matches=allowed), runtime=Spoken(lines))
    assert seen.answer is answer


def test_command() -> None:
    check = CommandCheck(kind="command", service="web", command=("check",))
    assert look(check, runtime=Spoken(result=CommandResult(0, ""))).answer is Answer.PASS
    seen = look(check, runtime=Spoken(result=CommandResult(2, "no\nnot today\n")))
    assert (seen.answer, seen.detail) == (Answer.FAIL, "command check in web exits with 2: not today")


@pytest.mark.parametrize(("age_s", "answer"), [(59, Answer.PASS), (60, Answer.PASS), (61, Answer.FAIL)])
def test_file_freshness(tmp_path: Path, age_s: int, answer: Answer) -> None:
    file = tmp_path / "beat"
    file.touch()
    written = (START + timedelta(seconds=30 - age_s)).timestamp()
    os.utime(file, (written, written))
    assert look(FileCheck(kind="file", path=str(file), max_age_s=60)).answer is answer


def test_absent_file_fails(tmp_path: Path) -> None:
    assert look(FileCheck(kind="file", path=str(tmp_path / "none"))).answer is Answer.FAIL
