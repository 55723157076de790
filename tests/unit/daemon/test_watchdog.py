"""What hangs is noticed: by the loop where it can act, by systemd where the loop itself is what hangs."""

from __future__ import annotations

import asyncio
import os
import signal
import sys
from typing import Any
from uuid import uuid4

import pytest
import respx

from fleet_agent.control_plane import subscription
from fleet_agent.daemon import engine_process
from fleet_agent.daemon.engine_process import EngineProcess, Verb
from fleet_agent.daemon.loop import Daemon
from fleet_agent.daemon.schedule import Outcome
from fleet_agent.errors import Kind, StateError
from fleet_agent.host.sd_notify import Notifier
from fleet_agent.log import Log
from fleet_agent.model import Directive
from tests.support.device import Device, json_answer
from tests.support.patience import PATIENCE_S

#: Set once a check-in hangs: on a busy machine a good one may take longer.
STALL_S = 0.05
RESTING = "STATUS=healthy, on no release (nothing to do)"


class Heard(Notifier):
    """Writes down what systemd would be told."""

    def __init__(self, watchdog_s: float | None = None) -> None:
        super().__init__("")
        self.watchdog_s = watchdog_s
        self.said: list[str] = []
        self.news = asyncio.Event()

    def _send(self, message: str) -> None:
        self.said.append(message.splitlines()[0])
        self.news.set()

    async def until(self, message: str, times: int = 1) -> None:
        async with asyncio.timeout(PATIENCE_S):
            while self.said.count(message) < times:
                self.news.clear()
                await self.news.wait()


async def soon(event: asyncio.Event) -> None:
    async with asyncio.timeout(PATIENCE_S):
        await event.wait()


@pytest.fixture
def heard() -> Heard:
    return Heard()


@pytest.fixture
async def daemon(device: Device, log: Log, rest: respx.MockRouter, heard: Heard) -> Any:
    rest.post("/rest/v1/rpc/desired_state").mock(side_effect=lambda _: json_answer(device.directive()))
    rest.post("/rest/v1/device_status").respond(200)
    rest.post("/rest/v1/update_history").respond(201)
    made = device.daemon(log, notifier=heard, look_s=0.01)
    yield made
    await made.engine.stop()
    await made.connection.close()


def hang(what: asyncio.Event) -> Any:
    async def forever(*_: Any, **__: Any) -> Any:
        what.set()
        await asyncio.Event().wait()

    return forever


def answering(directive: Directive) -> Any:
    async def answer() -> Directive:
        return directive

    return answer


async def test_a_resting_loop_feeds_the_watchdog(daemon: Daemon, heard: Heard) -> None:
    running = asyncio.create_task(daemon.run())
    await heard.until("WATCHDOG=1", times=20)
    daemon.stop()
    await running
    assert heard.said[0] == "READY=1"
    assert heard.said[-1] == "STOPPING=1"


async def test_a_check_in_that_hangs_is_given_up_and_the_loop_goes_on(
    daemon: Daemon, heard: Heard, monkeypatch: pytest.MonkeyPatch
) -> None:
    good = daemon.connection.plane.desired_state
    hung = asyncio.Event()

    async def hang_until_given_up(*_: Any) -> Any:
        patience_s, daemon.stall_s = daemon.stall_s, STALL_S
        hung.set()
        try:
            await asyncio.Event().wait()
        finally:
            daemon.stall_s = patience_s

    monkeypatch.setattr(daemon.connection.plane, "desired_state", hang_until_given_up)
    monkeypatch.setattr("fleet_agent.daemon.decide.FAILURE_BASE_S", 0.01)
    running = asyncio.create_task(daemon.run())
    await soon(hung)
    monkeypatch.setattr(daemon.connection.plane, "desired_state", good)
    # Resting after a check-in that was answered.
    await heard.until(RESTING)
    daemon.stop()
    await running
    given_up = [entry for entry in daemon.log.ring.entries() if "made no progress" in entry["message"]]
    assert len(given_up) == 1


async def test_a_check_in_that_cannot_even_be_cancelled_starves_the_watchdog(
    daemon: Daemon, heard: Heard, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The process is then systemd's to kill: nothing else may go on feeding."""
    refused, let_go = asyncio.Event(), asyncio.Event()

    async def stubborn(*_: Any) -> Outcome:
        daemon.stall_s = STALL_S
        while not let_go.is_set():
            try:
                await let_go.wait()
            except asyncio.CancelledError:
                refused.set()
        return Outcome.CONVERGED

    monkeypatch.setattr(daemon, "check_in", stubborn)
    running = asyncio.create_task(daemon.run())
    try:
        await soon(refused)
        fed = heard.said.count("WATCHDOG=1")
        assert fed > 0
        for _ in range(10):
            await asyncio.sleep(daemon.look_s)
        assert heard.said.count("WATCHDOG=1") == fed
    finally:
        let_go.set()
    await heard.until("WATCHDOG=1", times=fed + 1)
    daemon.stop()
    await running


async def test_an_engine_at_work_may_take_longer_than_a_stall(
    daemon: Daemon, device: Device, heard: Heard
) -> None:
    """It has a limit of its own; until then the watchdog is fed."""
    script = (
        "import json, sys, time; asked = json.loads(input());"
        "go = sys.argv[1]; import os\n"
        "while not os.path.exists(go): time.sleep(0.01)\n"
        "print(json.dumps({'done': {'state': 'healthy', 'phase': 'steady'}}))"
    )
    gate = device.folder / "gate"
    daemon.engine.command = (sys.executable, "-c", script, str(gate))
    running = asyncio.create_task(daemon.run())
    while not daemon.engine.busy:
        await heard.until("WATCHDOG=1", times=heard.said.count("WATCHDOG=1") + 1)
    patience_s, daemon.stall_s = daemon.stall_s, STALL_S
    # At 10 ms a look this is four stalls long.
    await heard.until("WATCHDOG=1", times=heard.said.count("WATCHDOG=1") + 20)
    assert daemon.engine.busy
    daemon.stall_s = patience_s
    gate.touch()
    await heard.until(RESTING)
    daemon.stop()
    await running
    assert [entry for entry in daemon.log.ring.entries() if "made no progress" in entry["message"]] == []


async def test_an_impatient_watchdog_is_fed_more_often_than_the_loop_would_look(
    daemon: Daemon, heard: Heard
) -> None:
    heard.watchdog_s, daemon.look_s = 0.03, 600.0
    running = asyncio.create_task(daemon.run())
    await heard.until("WATCHDOG=1", times=20)
    daemon.stop()
    await running


async def test_a_dead_subscription_is_started_again_without_waiting_for_a_poll(
    device: Device, daemon: Daemon, heard: Heard, monkeypatch: pytest.MonkeyPatch
) -> None:
    lives: list[int] = []
    again = asyncio.Event()

    async def run(_self: subscription.Subscription) -> None:
        lives.append(len(lives))
        if len(lives) == 1:
            raise RuntimeError("a bug in a library")
        again.set()
        await asyncio.Event().wait()

    monkeypatch.setattr(subscription.Subscription, "run", run)
    device.configure(wake=True)
    running = asyncio.create_task(daemon.run())
    await soon(again)  # the next poll is 12 minutes away
    daemon.stop()
    await running
    assert lives == [0, 1]


async def test_sighup_rereads_the_configuration_and_says_when_it_is_done(
    device: Device, daemon: Daemon, heard: Heard
) -> None:
    daemon.look_s = 600.0
    running = asyncio.create_task(daemon.run())
    await heard.until(RESTING)
    device.configure(poll_interval_s=77)
    os.kill(os.getpid(), signal.SIGHUP)
    await heard.until("RELOADING=1")
    await heard.until("READY=1", times=2)
    assert daemon.config.poll_interval_s == 77
    daemon.stop()
    await running


async def test_sighup_with_a_bad_configuration_keeps_the_old_one(
    device: Device, daemon: Daemon, heard: Heard
) -> None:
    running = asyncio.create_task(daemon.run())
    await heard.until(RESTING)
    before = daemon.config
    device.config_path.write_text("{")
    os.kill(os.getpid(), signal.SIGHUP)
    await heard.until("READY=1", times=2)
    assert daemon.config == before
    assert daemon.config_file.config_error is not None
    assert daemon.config_file.config_error.kind == Kind.CONFIG_INVALID
    daemon.stop()
    await running


async def test_after_an_update_the_status_is_the_outcome_and_not_its_last_phase(
    device: Device, daemon: Daemon, heard: Heard
) -> None:
    version = {"id": str(uuid4()), "commit_sha": "a" * 40, "version": "1.2.3", "branch": "main"}
    daemon.connection.plane.desired_state = answering(  # type: ignore[method-assign]
        Directive.model_validate(device.directive(action="update", release=version))
    )
    assert await daemon.check_in("test") == Outcome.CONVERGED
    last = [said for said in heard.said if said.startswith("STATUS=")][-1]
    assert last.startswith("STATUS=healthy, on 1.2.3")


# The engine's process


def hung_engine(device: Device, script: str, **limits: Any) -> EngineProcess:
    return EngineProcess(
        lambda: {"root": str(device.folder)}, command=(sys.executable, "-c", script), **limits
    )  # fmt: skip


async def test_a_status_that_hangs_is_not_waited_for_as_long_as_an_update(
    device: Device, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(engine_process, "LOOK_LIMIT_S", 0.2)
    with pytest.raises(StateError) as caught:
        async with asyncio.timeout(PATIENCE_S):
            await hung_engine(device, "import time; time.sleep(600)").run(Verb.STATUS)
    assert caught.value.kind == Kind.INTERRUPTED


async def test_an_engine_that_answers_and_never_ends_is_killed(device: Device) -> None:
    """It closed its output, so silence is no measure any more."""
    mark = device.folder / "pid"
    script = (
        "import json, os, pathlib, signal, time; input(); signal.signal(signal.SIGTERM, signal.SIG_IGN)\n"
        f"pathlib.Path({str(mark)!r}).write_text(str(os.getpid()))\n"
        "print(json.dumps({'done': {'state': 'healthy', 'phase': 'steady'}}), flush=True)\n"
        "os.close(1)\n"
        "time.sleep(600)"
    )
    engine = hung_engine(device, script, stop_grace_s=0.2)
    with pytest.raises(StateError) as caught:
        async with asyncio.timeout(PATIENCE_S):
            await engine.run(Verb.CONVERGE)
    assert caught.value.kind == Kind.INTERRUPTED
    assert not engine.busy
    with pytest.raises(ProcessLookupError):
        os.kill(int(mark.read_text()), 0)
