"""How long a client of a service goes without an answer while a release is changed.

The same change (a new version shown by `web`, nothing new for `clock`) is made by the engine, by a bare
`docker compose up -d` and by a bare `docker compose down && docker compose up -d`, in turn, in one run. Both
services are asked every 5 ms; an outage lasts from the last good answer to the next good one.
"""

from __future__ import annotations

import argparse
import os
import subprocess
import tempfile
import time
import uuid
from collections.abc import Callable
from datetime import UTC, datetime
from pathlib import Path

from fleet_agent.attempts.outbox import Outbox
from fleet_agent.engine.api import EngineConfig, converge
from fleet_agent.model import Action, DeviceAssignment, Directive, Outcome, Release, ReportState
from fleetctl.demo.beacon import BeaconRepo
from fleetctl.demo.busybox_image import ensure_busybox
from fleetctl.demo.docker import remove_project
from fleetctl.demo.probe import Probe
from fleetctl.role_check.compose import compose_command
from tests.bench.table import CannotRunError, Row, spread

WEB, CLOCK = 18190, 18191
ENV = {"BEACON_PORT": str(WEB), "BEACON_CLOCK_PORT": str(CLOCK)}


def run(options: argparse.Namespace) -> list[Row]:
    reason = _docker_missing()
    if reason:
        raise CannotRunError(reason)
    outages: dict[str, list[dict[str, float]]] = {"engine": [], "up": [], "down_up": []}
    with tempfile.TemporaryDirectory(prefix="fleet-bench-") as folder:
        repo = BeaconRepo.create(Path(folder) / "repo")
        for _ in range(options.repeats):
            outages["engine"].append(_by_engine(repo, Path(folder) / uuid.uuid4().hex))
            outages["up"].append(_by_hand(repo, Path(folder) / uuid.uuid4().hex, down_first=False))
            outages["down_up"].append(_by_hand(repo, Path(folder) / uuid.uuid4().hex, down_first=True))
    how = f"{options.repeats} updates each, in turn"
    rows = []
    for service, what in (("web", "changed service"), ("clock", "unchanged service")):
        for way, title in (
            ("engine", "fleet-agent"),
            ("up", "bare compose up -d"),
            ("down_up", "bare compose down && up -d"),
        ):
            aim = ("no more than bare up -d" if service == "web" else "none") if way == "engine" else ""
            values = [outage[service] for outage in outages[way]]
            rows.append(Row(f"outage of the {what}: {title}", spread(values, "ms"), how, aim))
    rows.append(
        Row(
            "outage of a rollback: changed service",
            spread([outage["rollback"] for outage in outages["engine"]], "ms"),
            f"{how}; from the good release's last answer to its next one, probation of the bad one included",
        )
    )
    return rows


def _by_engine(repo: BeaconRepo, root: Path) -> dict[str, float]:
    from fleetctl.demo.beacon import Breakage

    root.mkdir()
    (root / ".env").write_text("".join(f"{key}={value}\n" for key, value in ENV.items()))
    project = f"bench-{root.name[:8]}"
    config = EngineConfig(
        root=root, git_url=repo.url, runtime="docker", project=project, allowed_signers=repo.allowed_signers
    )
    try:
        _converge(config, repo, "1", ReportState.HEALTHY)
        with Probe(WEB) as web, Probe(CLOCK, path="/time") as clock:
            since = _steady(web, clock)
            _converge(config, repo, "2", ReportState.HEALTHY)
            _until_answers(web, "2")
            found = {"web": web.outage_s(since) * 1000, "clock": clock.outage_s(since) * 1000}
            since = _steady(web, clock)
            _converge(config, repo, "3", ReportState.ROLLED_BACK, Breakage.UNHEALTHY)
            _until_answers(web, "2")
            return {**found, "rollback": web.outage_s(since) * 1000}
    finally:
        remove_project(project)


def _converge(
    config: EngineConfig, repo: BeaconRepo, version: str, expect: ReportState, breakage: object = None
) -> None:
    from fleetctl.demo.beacon import Breakage

    commit = repo.release(version, breakage=breakage if isinstance(breakage, Breakage) else None)
    release = Release(id=uuid.uuid4(), commit_sha=commit, version=version, branch="main")
    assignment = DeviceAssignment(
        id=uuid.uuid4(), name="bench", role="beacon", segment="stable", branch="main"
    )
    status = converge(
        config,
        Directive(
            action=Action.UPDATE,
            device=assignment,
            release=release,
            next_poll_s=900,
            server_time=datetime.now(UTC),
        ),
    )
    if status.state is not expect:
        attempt = Outbox(config.paths.outbox).pending()[-1]
        assert attempt.outcome is not Outcome.SUCCEEDED
        raise CannotRunError(f"release {version} ended as {status.state.value}: {attempt.error}")


def _by_hand(repo: BeaconRepo, folder: Path, *, down_first: bool) -> dict[str, float]:
    """What a person does on the device: new files, then compose."""
    project = f"bench-{folder.name[:8]}"
    command = compose_command()
    if command is None:
        raise CannotRunError("no docker compose")

    def compose(version: str, *arguments: str) -> None:
        environment = {**os.environ, **ENV, "FLEET_RELEASE_VERSION": version}
        subprocess.run(
            [*command, "-p", project, *arguments],
            cwd=folder,
            env=environment,
            check=True,
            capture_output=True,
        )

    role = repo.path / "roles" / "beacon"
    repo.release("1")
    subprocess.run(["cp", "-a", str(role), str(folder)], check=True)
    try:
        compose("1", "up", "-d")
        with Probe(WEB) as web, Probe(CLOCK, path="/time") as clock:
            since = _steady(web, clock)
            if down_first:
                compose("2", "down")
            compose("2", "up", "-d")
            _until_answers(web, "2")
            _until_answers(clock, None)
            return {"web": web.outage_s(since) * 1000, "clock": clock.outage_s(since) * 1000}
    finally:
        remove_project(project)


def _steady(*probes: Probe) -> float:
    """Wait until every service has answered for a while; return the moment."""
    for probe in probes:
        _until_answers(probe, None)
    time.sleep(0.5)
    return time.monotonic()


def _until_answers(probe: Probe, body: str | None) -> None:
    def good() -> bool:
        last = probe.answers[-1].body if probe.answers else None
        return last is not None and body in (None, last)

    _until(good)


def _until(seen: Callable[[], bool], timeout_s: float = 60) -> None:
    deadline = time.monotonic() + timeout_s
    while not seen():
        if time.monotonic() > deadline:
            raise CannotRunError(f"the service did not answer within {timeout_s:.0f} s")
        time.sleep(0.02)


def _docker_missing() -> str | None:
    try:
        version = subprocess.run(["docker", "version"], capture_output=True, timeout=20, check=False)
    except (FileNotFoundError, subprocess.TimeoutExpired) as error:
        return f"no Docker: {error}"
    return "no Docker engine answers" if version.returncode else ensure_busybox()
