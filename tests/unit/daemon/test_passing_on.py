"""What the control plane asks for while an update runs reaches the engine, and when."""

from __future__ import annotations

import asyncio

import httpx
import pytest

from fleet_agent.control_plane.subscription import Wake
from fleet_agent.daemon.loop import Daemon
from fleet_agent.daemon.schedule import Outcome
from fleet_agent.log import Log
from fleet_agent.model import Action, Directive
from tests.support.control import (
    Control,
    control,
    daemon,
    no_patience,
    plan,
    release,
    update_to,
)
from tests.support.device import Device, json_answer
from tests.support.patience import PATIENCE_S

__all__ = ["control", "daemon", "no_patience"]  # fixtures


async def test_a_wake_during_an_update_is_passed_on_and_looked_at_again_after_it(
    device: Device, log: Log, control: Control, daemon: Daemon
) -> None:
    plan(device, until_newer=True)
    update_to(control, "1.0.0")
    daemon.schedule.due.at = float("inf")
    work = asyncio.create_task(daemon.check_in("test"))
    await control.reports_phase("pulling")
    newer = update_to(control, "2.0.0")
    daemon.connection.woken(Wake(reason="release_added", spread_s=0))
    assert await work == Outcome.CONVERGED
    assert daemon.turn.engine_status is not None
    assert daemon.turn.engine_status.current is not None
    assert str(daemon.turn.engine_status.current.id) == newer["id"]
    assert daemon.schedule.left_s <= 0


class Told:
    """What the engine at work is told, one directive after the other."""

    def __init__(self, daemon: Daemon, monkeypatch: pytest.MonkeyPatch) -> None:
        self._directives: asyncio.Queue[Directive] = asyncio.Queue()
        self._supersede = daemon.engine.supersede
        monkeypatch.setattr(daemon.engine, "supersede", self._note)

    async def _note(self, newer: Directive) -> None:
        await self._supersede(newer)
        self._directives.put_nowait(newer)

    async def next(self) -> Directive:
        async with asyncio.timeout(PATIENCE_S):
            return await self._directives.get()


@pytest.fixture
def told(daemon: Daemon, monkeypatch: pytest.MonkeyPatch) -> Told:
    # What is spread is asked for at once.
    daemon.schedule.uniform = lambda low, _high: low
    return Told(daemon, monkeypatch)


async def test_a_wish_that_returns_during_an_update_is_passed_on(
    device: Device, control: Control, daemon: Daemon, told: Told
) -> None:
    """To 2.0.0 and, that being halted, back: the engine must not go on to what was halted."""
    gate = device.folder / "gate"
    plan(device, hold=str(gate))
    first = update_to(control, "1.0.0")
    work = asyncio.create_task(daemon.check_in("test"))
    await control.reports_phase("pulling")
    for wanted in (release("2.0.0"), first):
        control.asks.update(release=wanted)
        daemon.connection.woken(Wake(reason="halted", spread_s=0))
        newest = (await told.next()).release
        assert newest is not None
        assert str(newest.id) == wanted["id"]
    gate.touch()
    await work


@pytest.mark.parametrize("kind", ["device_suspended", "device_retired", "device_replaced"])
async def test_a_device_that_is_locked_out_during_an_update_holds(
    device: Device, control: Control, daemon: Daemon, told: Told, kind: str
) -> None:
    """The engine gives up where nothing was touched; else it comes to an end first."""
    gate = device.folder / "gate"
    plan(device, hold=str(gate))
    update_to(control, "1.0.0")
    work = asyncio.create_task(daemon.check_in("test"))
    await control.reports_phase("pulling")
    refusal = {"code": "PT403", "message": "No.", "details": kind, "hint": "Ask."}
    control.broken["desired_state"] = [json_answer(refusal, 403)]
    daemon.connection.woken(Wake(reason="device_changed", spread_s=0))
    held = await told.next()
    assert (held.action, held.release, held.prefetch) == (Action.HOLD, None, None)
    gate.touch()
    await work


async def test_a_wake_during_an_update_that_finds_the_control_plane_away_is_asked_again(
    device: Device, control: Control, daemon: Daemon, told: Told
) -> None:
    """It may be a halt."""
    gate = device.folder / "gate"
    plan(device, hold=str(gate))
    update_to(control, "1.0.0")
    work = asyncio.create_task(daemon.check_in("test"))
    await control.reports_phase("pulling")
    newer = update_to(control, "2.0.0")
    control.broken["desired_state"] = [httpx.ConnectError("gone"), httpx.Response(500)]
    daemon.connection.woken(Wake(reason="release_added", spread_s=0))
    newest = (await told.next()).release
    assert newest is not None
    assert str(newest.id) == newer["id"]
    gate.touch()
    await work


async def test_a_wake_only_ever_moves_the_next_check_in_closer(daemon: Daemon) -> None:
    daemon.schedule.uniform = lambda _low, high: high
    daemon.schedule.due.at = daemon.clock.monotonic() + 100
    daemon.connection.woken(Wake(reason="one", spread_s=10))
    soon = daemon.schedule.due.at
    daemon.connection.woken(Wake(reason="two", spread_s=60))
    assert daemon.schedule.due.at == soon
    assert soon <= daemon.clock.monotonic() + 10
