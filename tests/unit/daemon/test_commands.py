"""A command is carried out at most once, whenever the daemon dies; what is not known to be done is said."""

from __future__ import annotations

import asyncio
from pathlib import Path
from typing import Any
from uuid import UUID, uuid4

import httpx
import pytest

from fleet_agent.daemon import commands
from fleet_agent.daemon.command_journal import CommandJournal, CommandResult
from fleet_agent.daemon.engine_process import Verb
from fleet_agent.daemon.loop import Daemon
from fleet_agent.errors import Kind, StateError
from fleet_agent.log import Log
from fleet_agent.model import Command, CommandKind, Directive
from fleet_agent.support import atomic_files
from fleet_agent.support.clock import Clock
from tests.support.control import (
    Control,
    control,
    no_patience,
    plan,
    requests,
    send_command,
    update_to,
)
from tests.support.device import Device

__all__ = ["control", "no_patience"]  # fixtures

ACTING = ("rollback", "restart", "enter_safe_mode", "leave_safe_mode", "update_now")
READING = ("tail_logs", "check_drift")


class Died(BaseException):
    """The daemon is gone, at once: nothing of it runs any more."""


async def restarted(device: Device, log: Log) -> None:
    """Another daemon's check-in."""
    await device.daemon(log).once()


async def killed(made: Daemon) -> None:
    """Check in and die in the middle. What a dead process no longer does must not be done here either."""
    with pytest.raises(Died):
        await made.once()


def dies(*_: Any, **__: Any) -> Any:
    raise Died


@pytest.mark.parametrize("kind", [*ACTING, *READING])
async def test_a_death_before_a_command_is_done_is_reported_and_the_command_not_repeated(
    device: Device, log: Log, control: Control, monkeypatch: pytest.MonkeyPatch, kind: str
) -> None:
    update_to(control, "1.0.0")
    await restarted(device, log)
    plan(device, refuse={"verb": "rollback", "kind": "nothing_to_roll_back"})
    command_id = send_command(control, kind)
    with monkeypatch.context() as patch:
        patch.setattr(commands, "carry_out", dies)
        made = device.daemon(log)
        patch.setattr(made.turn, "_act", dies)
        await killed(made)
    assert device.paths.command_journal.exists()
    before = requests(device)

    await restarted(device, log)
    assert requests(device)[len(before) :] == ["recover"]
    assert control.answers[command_id]["state"] == "failed"
    told = control.answers[command_id]["result"]
    assert told["kind"] == "interrupted"
    assert "is not retried" in told["message"]


@pytest.mark.parametrize("kind", ACTING)
async def test_a_death_before_the_answer_gets_through_sends_that_answer_later(
    device: Device, log: Log, control: Control, kind: str
) -> None:
    update_to(control, "1.0.0")
    await restarted(device, log)
    command_id = send_command(control, kind)
    control.broken["device_commands"] = [httpx.ConnectError("gone")]
    await restarted(device, log)
    assert control.answers == {}
    control.asks["action"] = "run"
    before = requests(device)

    await restarted(device, log)
    assert control.answers[command_id]["state"] == "succeeded"
    assert [verb for verb in requests(device)[len(before) :] if verb != "recover"] == []


async def test_what_the_control_plane_no_longer_offers_is_forgotten(
    device: Device, log: Log, control: Control
) -> None:
    send_command(control, "restart")
    await restarted(device, log)
    assert device.paths.command_journal.exists()
    control.asks["commands"] = []
    await restarted(device, log)
    assert not device.paths.command_journal.exists()


async def test_an_unreadable_memory_carries_nothing_out_and_says_so_once(
    device: Device, log: Log, control: Control
) -> None:
    command_id = send_command(control, "restart")
    device.paths.command_journal.write_text("{")
    control.broken["device_commands"] = [httpx.ConnectError("gone")]
    for _ in range(2):
        await restarted(device, log)
    assert "restart" not in requests(device)
    assert control.answers[command_id]["result"]["kind"] == "interrupted"
    newer = send_command(control, "restart")
    await restarted(device, log)
    assert control.answers[newer]["state"] == "succeeded"


async def test_what_cannot_be_written_down_is_not_begun(
    device: Device, log: Log, control: Control, monkeypatch: pytest.MonkeyPatch
) -> None:
    def full(*_: Any, **__: Any) -> None:
        raise StateError(Kind.DISK_FULL, "The disk is full.")

    update_to(control, "1.0.0")
    control.asks["commands"] = [
        {"id": str(uuid4()), "kind": kind, "args": {}} for kind in ("restart", "update_now")
    ]
    monkeypatch.setattr(atomic_files, "write_atomic", full)
    await restarted(device, log)
    assert "restart" not in requests(device)
    assert [answer["result"]["kind"] for answer in control.answers.values()] == ["disk_full"] * 2


async def test_an_idle_device_writes_nothing_about_commands(
    device: Device, log: Log, control: Control, monkeypatch: pytest.MonkeyPatch
) -> None:
    made = device.daemon(log)
    await made.check_in("test")
    monkeypatch.setattr(atomic_files, "write_atomic", dies)
    monkeypatch.setattr(atomic_files, "remove", dies)
    await made.once()


async def test_the_engine_hears_of_a_command_only_by_being_asked(
    device: Device, log: Log, control: Control, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A newer answer in the middle still offers the command; it must not make the engine try once more."""
    gate = device.folder / "gate"
    plan(device, hold=str(gate))
    update_to(control, "1.0.0")
    send_command(control, "update_now")
    made = device.daemon(log)
    told: list[Directive] = []
    passed_on = asyncio.Event()
    run, supersede = made.engine.run, made.engine.supersede

    async def noted_run(verb: Verb, **how: Any) -> Any:
        told.extend([how["directive"]] if how.get("directive") else [])
        return await run(verb, **how)

    async def noted_supersede(newer: Directive) -> None:
        told.append(newer)
        await supersede(newer)
        passed_on.set()

    monkeypatch.setattr(made.engine, "run", noted_run)
    monkeypatch.setattr(made.engine, "supersede", noted_supersede)
    work = asyncio.create_task(made.once())
    await control.reports_phase("pulling")
    update_to(control, "2.0.0")
    made.schedule.hasten(0.0, "woken: release_added")
    async with asyncio.timeout(30):
        await passed_on.wait()
    gate.touch()
    await work
    assert [(one.release and one.release.version, one.commands) for one in told] == [
        ("1.0.0", ()), ("2.0.0", ()),
    ]  # fmt: skip


@pytest.fixture
def journal(tmp_path: Path) -> CommandJournal:
    return CommandJournal(tmp_path / "commands.json", Clock(tmp_path / "floor"))


def restart_order() -> Command:
    return Command(id=uuid4(), kind=CommandKind.RESTART)


def test_a_new_command_is_unknown_and_a_begun_one_known_to_another_process(
    journal: CommandJournal, tmp_path: Path
) -> None:
    begun, new = restart_order(), restart_order()
    assert not journal.knows(begun.id)
    journal.begin(begun)
    again = CommandJournal(tmp_path / "commands.json", Clock(tmp_path / "floor"))
    assert [again.knows(one.id) for one in (begun, new)] == [True, False]


def test_an_answer_to_a_command_that_was_never_begun_leaves_no_trace(
    journal: CommandJournal, tmp_path: Path
) -> None:
    journal.note(uuid4(), CommandResult(state="failed", result={}))
    assert not (tmp_path / "commands.json").exists()


@pytest.mark.parametrize("content", ["", "{", '{"commands": []}', '{"commands": {"x": {}}}', "\x00"])
def test_an_unreadable_book_knows_every_command_until_those_offered_now_are_answered(
    tmp_path: Path, content: str
) -> None:
    file = tmp_path / "commands.json"
    file.write_text(content)
    journal, old, new = CommandJournal(file, Clock(tmp_path / "floor")), uuid4(), uuid4()
    assert journal.knows(old)
    journal.note(old, journal.answer(old))
    journal.keep_only([old])
    again = CommandJournal(file, Clock(tmp_path / "floor"))
    assert [again.knows(one) for one in (old, new)] == [True, False]


def test_a_journal_with_nothing_offered_is_no_file(journal: CommandJournal, tmp_path: Path) -> None:
    one = restart_order()
    journal.begin(one)
    journal.keep_only(list[UUID]())
    assert not (tmp_path / "commands.json").exists()
    assert not journal.knows(one.id)
