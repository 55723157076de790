"""Updates against a real engine and real Compose: what stays up, what goes back, and why."""

from __future__ import annotations

import http.server
import os
import subprocess
import threading
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import TypeVar

import pytest

from fleet_agent.containers.compose import ComposeRuntime
from fleet_agent.containers.compose_program import find_compose
from fleet_agent.engine import api
from fleet_agent.engine.config import EngineConfig
from fleet_agent.engine.dependencies import Dependencies, SystemClock
from fleet_agent.model import EngineStatus, Outcome, ReportState
from fleetctl.stack.ports import free_ports
from tests.support.engine_harness import Fleet, rows
from tests.support.own_project import own
from tests.support.stalling import Stalling, stalling

pytestmark = pytest.mark.docker

PROJECT, HERE = own("docker"), f"{own('docker-here')}:2"
T = TypeVar("T")
PORT, TAKEN_PORT = free_ports(2)

ROLE = """\
description: Serves its version.
variables:
  NEEDED: {type: string, default: given, description: Something.}
health:
  grace_s: 1
  successes: 2
  interval_s: 0.3
  watch_s: 1
  deadline_s: 15
  failure_budget: 1
  checks:
    - {kind: http, url: "http://127.0.0.1:PORT/version", body_is: "${FLEET_RELEASE_VERSION}", timeout_s: 1}
""".replace("PORT", str(PORT))
WEB = """\
services:
  web:
    image: busybox:stable
    init: true
    command: ["sh", "-c", "mkdir -p /w && echo $$V > /w/version && exec httpd -f -p 8080 -h /w"]
    environment: {V: "${FLEET_RELEASE_VERSION}"}
    ports: ["127.0.0.1:PORT:8080"]
    volumes: ["./page:/page:ro"]
    stop_grace_period: 1s
""".replace("PORT", str(PORT))
CLOCK = """\
  clock:
    image: busybox:stable
    init: true
    command: ["sh", "-c", "while :; do date; sleep 1; done"]
    volumes: ["./shared:/shared:ro"]
    stop_grace_period: 1s
"""


class Device:
    """One device on the real engine, put on `good` before each test that needs it."""

    def __init__(self, root: Path, fleet: Fleet) -> None:
        self.fleet = fleet
        self.config: EngineConfig = fleet.config(
            root, runtime="docker", project=PROJECT, safe_mode_after=100, docker_patience_s=5.0
        )
        self.count = 0

    def to(
        self,
        web: str = WEB,
        *,
        role: str = ROLE,
        dependencies: Dependencies | None = None,
        edits: dict[str, str] | None = None,
    ) -> EngineStatus:
        self.count += 1
        files = {"compose.yaml": web + CLOCK, "role.yaml": role, "shared/f": "same", **(edits or {})}
        release = self.fleet.release(f"r{self.count}", edits=files)
        return api.converge(
            self.config, self.fleet.directive(release), dependencies=dependencies or Dependencies()
        )

    def good(self) -> EngineStatus:
        found = api.status(self.config)
        if found.current is None or found.state is ReportState.SAFE_MODE:
            found = self.to()
            assert found.state is ReportState.HEALTHY, found
        return found


@pytest.fixture(scope="module")
def device(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Device]:
    folder = tmp_path_factory.mktemp("docker")
    found = Device(folder / "device", Fleet(folder / "repo"))
    yield found
    runtime = ComposeRuntime()
    runtime.down(found.config.project)
    runtime.down(found.config.safe_project)


def _ids(project: str = PROJECT) -> dict[str, str]:
    return {c.service: c.id for c in ComposeRuntime().services(project)}


def _refused(device: Device, status: EngineStatus, kind: str, phase: str) -> None:
    """The attempt ended before anything was touched."""
    row = rows(device.config)[-1]
    assert (row.outcome, row.error_kind, row.failed_phase) == (Outcome.FAILED, kind, phase), row
    assert status.phase == "steady"
    assert status.error_kind == kind


def _went_back(device: Device, status: EngineStatus, kind: str, phase: str = "probation") -> None:
    row = rows(device.config)[-1]
    assert (row.outcome, row.error_kind, row.failed_phase) == (Outcome.ROLLED_BACK, kind, phase), row
    assert status.state is ReportState.ROLLED_BACK
    assert {s.service: s.state for s in status.services} == {"web": "running", "clock": "running"}


def test_only_the_changed_service_is_replaced(device: Device) -> None:
    device.good()
    before = _ids()
    status = device.to()
    assert status.state is ReportState.HEALTHY
    assert status.reason.startswith("3 checks passed ")
    after = _ids()
    assert after["clock"] == before["clock"]
    assert after["web"] != before["web"]


def test_container_that_cannot_start_goes_back(device: Device) -> None:
    device.good()
    status = device.to(WEB.replace('command: ["sh"', 'command: ["/no/such/program"'))
    # Without `init` it would not even be created; with it, it exits at once.
    _went_back(device, status, "container_exited")


def test_container_that_cannot_be_created_goes_back(device: Device) -> None:
    device.good()
    status = device.to(WEB.replace("init: true", 'entrypoint: ["/no/such/program"]'))
    _went_back(device, status, "compose_failed", "starting")


def test_crash_within_probation_goes_back_with_the_last_words(device: Device) -> None:
    device.good()
    status = device.to(
        WEB.replace(
            "exec httpd -f -p 8080 -h /w", "httpd -p 8080 -h /w; sleep 1.2; echo out of coffee; exit 3"
        ),
        role=ROLE.replace("watch_s: 1", "watch_s: 5"),
    )
    _went_back(device, status, "container_exited")
    row = rows(device.config)[-1]
    assert "web: out of coffee" in row.evidence["log"]
    assert {"service": "web", "exit_code": 3}.items() <= next(
        c for c in row.evidence["containers"] if c["service"] == "web"
    ).items()


def test_crash_after_20_seconds_within_probation_goes_back(device: Device) -> None:
    """Well for as long as most releases are watched, and still not out of its own probation."""
    device.good()
    status = device.to(
        WEB.replace(
            "exec httpd -f -p 8080 -h /w", "httpd -p 8080 -h /w; sleep 20; echo out of water; exit 4"
        ),
        role=ROLE.replace("watch_s: 1", "watch_s: 40").replace("deadline_s: 15", "deadline_s: 60"),
    )
    _went_back(device, status, "container_exited")
    row = rows(device.config)[-1]
    assert row.phase_durations_ms["probation"] >= 19_000
    assert "web: out of water" in row.evidence["log"]


def test_the_exit_code_of_a_container_that_was_started_again_is_evidence(device: Device) -> None:
    """A running container has forgotten how it ended before; Docker's events have not."""
    device.good()
    status = device.to(
        WEB.replace("exec httpd -f -p 8080 -h /w", "sleep 0.4; echo once more; exit 7").replace(
            "init: true", "init: true\n    restart: always"
        ),
        role=ROLE.replace("watch_s: 1", "watch_s: 5"),
    )
    _went_back(device, status, "container_exited")
    row = rows(device.config)[-1]
    (web,) = (c for c in row.evidence["containers"] if c["service"] == "web")
    assert web["restarts"] > 0
    assert web["exit_code"] == 7


def test_http_errors_go_back(device: Device) -> None:
    device.good()
    status = device.to(WEB.replace("/w/version", "/w/other"))
    _went_back(device, status, "unhealthy")
    assert status.error == f"GET http://127.0.0.1:{PORT}/version returned 404."


def test_compose_syntax_error_touches_nothing(device: Device) -> None:
    device.good()
    before = _ids()
    _refused(device, device.to(WEB.replace("image:", "imagine:")), "compose_invalid", "validating")
    assert _ids() == before


def test_undeclared_variable_touches_nothing(device: Device) -> None:
    device.good()
    status = device.to(WEB.replace("{V:", '{X: "${NEVER_DECLARED}", V:'))
    _refused(device, status, "variable_missing", "validating")
    assert "NEVER_DECLARED" in (status.error or "")


def test_missing_required_variable_touches_nothing(device: Device) -> None:
    device.good()
    role = ROLE.replace("default: given", "required: true")
    status = device.to(role=role)
    _refused(device, status, "variable_missing", "validating")
    assert status.error == "NEEDED is not set (Something)."
    # The operator's correction of the .env is reason enough to try again.
    device.config.paths.env_file.write_text("NEEDED=now\n")
    release = device.fleet.release(f"r{device.count}")
    status = api.converge(device.config, device.fleet.directive(release))
    assert status.current == release


def test_taken_port_touches_nothing(device: Device) -> None:
    import socket

    device.good()
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", TAKEN_PORT))
        taken.listen()
        status = device.to(WEB.replace(f"{PORT}:8080", f"{TAKEN_PORT}:8080"))
    _refused(device, status, "port_conflict", "validating")
    assert str(TAKEN_PORT) in (status.error or "")


class _EmptyRegistry(http.server.BaseHTTPRequestHandler):
    """A registry that has no image."""

    def do_GET(self) -> None:
        self.send_response(200 if self.path == "/v2/" else 404)
        self.send_header("Content-Length", "2")
        self.end_headers()
        self.wfile.write(b"{}")

    do_HEAD = do_GET  # noqa: N815

    def log_message(self, *_: object) -> None:
        pass


@pytest.mark.parametrize("there", [True, False], ids=["image missing", "registry down"])
def test_image_that_cannot_be_had_touches_nothing(device: Device, there: bool) -> None:
    device.good()
    before = _ids()
    server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), _EmptyRegistry)
    port = server.server_port
    if there:
        threading.Thread(target=server.serve_forever, daemon=True).start()
    else:
        server.server_close()
    try:
        image = f"127.0.0.1:{port}/none:1"
        status = device.to(
            WEB.replace("busybox:stable", image), dependencies=Dependencies(clock=_Impatient())
        )
    finally:
        if there:
            server.shutdown()
            server.server_close()
    _refused(device, status, "image_missing" if there else "registry_unreachable", "pulling")
    assert _ids() == before


def test_image_that_is_here_stays_while_another_cannot_be_had(device: Device) -> None:
    device.good()
    subprocess.run(["docker", "tag", "busybox:stable", HERE], check=True)
    web = WEB.replace("busybox:stable", HERE)
    more = '  more: {image: "127.0.0.1:1/none:1"}\n'
    status = device.to(web + more, dependencies=Dependencies(clock=_Impatient()))
    _refused(device, status, "registry_unreachable", "pulling")
    api.recover(device.config)
    assert ComposeRuntime().missing_images([HERE]) == []
    assert device.to().state is ReportState.HEALTHY
    assert ComposeRuntime().missing_images([HERE]) == [HERE]


class _Impatient(SystemClock):
    """Sleeps a hundredth of what it should."""

    def sleep(self, seconds: float) -> None:
        super().sleep(seconds / 100)


def test_compose_that_hangs_is_killed_and_the_device_goes_back(device: Device, tmp_path: Path) -> None:
    device.good()
    mark, hanging = tmp_path / "hung", tmp_path / "compose"
    program = " ".join(find_compose() or [])
    hanging.write_text(
        f'#!/bin/sh\ncase "$*" in *" up "*) [ -e {mark} ] || {{ echo $$ > {mark}; sleep 300; }};; esac\n'
        f'exec {program} "$@"\n'
    )
    hanging.chmod(0o755)
    # The first `up` hangs; the one that goes back does not.
    runtime = ComposeRuntime([str(hanging)], up_limit_s=4)
    status = device.to(dependencies=Dependencies(runtime=runtime))
    _went_back(device, status, "compose_hung", "starting")
    assert _alive_in_group(int(mark.read_text())) == []


def _alive_in_group(group: int) -> list[str]:
    """Programs of a process group, without those that only wait to be reaped."""
    found = subprocess.run(["ps", "-eo", "pgid=,stat=,args="], capture_output=True, text=True, check=True)
    lines = [line.split(None, 2) for line in found.stdout.splitlines()]
    return [args[0] for pgid, stat, *args in lines if int(pgid) == group and not stat.startswith("Z")]


class _Away:
    """Docker goes away at the first `effect` once images were looked for, and comes back after some naps."""

    def __init__(self, effect: str, naps: int) -> None:
        self.effect, self.armed, self.left = effect, False, naps
        self.real = os.environ.get("DOCKER_HOST")

    def perform(self, name: str, action: Callable[[], T]) -> T:
        self.armed = self.armed or name == "link app_current"
        if name == self.effect and self.armed and self.left > 0:
            os.environ["DOCKER_HOST"] = "unix:///nonexistent/docker.sock"
        return action()

    def now_back(self) -> None:
        self.left -= 1
        if self.left <= 0:
            if self.real is None:
                os.environ.pop("DOCKER_HOST", None)
            else:
                os.environ["DOCKER_HOST"] = self.real


class _ClockOf(SystemClock):
    def __init__(self, away: _Away) -> None:
        self.away = away

    def sleep(self, seconds: float) -> None:
        super().sleep(seconds)
        self.away.now_back()


@pytest.mark.parametrize("effect", ["compose up", "docker list"])
def test_docker_away_mid_update_is_waited_for(device: Device, effect: str) -> None:
    device.good()
    away = _Away(effect, naps=2)
    try:
        status = device.to(dependencies=Dependencies(effects=away, clock=_ClockOf(away)))
    finally:
        away.left = 0
        away.now_back()
    assert (status.state, status.error) == (ReportState.HEALTHY, None)


class _Deadlocks:
    """From the first `compose up` after the swap on Docker answers no look, until somebody napped twice."""

    def __init__(self, docker: Stalling) -> None:
        self.docker, self.swapped, self.done, self.naps = docker, False, False, 0

    def perform(self, name: str, action: Callable[[], T]) -> T:
        self.swapped = self.swapped or name == "link app_current"
        result = action()
        if name == "compose up" and self.swapped and not self.done:
            self.docker.swallow, self.done = b"/containers/json", True
        return result

    def napped(self) -> None:
        self.naps += self.docker.swallowed.is_set()
        if self.naps >= 2:
            self.docker.swallow = None


class _ClockOfDeadlock(SystemClock):
    def __init__(self, deadlock: _Deadlocks) -> None:
        self.deadlock = deadlock

    def sleep(self, seconds: float) -> None:
        super().sleep(seconds)
        self.deadlock.napped()


def test_docker_that_deadlocks_mid_update_is_noticed_and_waited_for(device: Device, tmp_path: Path) -> None:
    device.good()
    with stalling(tmp_path) as docker:
        deadlock = _Deadlocks(docker)
        status = device.to(
            dependencies=Dependencies(
                runtime=ComposeRuntime(look_limit_s=1), effects=deadlock, clock=_ClockOfDeadlock(deadlock)
            )
        )
    assert docker.swallowed.is_set()
    assert (status.state, status.error) == (ReportState.HEALTHY, None)


def test_service_that_ignores_sigterm_is_replaced(device: Device) -> None:
    deaf = (
        WEB.replace("init: true\n", "")
        .replace("mkdir -p", "trap '' TERM; mkdir -p")
        .replace("exec httpd", "httpd")
    )
    deaf = deaf.replace('-h /w"]', '-h /w & while :; do sleep 1; done"]')
    assert device.to(deaf).state is ReportState.HEALTHY
    status = device.to()
    assert status.state is ReportState.HEALTHY


def test_killed_container_is_healed(device: Device) -> None:
    device.good()
    subprocess.run(["docker", "rm", "-f", _ids()["web"]], check=True, capture_output=True)
    status = api.recover(device.config)
    assert status.phase == "steady"
    assert {s.service: s.state for s in status.services} == {"web": "running", "clock": "running"}


def test_secrets_stay_out_of_logs(device: Device) -> None:
    device.good()
    assert any(line.service == "clock" for line in api.logs(device.config, lines=3))


def test_drift_names_what_was_changed_by_hand(device: Device) -> None:
    device.good()
    assert api.drift(device.config) == []
    subprocess.run(["docker", "stop", "-t", "0", _ids()["clock"]], check=True, capture_output=True)
    assert api.drift(device.config) == ["clock is exited"]
    api.recover(device.config)
    assert api.drift(device.config) == []
