"""Each check against the real thing it looks at: sockets, files, answers."""

from __future__ import annotations

import http.server
import os
import socket
import threading
import time
from collections.abc import Iterator
from contextlib import suppress
from datetime import timedelta
from pathlib import Path
from typing import cast

import pytest

from fleet_agent.containers.base import CommandResult, Container, LogLine, Runtime
from fleet_agent.health.base import CheckContext, CheckOutcome, CheckResult
from fleet_agent.health.checks import one
from fleet_agent.health.http import BODY_LIMIT
from fleet_agent.health.log import LINE_LIMIT
from fleet_agent.roles.schema import (
    Check,
    CommandCheck,
    ComposeCheck,
    ContainerCheck,
    FileCheck,
    HttpCheck,
    LogCheck,
    TcpCheck,
)
from tests.support.engine_harness import START


class Spoken:
    """The part of a runtime that checks ask."""

    def __init__(self, lines: list[LogLine] | None = None, result: CommandResult | None = None) -> None:
        self.lines, self.result = lines or [], result or CommandResult(0, "")

    def logs(self, *_: object, **__: object) -> list[LogLine]:
        return list(self.lines)

    def execute(self, *_: object) -> CommandResult:
        return self.result


def container(service: str = "web", state: str = "running", **facts: object) -> Container:
    return Container.model_validate(
        {"id": service, "service": service, "image": "i:1", "state": state, **facts}
    )


def look(check: Check, *containers: Container, runtime: Spoken | None = None, **facts: object) -> CheckResult:
    context = CheckContext(
        containers=containers,
        expected=("web",),
        runtime=cast(Runtime, runtime or Spoken()),
        project="p",
        since=START,
        now=START + timedelta(seconds=30),
        monotonic=time.monotonic,
        **facts,  # type: ignore[arg-type]
    )
    return one(check).look(context)


RUNS = ContainerCheck(kind="container")


@pytest.mark.parametrize(
    ("state", "facts", "answer"),
    [
        ("running", {}, CheckOutcome.PASS),
        ("created", {}, CheckOutcome.WAIT),
        ("restarting", {}, CheckOutcome.FAIL),
        ("paused", {}, CheckOutcome.FAIL),
        ("exited", {"exit_code": 0}, CheckOutcome.FATAL),
        ("exited", {"exit_code": 1}, CheckOutcome.FATAL),
        ("dead", {}, CheckOutcome.FATAL),
        ("running", {"restarts": 1}, CheckOutcome.FATAL),
    ],
)
def test_container_states(state: str, facts: dict[str, object], answer: CheckOutcome) -> None:
    assert look(RUNS, container("web", state, **facts)).outcome is answer


def test_one_shot_service_may_have_completed_but_not_failed() -> None:
    once = ContainerCheck(kind="container", completed=("web",))
    assert look(once, container(state="exited", exit_code=0)).outcome is CheckOutcome.PASS
    assert look(once, container(state="exited", exit_code=1)).outcome is CheckOutcome.FATAL


def test_restarts_from_before_the_update_do_not_count() -> None:
    assert look(RUNS, container(restarts=7), restarts_before={"web": 7}).outcome is CheckOutcome.PASS
    assert look(RUNS, container(restarts=8), restarts_before={"web": 7}).outcome is CheckOutcome.FATAL


def test_absent_service_fails() -> None:
    assert look(RUNS).detail == "web has no container"


@pytest.mark.parametrize(
    ("health", "answer"),
    [
        ("healthy", CheckOutcome.PASS),
        ("starting", CheckOutcome.WAIT),
        ("unhealthy", CheckOutcome.FAIL),
        (None, CheckOutcome.PASS),
    ],
)
def test_compose_health(health: str | None, answer: CheckOutcome) -> None:
    assert look(ComposeCheck(kind="compose"), container(health=health)).outcome is answer


def test_named_service_without_healthcheck_can_never_be_healthy() -> None:
    assert look(ComposeCheck(kind="compose", services=("web",)), container()).outcome is CheckOutcome.FATAL


def test_named_service_without_a_container_is_not_healthy() -> None:
    seen = look(ComposeCheck(kind="compose", services=("web", "db")), container(health="healthy"))
    assert (seen.outcome, seen.detail) == (CheckOutcome.FAIL, "db has no container")


class _Page(http.server.BaseHTTPRequestHandler):
    def do_GET(self) -> None:
        status = int(self.path.strip("/") or 200)
        self.send_response(status)
        if status == 302:
            self.send_header("Location", "/200")
        self.end_headers()
        if self.path == "/201":
            time.sleep(0.15)
        self.wfile.write(b"." * BODY_LIMIT + b"the end" if self.path == "/203" else b"all is well\n")

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
        ("/200", {}, "returned 200"),
        ("/500", {}, "returned 500"),
        ("/500", {"status": (500,)}, "returned 500"),
        ("/302", {}, "returned 302"),
        ("/200", {"body": "well"}, "returned 200"),
        ("/200", {"body": "ill"}, "responded without 'ill'"),
        ("/200", {"body_is": "all is well"}, "returned 200"),
        ("/200", {"body_is": "all"}, "responded 'all is well', not 'all'"),
        ("/201", {"status": (201,), "max_latency_ms": 50}, "more than 50 ms"),
    ],
)
def test_http(url: str, path: str, wanted: dict[str, object], says: str) -> None:
    seen = look(HttpCheck.model_validate({"kind": "http", "url": url + path, **wanted}))
    assert says in seen.detail
    ok = says == "returned 200" or wanted.get("status") == (500,)
    assert seen.outcome is (CheckOutcome.PASS if ok else CheckOutcome.FAIL)


def test_http_nobody_there(url: str) -> None:
    with socket.socket() as unused:
        unused.bind(("127.0.0.1", 0))
        seen = look(HttpCheck(kind="http", url=f"http://127.0.0.1:{unused.getsockname()[1]}/"))
    assert (seen.outcome, "Connection refused" in seen.detail) == (CheckOutcome.FAIL, True)
    del url


class _Drip(http.server.BaseHTTPRequestHandler):
    """One byte now and then, in the head or in the body, and never an end."""

    def do_GET(self) -> None:
        if self.path == "/body":
            self.send_response(200)
            self.end_headers()
        with suppress(OSError):
            while True:
                self.wfile.write(b"H")
                time.sleep(0.02)

    def log_message(self, *_: object) -> None:
        pass


@pytest.mark.parametrize("where", ["head", "body"])
def test_http_answer_that_drips_is_given_up_as_a_whole(where: str) -> None:
    """Each byte comes in time, the answer never: probation's deadline must not wait for it."""
    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), _Drip) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        check = HttpCheck(kind="http", url=f"http://127.0.0.1:{server.server_port}/{where}", timeout_s=0.3)
        seen = look(check)
        server.shutdown()
    assert (seen.outcome, "incomplete after 0.3 s" in seen.detail) == (CheckOutcome.FAIL, True)


def test_http_body_is_read_up_to_a_limit(url: str) -> None:
    """A check that hits a download must not fill the device's memory."""
    seen = look(HttpCheck(kind="http", url=f"{url}/203", status=(203,), body="the end"))
    assert (seen.outcome, "responded without 'the end'" in seen.detail) == (CheckOutcome.FAIL, True)


def test_tcp_waits_no_longer_than_declared(monkeypatch: pytest.MonkeyPatch) -> None:
    def silent(address: tuple[str, int], timeout: float) -> socket.socket:
        raise TimeoutError(f"{address} did not answer within {timeout}")

    monkeypatch.setattr(socket, "create_connection", silent)
    seen = look(TcpCheck(kind="tcp", host="192.0.2.1", port=80, timeout_s=0.7))
    assert (seen.outcome, seen.detail) == (
        CheckOutcome.FAIL,
        "tcp 192.0.2.1:80 cannot be reached (timed out)",
    )


def test_tcp() -> None:
    with socket.socket() as server:
        server.bind(("127.0.0.1", 0))
        port = server.getsockname()[1]
        assert look(TcpCheck(kind="tcp", port=port)).outcome is CheckOutcome.FAIL
        server.listen()
        assert look(TcpCheck(kind="tcp", port=port)).outcome is CheckOutcome.PASS


@pytest.mark.parametrize(
    ("allowed", "answer"), [(0, CheckOutcome.FAIL), (1, CheckOutcome.FAIL), (2, CheckOutcome.PASS)]
)
def test_log_rate(allowed: int, answer: CheckOutcome) -> None:
    """Two lines match; one that is older than the update is not held against it."""
    lines = [
        LogLine("web", "ERROR one", START + timedelta(seconds=1)),
        LogLine("web", "fine", START + timedelta(seconds=2)),
        LogLine("web", "ERROR two", START + timedelta(seconds=3)),
        LogLine("web", "ERROR before", START - timedelta(seconds=1)),
    ]
    seen = look(LogCheck(kind="log", pattern="^ERROR", max_matches=allowed), runtime=Spoken(lines))
    assert seen.outcome is answer


@pytest.mark.parametrize(("window_s", "answer"), [(30, CheckOutcome.FAIL), (29, CheckOutcome.PASS)])
def test_log_lines_count_within_their_window(window_s: float, answer: CheckOutcome) -> None:
    """It is 30 s after the start: a service that stopped complaining is quiet again."""
    lines = [LogLine("web", "ERROR once", START)]
    check = LogCheck(kind="log", pattern="ERROR", window_s=window_s)
    assert look(check, runtime=Spoken(lines)).outcome is answer


def test_log_lines_of_other_services_do_not_count() -> None:
    lines = [LogLine("db", "ERROR of db", START)]
    assert look(LogCheck(kind="log", pattern="ERROR"), runtime=Spoken(lines)).outcome is CheckOutcome.FAIL
    mine = LogCheck(kind="log", pattern="ERROR", services=("web",))
    assert look(mine, runtime=Spoken(lines)).outcome is CheckOutcome.PASS


def test_log_line_is_searched_up_to_a_limit() -> None:
    """A pattern that backtracks over a megabyte would hold up the whole probation."""
    for far, answer in ((LINE_LIMIT - 5, CheckOutcome.FAIL), (LINE_LIMIT, CheckOutcome.PASS)):
        lines = [LogLine("web", " " * far + "ERROR", START)]
        assert look(LogCheck(kind="log", pattern="ERROR"), runtime=Spoken(lines)).outcome is answer


def test_command() -> None:
    check = CommandCheck(kind="command", service="web", command=("check",))
    assert look(check, runtime=Spoken(result=CommandResult(0, ""))).outcome is CheckOutcome.PASS
    seen = look(check, runtime=Spoken(result=CommandResult(2, "no\nnot today\n")))
    assert (seen.outcome, seen.detail) == (
        CheckOutcome.FAIL,
        "command check in web exited with code 2: not today",
    )
    # Killed, it found nothing out.
    seen = look(check, runtime=Spoken(result=CommandResult(137, "")))
    assert (seen.outcome, seen.detail) == (
        CheckOutcome.WAIT,
        "command check in web was killed (signal 9), perhaps for lack of memory",
    )


@pytest.mark.parametrize(
    ("age_s", "answer"),
    [
        (59, CheckOutcome.PASS), (60, CheckOutcome.PASS), (61, CheckOutcome.FAIL),
        # Written while the clock was ahead, which is set right by now.
        (-60, CheckOutcome.PASS), (-61, CheckOutcome.FAIL),
    ],
)  # fmt: skip
def test_file_freshness(tmp_path: Path, age_s: int, answer: CheckOutcome) -> None:
    file = tmp_path / "beat"
    file.touch()
    written = (START + timedelta(seconds=30 - age_s)).timestamp()
    os.utime(file, (written, written))
    assert look(FileCheck(kind="file", path=str(file), max_age_s=60)).outcome is answer


def test_absent_file_fails(tmp_path: Path) -> None:
    assert look(FileCheck(kind="file", path=str(tmp_path / "none"))).outcome is CheckOutcome.FAIL
