"""A Compose that hangs on a Docker that hangs, and whoever started it killed: nothing of it goes on."""

from __future__ import annotations

import asyncio
import contextlib
import fcntl
import json
import os
import select
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from fleet_agent.containers.compose import ComposeRuntime
from fleet_agent.containers.compose_program import find_compose
from fleet_agent.daemon.engine_process import EngineProcess, Verb
from fleet_agent.engine import api, links
from fleet_agent.engine.config import EngineConfig
from fleet_agent.errors import StateError
from fleet_agent.model import Directive, ReportState
from fleet_agent.support import orphans
from tests.support.engine_harness import Fleet, rows
from tests.support.own_project import own
from tests.support.patience import PATIENCE_S
from tests.support.stalling import Stalling, stalling

pytestmark = pytest.mark.docker

ROOT = Path(__file__).resolve().parents[2]
ROLE = """\
description: Two services.
variables: {GREETING: {default: hello, description: What the page says.}}
health: {grace_s: 0.2, successes: 2, interval_s: 0.1, watch_s: 0.2, deadline_s: 10, failure_budget: 1}
"""
#: Compose as a child of another program, as Docker's own command runs it: not what is killed with the engine.
#: Its flock is inherited by the real one, so two at work at any instant are noticed.
WRAPPER = """\
#!/bin/sh
exec 8>>{folder}/at-work
flock -n 8 || echo "$*" >> {folder}/overlaps
{program} "$@" &
echo $! >> {folder}/pids
wait $!
"""
#: The part of the daemon that looks after an engine.
DAEMON = """\
import asyncio, json, sys
from fleet_agent.model import Directive
from fleet_agent.daemon.engine_process import Verb, EngineProcess
settings, directive = json.loads(sys.argv[1]), Directive.model_validate_json(sys.argv[2])
asyncio.run(EngineProcess(lambda: settings).run(Verb.CONVERGE, directive=directive))
"""


class Scene:
    """A device on v1 whose update to v2 hangs as soon as Compose starts a container."""

    def __init__(self, folder: Path, docker: Stalling) -> None:
        self.folder, self.docker = folder, docker
        wrapper = folder / "compose"
        wrapper.write_text(WRAPPER.format(folder=folder, program=" ".join(find_compose() or [])))
        wrapper.chmod(0o755)
        self.fleet = Fleet(folder / "repo")
        self.config: EngineConfig = self.fleet.config(
            folder / "device", runtime="docker", project=own("orphans"), compose=wrapper
        )
        self.v1, self.v2 = (self.fleet.release(v, edits={"role.yaml": ROLE}) for v in ("v1", "v2"))
        status = api.converge(self.config, self.fleet.directive(self.v1))
        assert status.state is ReportState.HEALTHY, status
        docker.swallow = b"/start HTTP"

    @property
    def update(self) -> Directive:
        return self.fleet.directive(self.v2)

    @property
    def settings(self) -> dict[str, object]:
        return self.config.model_dump(mode="json")

    def hanging(self) -> tuple[int, int]:
        """Once the real Compose hangs: its process id and its engine's."""
        assert self.docker.swallowed.wait(PATIENCE_S)
        compose = int((self.folder / "pids").read_text().splitlines()[-1])
        return compose, _parent(_parent(compose))

    def no_one_works(self) -> bool:
        """No program that any engine of this device has started is alive."""
        deadline = time.monotonic() + 1
        with self.config.paths.children.open("r+") as mark:
            while time.monotonic() < deadline:
                with contextlib.suppress(BlockingIOError):
                    fcntl.flock(mark, fcntl.LOCK_EX | fcntl.LOCK_NB)
                    return True
                time.sleep(0.02)
        return False

    def ends_well(self) -> None:
        """The next start: one healthy release, the attempt once, and never two Composes at work."""
        self.docker.swallow = None
        status = api.recover(self.config)
        assert status.phase == "steady"
        assert status.current in (self.v1, self.v2)
        assert {s.service: s.state for s in status.services} == {"web": "running", "clock": "running"}
        seen = links.read(self.config.paths)
        assert (seen.current, seen.next) == (status.current.commit_sha if status.current else None, None)
        assert [row.to_commit for row in rows(self.config)] == [self.v1.commit_sha, self.v2.commit_sha]
        assert not (self.folder / "overlaps").exists(), (self.folder / "overlaps").read_text()
        assert self.no_one_works()


@pytest.fixture
def scene(tmp_path: Path) -> Iterator[Scene]:
    with stalling(tmp_path) as docker:
        found = Scene(tmp_path, docker)
        yield found
        docker.swallow = None
        with orphans.none_beside(found.config.paths.children):
            pass
        ComposeRuntime().down(found.config.project)


def test_engine_that_hangs_is_killed_with_its_compose(scene: Scene) -> None:
    """Stopped, it cannot clean up after itself: the daemon kills it and then what it left."""
    worker = EngineProcess(lambda: scene.settings, silence_limit_s=5, stop_grace_s=0.5)

    async def watch() -> None:
        work = asyncio.create_task(worker.run(Verb.CONVERGE, directive=scene.update))
        compose, engine = await asyncio.to_thread(scene.hanging)
        os.kill(engine, signal.SIGSTOP)
        with _held(compose) as handle:
            with pytest.raises(StateError):
                await work
            assert _gone(handle)
        assert scene.no_one_works()

    asyncio.run(watch())
    scene.ends_well()


def test_daemon_that_is_killed_takes_engine_and_compose_with_it(scene: Scene) -> None:
    daemon = _daemon(scene)
    compose, engine = scene.hanging()
    with _held(compose) as compose_handle, _held(engine) as engine_handle:
        daemon.kill()
        daemon.wait()
        assert _gone(engine_handle)
        assert _gone(compose_handle)
    assert scene.no_one_works()
    scene.ends_well()


def test_compose_left_by_a_power_of_kill_is_ended_before_the_next_one_starts(scene: Scene) -> None:
    """Daemon and engine killed at once: nobody is left to clean up but the next engine."""
    daemon = _daemon(scene)
    compose, engine = scene.hanging()
    with _held(engine) as handle:
        os.kill(engine, signal.SIGKILL)
        daemon.kill()
        daemon.wait()
        assert _gone(handle)
    with _held(compose) as handle:
        assert not scene.no_one_works(), "the test does not test: Compose went by itself"
        scene.ends_well()
        assert _gone(handle)


def _daemon(scene: Scene) -> subprocess.Popen[bytes]:
    return subprocess.Popen(
        [sys.executable, "-c", DAEMON, json.dumps(scene.settings), scene.update.model_dump_json()],
        cwd=ROOT, stderr=subprocess.DEVNULL,
    )  # fmt: skip


def _parent(pid: int) -> int:
    return int(Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[1])


@contextlib.contextmanager
def _held(pid: int) -> Iterator[int]:
    handle = os.pidfd_open(pid)
    try:
        yield handle
    finally:
        os.close(handle)


def _gone(process: int) -> bool:
    return bool(select.select([process], [], [], PATIENCE_S)[0])
