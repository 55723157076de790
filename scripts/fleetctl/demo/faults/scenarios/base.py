"""What can go wrong on a device, one function each: break it for real, then say how it should have ended."""

from __future__ import annotations

import http.server
import json
import secrets
import shutil
import socket
import subprocess
import threading
import time
import urllib.error
import urllib.request
from collections.abc import Callable
from dataclasses import dataclass, field, replace
from typing import Any

from loguru import logger

from fleet_agent.containers.compose import ComposeRuntime
from fleet_agent.containers.compose_program import find_compose
from fleet_agent.engine import api
from fleet_agent.engine.dependencies import Dependencies
from fleet_agent.engine.phases import Phase
from fleet_agent.model import Attempt, Outcome, Progress, Release
from fleetctl.demo.faults.device import FaultDevice
from fleetctl.demo.faults.engine_run import EngineRun, Say, Told
from fleetctl.demo.probe import Probe
from fleetctl.fleet_repo import Breakage

#: Phases in which the engine is killed with a release that is well; `rolling_back` takes one that is not.
KILLED_IN = (
    Phase.FETCHING, Phase.VERIFYING, Phase.VALIDATING, Phase.PULLING, Phase.SWAPPING, Phase.STARTING,
    Phase.PROBATION, Phase.COMMITTING, Phase.RECORDING, Phase.ROLLING_BACK,
)  # fmt: skip
#: Often enough to see an outage of 50 ms, and no burden on a small machine.
ASK_EVERY_S = 0.01
#: Of the file system that is filled up.
SMALL_MIB = 4
BUSYBOX = "image: busybox:stable"
COMMAND = "    command: [sh, /web/serve]\n"


@dataclass
class Result:
    """What was seen. Empty `problems`: it ended as it should. Times in seconds, outage in milliseconds.

    `proven_s`: from the engine's verdict to the old release proven healthy; None where it never stopped.
    """

    name: str
    broken: str
    outcome: str = ""
    phase: str = ""
    kind: str = ""
    said: str = ""
    evidence: list[str] = field(default_factory=list)
    proven_s: float | None = None
    outage_ms: float | None = None
    seconds: float = 0.0
    problems: list[str] = field(default_factory=list)
    skipped: str = ""

    @property
    def ok(self) -> bool:
        return not self.problems


@dataclass
class Stage:
    """What every scenario plays on: one device that runs `good`, and how to tell what happens."""

    device: FaultDevice
    say: Say
    new_device: Callable[[], FaultDevice]
    good: Release | None = None

    @property
    def simulated(self) -> bool:
        return self.device.runtime == "simulated"

    def standing(self) -> Release:
        """The release that the device runs, made first where there is none, or none that is well."""
        if self.good is None or self.device.troubles(self.good):
            release = self.device.release()
            self.device.offer(release, say=self.say)
            if troubles := self.device.troubles(release):
                raise RuntimeError(f"The device could not be brought to a release that works: {troubles}")
            self.good = release
        return self.good


@dataclass(frozen=True)
class Scenario:
    """`needs_docker` says why it cannot be simulated; `play` fills the result in."""

    name: str
    broken: str
    play: Callable[[Stage, Result], None]
    needs_docker: str = ""


@dataclass(frozen=True)
class Expected:
    outcome: Outcome
    phase: str
    #: Any of them; which one wins a race does not matter.
    kinds: tuple[str, ...]


def _went_back(*kinds: str, phase: str = "probation") -> Expected:
    return Expected(Outcome.ROLLED_BACK, phase, kinds)


def _untouched(kind: str, phase: str = "validating") -> Expected:
    return Expected(Outcome.FAILED, phase, (kind,))


def _bad_release(
    expected: Expected,
    breakage: Breakage | None = None,
    edits: dict[str, tuple[str, str]] | None = None,
    before: Callable[[Stage], None] | None = None,
) -> Callable[[Stage, Result], None]:
    """Offer a bad release to a device that is well: it must be well again, or still, at the end."""

    def play(stage: Stage, result: Result) -> None:
        good, device = stage.standing(), stage.device
        if before is not None:
            before(stage)
        bad = device.release(breakage, edits=edits)
        with _client(stage) as client:
            run = device.offer(bad, say=stage.say)
        _judge(stage, result, run, offered=bad, left=good, expected=expected, client=client)

    return play


class _client:  # noqa: N801  read as `with _client(stage)`
    """A client of the changed service, asking all the time; simulated containers serve nobody."""

    def __init__(self, stage: Stage) -> None:
        self._probe = None if stage.simulated else Probe(stage.device.web, every_s=ASK_EVERY_S)
        self._since = 0.0

    def __enter__(self) -> _client:
        if self._probe is not None:
            self._probe.__enter__()
            deadline = time.monotonic() + 5
            while not any(answer.body for answer in list(self._probe.answers)):
                if time.monotonic() > deadline:
                    raise RuntimeError("The release that should be well answers nobody.")
                time.sleep(0.01)
        self._since = time.monotonic()
        return self

    def __exit__(self, *_: object) -> None:
        if self._probe is not None:
            # The last gap counts once it is over.
            deadline = time.monotonic() + 5
            while self._probe.answers[-1].body is None and time.monotonic() < deadline:
                time.sleep(0.01)
            self._probe.__exit__()

    @property
    def outage_ms(self) -> float | None:
        return None if self._probe is None else self._probe.outage_s(self._since) * 1000


def _judge(
    stage: Stage,
    result: Result,
    run: EngineRun,
    *,
    offered: Release,
    left: Release,
    expected: Expected,
    client: _client,
) -> None:
    """Compare what came of offering a release with what should have; `left` must run afterwards."""
    if run.status is None:
        result.problems.append(f"the engine did not come to an end: {run.problem or run.exit_code}")
    rows = stage.device.rows(offered)
    if len(rows) != 1:
        result.problems.append(f"{len(rows)} rows of history, not 1")
    if rows:
        _take_down(result, rows[-1])
    if (result.outcome, result.phase) != (expected.outcome.value, expected.phase):
        result.problems.append(
            f"it should have {expected.outcome.value} in {expected.phase or 'no phase'}, not "
            f"{result.outcome} in {result.phase or 'no phase'}"
        )
    if expected.kinds and result.kind not in expected.kinds:
        result.problems.append(f"its kind should be {' or '.join(expected.kinds)}, not {result.kind}")
    result.problems += stage.device.troubles(left)
    result.proven_s = run.spent_in(Phase.ROLLING_BACK)
    result.outage_ms = client.outage_ms
    if expected.outcome is Outcome.FAILED and result.outage_ms:
        result.problems.append(f"a client lost {result.outage_ms:.0f} ms, and nothing should have stopped")


def _take_down(result: Result, attempt: Attempt) -> None:
    result.outcome = attempt.outcome.value
    result.phase, result.kind = attempt.failed_phase or "", attempt.error_kind or ""
    result.said = attempt.error or ""
    result.evidence = _words(attempt.evidence)


def _words(evidence: dict[str, Any]) -> list[str]:
    """Evidence in lines: exit codes of containers, then the last lines that were logged."""
    lines = [
        f"{container['service']}: exit code {container['exit_code']}, {container.get('restarts', 0)} restarts"
        for container in evidence.get("containers", [])
        if isinstance(container, dict) and container.get("exit_code")
    ]
    said = [str(line).strip() for line in [*evidence.get("log", []), *evidence.get("output", [])]]
    # A container that is started again and again says the same each time.
    return lines + list(dict.fromkeys(said))[-3:]


# --- scenarios that are more than a bad release ---


def _port_taken(stage: Stage, result: Result) -> None:
    good, device = stage.standing(), stage.device
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        port = taken.getsockname()[1]
        ports = '    ports: ["${BEACON_ADDRESS:-127.0.0.1}:${BEACON_PORT:-8080}:8080"'
        bad = device.release(edits={"compose.yaml": (f"{ports}]", f'{ports}, "127.0.0.1:{port}:8090"]')})
        with _client(stage) as client:
            run = device.offer(bad, say=stage.say)
    _judge(stage, result, run, offered=bad, left=good, expected=_untouched("port_conflict"), client=client)
    if str(port) not in result.said:
        result.problems.append(f"it does not name the port {port}")


class _Empty(http.server.BaseHTTPRequestHandler):
    """A registry that has no image."""

    def do_GET(self) -> None:
        found = self.path == "/v2/"
        body = (
            b"{}" if found else b'{"errors": [{"code": "MANIFEST_UNKNOWN", "message": "manifest unknown"}]}'
        )
        self.send_response(200 if found else 404)
        self.send_header("Content-Type", "application/json")
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        if self.command == "GET":
            self.wfile.write(body)

    do_HEAD = do_GET  # noqa: N815

    def log_message(self, *_: object) -> None:
        pass


def _image_missing(stage: Stage, result: Result) -> None:
    """Its registry answers, and does not have it."""
    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), _Empty) as registry:
        threading.Thread(target=registry.serve_forever, daemon=True).start()
        image = f"127.0.0.1:{registry.server_port}/beacon:missing"

        def lacks_it(stage: Stage) -> None:
            if stage.simulated:
                stage.device.absent_image(image)

        try:
            _bad_release(
                _untouched("image_missing", "pulling"),
                edits={"compose.yaml": (BUSYBOX, f"image: {image}")},
                before=lacks_it,
            )(stage, result)
        finally:
            registry.shutdown()


def _compose_hangs(stage: Stage, result: Result) -> None:
    """The first `up` never ends; in this process, since only here its limit can be made seconds."""
    good, device = stage.standing(), stage.device
    program = find_compose() or []
    mark, hanging = device.root / "hung", device.root / "compose"
    hanging.write_text(
        f'#!/bin/sh\ncase "$*" in *" up "*) [ -e {mark} ] || {{ echo $$ > {mark}; sleep 300; }};; esac\n'
        f'exec {" ".join(map(str, program))} "$@"\n'
    )
    hanging.chmod(0o755)
    bad = device.release()
    run = EngineRun(began=time.monotonic())

    def listen(progress: Progress) -> None:
        run.told.append(Told(time.monotonic(), progress.phase, progress.detail))
        stage.say(progress)

    # The other scenarios' engines log into a pipe; this one would log over what the person reads.
    logger.disable("fleet_agent")
    with _client(stage) as client:
        run.status = api.converge(
            device.config,
            device.directive(bad),
            listen,
            dependencies=Dependencies(runtime=ComposeRuntime([str(hanging)], up_limit_s=4)),
        )
    logger.enable("fleet_agent")
    _judge(
        stage,
        result,
        run,
        offered=bad,
        left=good,
        expected=_went_back("compose_hung", phase="starting"),
        client=client,
    )


def _disk_fills_up(stage: Stage, result: Result) -> None:
    """Its Git repository is on a file system of its own, and smaller than the new release."""
    device = stage.new_device()
    # Not refused before it begins for too little that must stay free: nothing must.
    device.config = device.config.model_copy(update={"min_free_bytes": 0})
    small = device.config.paths.repository
    small.mkdir(parents=True)
    command = ["mount", "-t", "tmpfs", "-o", f"size={SMALL_MIB}m", "fleet-demo", str(small)]
    if subprocess.run(command, capture_output=True, check=False).returncode != 0:
        result.skipped = "only root may mount a small file system"
        device.remove()
        return
    try:
        good = device.release()
        device.offer(good, say=stage.say)
        result.problems += [f"before it {trouble}" for trouble in device.troubles(good)]
        # Noise: nothing that Git could pack smaller.
        noise = secrets.token_hex(SMALL_MIB * 1024 * 1024)
        too_big = device.release(edits={"compose.yaml": ("services:\n", f"# {noise}\nservices:\n")})
        with _client(replace(stage, device=device)) as client:
            run = device.offer(too_big, say=stage.say)
        _judge(
            replace(stage, device=device), result, run,
            offered=too_big, left=good, expected=_untouched("disk_full", "fetching"), client=client,
        )  # fmt: skip
        if not result.problems:
            free = shutil.disk_usage(small).free / (1024 * 1024)
            result.evidence.append(f"of {SMALL_MIB} MiB {free:.1f} are free again")
    finally:
        device.remove()
        subprocess.run(["umount", "--lazy", str(small)], capture_output=True, check=False)


def _docker_goes_away(stage: Stage, result: Result) -> None:
    """Away from the moment the new containers should start, for three seconds."""
    stage.standing()
    device, new = stage.device, stage.device.release()
    away: list[float] = []

    def take_away(progress: Progress) -> None:
        stage.say(progress)
        if progress.phase == Phase.STARTING and not away:
            away.append(time.monotonic())
            device.docker_away()
        elif progress.detail.startswith("waiting for Docker") and time.monotonic() > away[0] + 1:
            device.docker_back()

    if not device.environment:
        result.skipped = "Docker is not behind a local socket here"
        return
    try:
        with _client(stage) as client:
            run = device.offer(new, say=take_away)
    finally:
        device.docker_back()
    _judge(
        stage, result, run, offered=new, left=new, expected=Expected(Outcome.SUCCEEDED, "", ()), client=client
    )
    waits = [line for line in run.told if line.detail.startswith("waiting for Docker")]
    result.said = f"Waited for Docker {len(waits)} times, then went on."
    if not waits:
        result.problems.append("Docker was never missed, so nothing was shown")
    stage.good = new


def _killed_in_each_phase(stage: Stage, result: Result) -> None:
    stage.standing()
    recovered: dict[str, float] = {}
    for phase in KILLED_IN:
        good, device = stage.standing(), stage.device
        new = device.release(Breakage.CRASH if phase is Phase.ROLLING_BACK else None)
        run = device.offer(new, kill_in=phase, say=stage.say)
        if not run.killed:
            why = run.problem or (run.status.reason if run.status else f"exit code {run.exit_code}")
            result.problems.append(f"{phase}: it was never seen in that phase, but ended: {why}")
            stage.good = None
            continue
        back = device.recover(say=stage.say)
        recovered[phase.value] = back.seconds
        ran = next((r for r in (good, new) if not device.troubles(r)), None)
        rows = device.rows(new)
        if ran is None:
            result.problems += [f"{phase}: {trouble}" for trouble in device.troubles(good)]
        elif phase is Phase.ROLLING_BACK and ran is new:
            result.problems.append(f"{phase}: the bad release was kept")
        if len(rows) != 1:
            result.problems.append(f"{phase}: {len(rows)} rows of history, not 1")
        which = "nothing well" if ran is None else "the new release" if ran is new else "the old release"
        result.evidence.append(f"{phase}: {which} after {back.seconds:.1f} s, {len(rows)} row")
        stage.good = ran
    result.outcome = "recovered"
    if recovered:
        slowest = max(recovered, key=lambda phase: recovered[phase])
        result.proven_s = recovered[slowest]
        result.said = f"Killed in {len(recovered)} phases; the slowest to recover from was {slowest}."


def _first_release_fails(stage: Stage, result: Result) -> None:
    device = stage.new_device()
    try:
        bad = device.release(Breakage.CRASH)
        run = device.offer(bad, say=stage.say)
        if rows := device.rows(bad):
            _take_down(result, rows[-1])
        if (len(rows), result.outcome) != (1, "failed"):
            result.problems.append(f"{len(rows)} rows, {result.outcome}; it should be one that failed")
        result.problems += [f"after the failure {trouble}" for trouble in device.troubles(None)]
        if run.status is not None:
            result.evidence.append(run.status.reason)
        if device.runtime == "docker":
            page = _page(device.page)
            if page is None:
                result.problems.append("the safe-mode page answers nobody")
            else:
                result.evidence.append(f"the page, since {page['since']}: {page['way_out']}")
        fix = device.release()
        began = time.monotonic()
        device.offer(fix, say=stage.say)
        result.problems += [f"after the fix {trouble}" for trouble in device.troubles(fix)]
        result.evidence.append(f"a fix was proven after {time.monotonic() - began:.1f} s")
        if device.runtime == "docker" and _page(device.page, patience_s=0) is not None:
            result.problems.append("the safe-mode page is still up after the fix")
    finally:
        device.remove()


def _page(port: int, patience_s: float = 10) -> dict[str, Any] | None:
    """What the safe-mode page's program interface says; None where nobody answers."""
    deadline = time.monotonic() + patience_s
    while True:
        try:
            with urllib.request.urlopen(f"http://127.0.0.1:{port}/status.json", timeout=2) as answer:
                said: dict[str, Any] = json.load(answer)
                return said
        except (OSError, urllib.error.URLError):
            if time.monotonic() >= deadline:
                return None
            time.sleep(0.1)


#: In the order in which they are played.
SCENARIOS = (
    Scenario(
        "no-start",
        "its container's program does not exist",
        _bad_release(
            _went_back("compose_failed", phase="starting"),
            edits={
                "compose.yaml": (
                    COMMAND,
                    "    labels: {fleet.simulate: no-start}\n    entrypoint: [/no/such/program]\n",
                )
            },
        ),
    ),
    Scenario(
        "crash",
        "its container exits at once",
        _bad_release(_went_back("container_exited"), Breakage.CRASH),
    ),
    Scenario(
        "crash-late",
        "it serves well, and exits after 20 seconds",
        _bad_release(
            _went_back("container_exited"),
            Breakage.CRASH_LATE,
            # Its own probation is longer than its life.
            edits={"role.yaml": ("successes: 3", "successes: 28")},
        ),
    ),
    Scenario(
        "http-errors",
        "it listens and answers 404",
        _bad_release(_went_back("unhealthy"), Breakage.HTTP_ERROR),
    ),
    Scenario(
        "config-error",
        "its compose file is not valid",
        _bad_release(_untouched("compose_invalid"), Breakage.CONFIG_ERROR),
    ),
    Scenario(
        "variable-missing",
        "it needs a variable that the device does not have",
        _bad_release(_untouched("variable_missing"), Breakage.VARIABLE_MISSING),
    ),
    Scenario(
        "port-conflict",
        "it wants a port that another program has",
        _port_taken,
        "simulated containers open no ports",
    ),
    Scenario(
        "image-missing",
        "its registry answers, and does not have its image",
        _image_missing,
    ),
    Scenario(
        "registry-down",
        "its image is in a registry that does not answer",
        _bad_release(
            _untouched("registry_unreachable", "pulling"),
            edits={"compose.yaml": (BUSYBOX, "image: 127.0.0.1:1/beacon:stable")},
        ),
        "simulated containers have no registry",
    ),
    Scenario("disk-full", "the disk fills up while it is fetched", _disk_fills_up),
    Scenario("compose-hangs", "`compose up` never ends", _compose_hangs, "there is no Compose to hang"),
    Scenario(
        "docker-away", "Docker goes away while it starts", _docker_goes_away, "there is no Docker to go away"
    ),
    Scenario(
        "ignores-term",
        "it is broken, and its container ignores SIGTERM",
        _bad_release(_went_back("unhealthy"), Breakage.IGNORES_TERM),
    ),
    Scenario("kill", "the engine is killed with SIGKILL in each phase", _killed_in_each_phase),
    Scenario("first-release", "the first release ever exits at once; then comes a fix", _first_release_fails),
)  # fmt: skip

#: What takes more than a demo may do to somebody's machine, and the tests that do it.
ELSEWHERE = {
    "the disk fills up while an image is loaded": "tests/docker/test_images_and_disks.py",
    "an image is damaged on the device": "tests/docker/test_images_and_disks.py",
    "Docker is restarted during an update": "tests/docker/test_docker_restarts.py",
    "the machine loses power": "tests/docker/test_systemd.py, tests/faults",
}
