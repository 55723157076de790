"""The engine as a child process: a real process that speaks the protocol, and one that does not."""

from __future__ import annotations

import asyncio
import json
import os
import sys
from datetime import UTC, datetime
from typing import Any
from uuid import uuid4

import pytest

from fleet_agent.config import ConfigFile
from fleet_agent.daemon.engine_process import Verb, Worker, engine_settings
from fleet_agent.engine.lock import converging
from fleet_agent.errors import FleetError, Kind, StateError
from fleet_agent.model import Directive, Progress, ReportState
from fleet_agent.support.clock import Heard
from tests.support.device import FAKE_ENGINE, Device


def worker(device: Device, *command: str, **changes: Any) -> Worker:
    return Worker(
        lambda: {"root": str(device.folder)},
        command=command or (sys.executable, str(FAKE_ENGINE)),
        **changes,
    )


def plan(device: Device, **what: Any) -> None:
    (device.paths.state / "fake_plan.json").write_text(json.dumps(what))


def release(version: str = "1.0.0") -> dict[str, Any]:
    return {"id": str(uuid4()), "commit_sha": uuid4().hex + "0" * 8, "version": version, "branch": "main"}


def update(device: Device, **changes: Any) -> Directive:
    return Directive.model_validate(device.directive(action="update", release=release(), **changes))


async def test_phases_are_passed_on_in_order_and_the_end_is_the_status(device: Device) -> None:
    phases: list[str] = []

    async def note(progress: Progress) -> None:
        phases.append(progress.phase)

    directive = update(device)
    status = await worker(device).run(Verb.CONVERGE, directive=directive, on_progress=note)
    assert phases == ["fetching", "pulling", "probation"]
    assert status.state == ReportState.HEALTHY
    assert status.current == directive.release


async def test_somebody_elses_lock_has_its_own_kind(device: Device) -> None:
    plan(device, locked=True)
    with pytest.raises(StateError) as caught:
        await worker(device).run(Verb.RECOVER)
    assert caught.value.kind == Kind.LOCKED


async def test_who_holds_the_lock_is_named(device: Device) -> None:
    """By the engine itself, not the fake: for a person at `fleet-agent once`, and in the device's status."""
    settings = engine_settings(device.paths, ConfigFile.open(device.config_path).current)
    with converging(device.paths.lock, "trying this out"), pytest.raises(StateError) as caught:
        await Worker(lambda: settings).run(Verb.RECOVER)
    assert caught.value.kind == Kind.LOCKED
    assert f"trying this out by process {os.getpid()} since" in caught.value.message


async def test_a_killed_engine_is_an_interruption(device: Device) -> None:
    plan(device, die="pulling")
    with pytest.raises(StateError) as caught:
        await worker(device).run(Verb.CONVERGE, directive=update(device))
    assert caught.value.kind == Kind.INTERRUPTED
    assert caught.value.retryable


async def test_the_engines_own_refusal_keeps_its_kind(device: Device) -> None:
    plan(device, refuse={"verb": "rollback", "kind": "nothing_to_roll_back"})
    with pytest.raises(FleetError) as caught:
        await worker(device).run(Verb.ROLLBACK)
    assert caught.value.kind == Kind.NOTHING_TO_ROLL_BACK


async def test_noise_on_its_output_is_skipped(device: Device) -> None:
    end = '{"done": {"state": "healthy", "phase": "steady"}}'
    script = f"input(); print('hello'); print('{{}}'); print({end!r})"
    status = await worker(device, sys.executable, "-c", script).run(Verb.STATUS)
    assert status.phase == "steady"


async def test_an_end_without_an_answer_is_an_interruption_even_with_exit_code_zero(device: Device) -> None:
    with pytest.raises(StateError) as caught:
        await worker(device, sys.executable, "-c", "input()").run(Verb.STATUS)
    assert caught.value.kind == Kind.INTERRUPTED


async def test_a_silent_engine_is_stopped(device: Device) -> None:
    script = "import time; time.sleep(600)"
    with pytest.raises(StateError) as caught:
        await worker(device, sys.executable, "-c", script, silence_limit_s=0.2).run(Verb.RECOVER)
    assert caught.value.kind == Kind.INTERRUPTED


async def test_an_engine_that_ignores_the_request_to_end_is_killed(device: Device) -> None:
    gate = device.folder / "gate"
    plan(device, hold=str(gate), deaf=True)
    busy = worker(device, stop_grace_s=0.2)
    pulling = asyncio.Event()

    async def note(progress: Progress) -> None:
        if progress.phase == "pulling":
            pulling.set()

    work = asyncio.create_task(busy.run(Verb.CONVERGE, directive=update(device), on_progress=note))
    await pulling.wait()
    await busy.stop()
    with pytest.raises(StateError) as caught:
        await work
    assert caught.value.kind == Kind.INTERRUPTED
    assert not gate.exists()


async def test_a_newer_directive_reaches_the_engine_at_work(device: Device) -> None:
    plan(device, until_newer=True)
    busy = worker(device)
    pulling = asyncio.Event()

    async def note(progress: Progress) -> None:
        if progress.phase == "pulling":
            pulling.set()

    newer = update(device)
    work = asyncio.create_task(busy.run(Verb.CONVERGE, directive=update(device), on_progress=note))
    await pulling.wait()
    await busy.supersede(newer)
    assert (await work).current == newer.release


async def test_the_request_names_verb_and_whether_an_operator_asked(device: Device) -> None:
    await worker(device).run(Verb.RECOVER, asked=True)
    (line,) = (device.paths.state / "fake_requests.jsonl").read_text().splitlines()
    assert json.loads(line)["verb"] == "recover"
    assert json.loads(line)["operator_requested"] is True


async def test_the_engine_is_told_the_time_that_the_control_plane_was_heard_at(device: Device) -> None:
    heard = Heard(server_time=datetime(2031, 1, 1, tzinfo=UTC), boot_s=7.0)
    made = worker(device)
    await made.run(Verb.RECOVER)
    made.heard = lambda: heard
    await made.run(Verb.RECOVER)
    lines = (device.paths.state / "fake_requests.jsonl").read_text().splitlines()
    assert [json.loads(line)["heard"] for line in lines] == [None, heard.model_dump(mode="json")]
