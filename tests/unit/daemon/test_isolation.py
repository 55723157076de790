"""Long without the control plane: what runs is kept and healed, asking is rare, nothing is lost."""

from __future__ import annotations

import asyncio
import errno
import json
import os
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any
from uuid import uuid4

import httpx
import pytest
import respx

from fleet_agent.attempts.outbox import Outbox
from fleet_agent.cli import main as cli
from fleet_agent.daemon import decide, isolation
from fleet_agent.daemon.isolation import Isolation
from fleet_agent.daemon.loop import Daemon
from fleet_agent.daemon.schedule import POLL, Outcome
from fleet_agent.daemon.settings import DEFAULT_POLL_INTERVAL_S
from fleet_agent.errors import ControlPlaneError, Kind, StateError
from fleet_agent.log import Log
from fleet_agent.model import Attempt
from fleet_agent.model import Outcome as AttemptOutcome
from fleet_agent.support import atomic_files
from fleet_agent.support.clock import Clock, boottime
from tests.support.control import Control, no_patience, requests, update_to
from tests.support.device import Device, json_answer

__all__ = ["no_patience"]  # an autouse fixture

AWAY = ControlPlaneError(Kind.UNREACHABLE, "Nobody there.", retryable=True)


class Hand:
    """A monotonic clock moved by hand."""

    def __init__(self) -> None:
        self.at = float(int(boottime()))  # whole, so that sums are exact

    def __call__(self) -> float:
        return self.at


@pytest.fixture
def hand() -> Hand:
    return Hand()


@pytest.fixture
def control(device: Device, rest: respx.MockRouter) -> Control:
    device.configure(isolated_after_s=600)
    device.keep_token(life=timedelta(days=300))
    made = Control(device)
    made.route(rest)
    rest.post("/functions/v1/device-token").mock(side_effect=lambda _: made._broken("token"))
    return made


@pytest.fixture
async def daemon(device: Device, log: Log, control: Control, hand: Hand) -> Any:
    made = device.daemon(log)
    made.clock._monotonic = hand
    yield made
    await made.engine.stop()
    await made.connection.close()


def cut(control: Control, *answers: httpx.Response) -> None:
    control.broken["desired_state"] = list(answers) or [httpx.ConnectError("cut") for _ in range(50)]


async def isolate(daemon: Daemon, control: Control, hand: Hand) -> None:
    cut(control)
    await daemon.check_in(POLL)
    hand.at += 600
    await daemon.check_in(POLL)
    assert daemon.turn.reachability.is_isolated


@pytest.mark.parametrize(("after_s", "isolated"), [(599.9, False), (600, True), (600.1, True)])
async def test_a_device_is_isolated_after_the_set_time_from_the_first_unanswered_check_in(
    daemon: Daemon, control: Control, hand: Hand, after_s: float, isolated: bool
) -> None:
    await daemon.check_in(POLL)
    hand.at += 86400  # a long poll interval is no isolation
    cut(control)
    await daemon.check_in(POLL)
    assert not daemon.turn.reachability.is_isolated
    hand.at += after_s
    assert await daemon.check_in(POLL) == Outcome.UNREACHABLE
    assert daemon.turn.reachability.is_isolated is isolated
    assert daemon.paths.isolated.exists() is isolated


async def test_an_answer_in_between_begins_the_count_anew(
    daemon: Daemon, control: Control, hand: Hand
) -> None:
    cut(control)
    await daemon.check_in(POLL)
    hand.at += 400
    cut(control, json_answer({"message": "no", "details": "device_suspended"}, 403))
    assert await daemon.check_in(POLL) == Outcome.REFUSED
    cut(control)
    hand.at += 400
    await daemon.check_in(POLL)
    assert not daemon.turn.reachability.is_isolated


@pytest.mark.parametrize(
    ("answer", "isolated"),
    [
        (json_answer({"message": "no"}, 401), False),
        (json_answer({"message": "no"}, 403), False),
        (json_answer({"message": "slow"}, 429), True),
        (json_answer({"message": "broken"}, 503), True),
        (httpx.Response(200, html="<h1>Sign in</h1>"), True),
    ],
    ids=["401", "403", "429", "503", "captive portal"],
)
async def test_a_no_is_an_answer_and_a_portal_is_none(
    daemon: Daemon,
    control: Control,
    hand: Hand,
    answer: httpx.Response,
    isolated: bool,
) -> None:
    control.broken["token"] = [answer] * 9
    for _ in range(2):
        cut(control, answer, answer)
        await daemon.check_in(POLL)
        hand.at += 700
    assert daemon.turn.reachability.is_isolated is isolated


async def test_an_isolated_device_heals_what_runs_and_changes_nothing_else(
    daemon: Daemon, control: Control, hand: Hand, device: Device
) -> None:
    update_to(control, "1.0.0")
    await daemon.check_in(POLL)
    await isolate(daemon, control, hand)
    before = requests(device)
    update_to(control, "2.0.0")
    daemon.turn.reachability.ask_again_at = float("inf")
    for _ in range(3):
        hand.at += 900
        assert await daemon.check_in(POLL) == Outcome.UNREACHABLE
    assert requests(device)[len(before) :] == ["recover"] * 3
    assert daemon.turn.engine_status is not None
    assert daemon.turn.engine_status.current is not None
    assert daemon.turn.engine_status.current.version == "1.0.0"


async def test_an_isolated_device_asks_seldom_and_spread_but_looks_after_itself_as_often_as_ever(
    daemon: Daemon, control: Control, hand: Hand
) -> None:
    daemon.schedule.uniform = lambda low, high: (low + high) / 2
    await isolate(daemon, control, hand)
    assert daemon._next_wait(Outcome.UNREACHABLE) == DEFAULT_POLL_INTERVAL_S
    assert daemon.turn.reachability.ask_again_at - hand.at == decide.ISOLATED_POLL_S / 2
    asked = control.questions
    hand.at += decide.ISOLATED_POLL_S / 2 - 1
    await daemon.check_in(POLL)
    assert control.questions == asked
    hand.at += 1
    await daemon.check_in(POLL)
    assert control.questions == asked + 1


@pytest.mark.parametrize(("interval", "most"), [(30, 1800), (1800, 1800), (86400, 86400)])
def test_the_return_has_full_jitter_over_the_slow_interval(interval: float, most: float) -> None:
    spans: list[tuple[float, float]] = []

    def uniform(low: float, high: float) -> float:
        spans.append((low, high))
        return low

    assert decide.isolated_wait_s(interval, uniform) == 0
    assert spans == [(0.0, most)]


@pytest.mark.parametrize(("status", "kept"), [(429, True), (503, True), (302, False), (403, False)])
async def test_retry_after_outlasts_the_check_in_and_what_runs_is_looked_after_meanwhile(  # noqa: PLR0917
    daemon: Daemon, control: Control, device: Device, hand: Hand, status: int, kept: bool
) -> None:
    """A captive portal's wish counts for nothing, nor does a refusal's; an operator's wake comes through."""
    await daemon.check_in(POLL)
    cut(control, json_answer({"message": "later"}, status, **{"Retry-After": "300"}))
    await daemon.check_in(POLL)
    asked = control.questions
    hand.at += 299.5
    await daemon.check_in(POLL)
    assert control.questions == asked + (not kept)
    assert requests(device)[-1] == "recover"
    hand.at += 0.5
    await daemon.check_in(POLL)
    assert control.questions == asked + 1 + (not kept)

    cut(control, json_answer({"message": "later"}, status, **{"Retry-After": "300"}))
    await daemon.check_in(POLL)
    await daemon.check_in("woken: target")
    await daemon.check_in(POLL)
    assert control.questions == asked + 4 + (not kept), "and an answer ends the wait"


async def test_a_wake_makes_an_isolated_device_ask_at_once(
    daemon: Daemon, control: Control, hand: Hand
) -> None:
    await isolate(daemon, control, hand)
    daemon.turn.reachability.ask_again_at = float("inf")
    control.broken.clear()
    assert await daemon.check_in("woken: release") == Outcome.CONVERGED
    assert not daemon.turn.reachability.is_isolated


async def test_once_back_isolation_is_reported_and_then_how_the_device_is(
    daemon: Daemon, control: Control, hand: Hand, device: Device
) -> None:
    await isolate(daemon, control, hand)
    control.broken.clear()
    control.status.clear()
    await daemon.check_in("once")
    assert [row["state"] for row in control.status] == ["isolated", "healthy"]
    assert control.status[0]["reason"].startswith("Was cut off from the control plane since ")
    assert any("no longer isolated" in line["message"] for line in control.status[-1]["log_tail"])
    assert not device.paths.isolated.exists()
    await daemon.check_in("once")
    assert len(control.status) == 2


async def test_the_status_command_shows_it_and_a_restart_does_not_end_it(
    daemon: Daemon, control: Control, hand: Hand, device: Device, capsys: pytest.CaptureFixture[str]
) -> None:
    await isolate(daemon, control, hand)
    again = device.daemon(daemon.log)
    assert again.turn.reachability.is_isolated
    await again.connection.close()
    arguments = ["status", "--root", str(device.folder), "--config", str(device.config_path)]
    # The command has an event loop of its own.
    await asyncio.to_thread(cli.main, [*arguments, "--json"])
    shown = json.loads(capsys.readouterr().out)
    assert (shown["state"], shown["isolated_since"][:4]) == ("isolated", str(datetime.now(UTC).year))
    await asyncio.to_thread(cli.main, arguments)
    assert "isolated    since" in capsys.readouterr().out


async def test_a_subscription_that_is_down_rests_while_isolated_and_one_that_is_up_stays(
    daemon: Daemon, control: Control, hand: Hand
) -> None:
    class Subscription:
        joined = True

        async def run(self) -> None:
            await asyncio.Event().wait()

    await daemon.check_in(POLL)
    network = daemon.connection
    daemon.config_file.current = daemon.config.model_copy(update={"wake": True})
    network.subscription = Subscription()  # type: ignore[assignment]
    network.task = asyncio.create_task(Subscription().run())
    await isolate(daemon, control, hand)
    daemon._start_listening()
    await asyncio.sleep(0)
    assert not network.task.done()
    assert network.subscription is not None
    network.subscription.joined = False
    daemon._start_listening()
    await asyncio.wait({network.task})
    assert network.task.cancelled()


def test_a_full_disk_does_not_hinder_isolation(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def full(*_: object, **__: object) -> None:
        raise StateError(Kind.DISK_FULL, "full")

    monkeypatch.setattr(atomic_files, "write_atomic", full)
    hand = Hand()
    state = Isolation(tmp_path / "isolated.json", Clock(tmp_path / "floor", monotonic=hand))
    state.unanswered(AWAY, 10)
    hand.at += 10
    assert state.unanswered(AWAY, 10)
    assert state.is_on
    assert not state.unanswered(AWAY, 10), "said once"
    assert state.answered() is not None


@pytest.mark.parametrize("content", ["", "{", '{"since": "yesterday"}', "\x00"])
def test_an_unreadable_mark_is_none(tmp_path: Path, content: str) -> None:
    (tmp_path / "isolated.json").write_text(content)
    assert isolation.read(tmp_path / "isolated.json") is None


def full_disk(monkeypatch: pytest.MonkeyPatch) -> None:
    def fsync(_handle: int) -> None:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    monkeypatch.setattr(os, "fsync", fsync)


def test_on_a_full_disk_no_outcome_in_the_outbox_is_lost(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Neither by a new attempt that does not fit nor by dropping the detail of the old ones."""
    monkeypatch.setattr("fleet_agent.attempts.outbox.DETAIL_LIMIT", 2)
    box = Outbox(tmp_path / "outbox")
    kept = [_attempt(minute) for minute in range(2)]
    for one in kept:
        box.put(one)
    with monkeypatch.context() as patch:
        full_disk(patch)
        with pytest.raises(StateError) as refused:
            box.put(_attempt(2))
        assert refused.value.kind == Kind.DISK_FULL
    assert box.pending() == kept
    assert sorted(file.suffix for file in box.folder.iterdir()) == [".json", ".json"]

    newest = _attempt(3)
    real, calls = atomic_files.write_atomic, 0

    def full_after_the_first(*arguments: Any, **options: Any) -> None:
        nonlocal calls
        calls += 1
        if calls > 1:
            raise StateError(Kind.DISK_FULL, "full")
        real(*arguments, **options)

    monkeypatch.setattr(atomic_files, "write_atomic", full_after_the_first)
    box.put(newest)
    assert box.pending() == [*kept, newest], "kept whole: dropping detail is only housekeeping"


def _attempt(minute: int) -> Attempt:
    at = datetime(2026, 11, 23, tzinfo=UTC) + timedelta(minutes=minute)
    return Attempt(
        id=uuid4(), release_id=None, rollout_id=None, from_commit=None, to_commit="a" * 40,
        outcome=AttemptOutcome.FAILED, evidence={"log": ["x"]}, started_at=at, finished_at=at,
        agent_version="1",
    )  # fmt: skip
