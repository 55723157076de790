"""Commands of an operator, carried out by the loop and answered once."""

from __future__ import annotations

import json

import httpx
import pytest

from fleet_agent.daemon.loop import Daemon
from fleet_agent.daemon.schedule import Outcome
from tests.support.control import (
    Control,
    control,
    daemon,
    no_patience,
    plan,
    requests,
    send_command,
    update_to,
)
from tests.support.device import Device

__all__ = ["control", "daemon", "no_patience"]  # fixtures


async def test_update_now_is_asked_of_the_engine_and_answered_with_the_outcome(
    daemon: Daemon, control: Control, device: Device
) -> None:
    update_to(control, "1.0.0")
    command_id = send_command(control, "update_now")
    await daemon.check_in("test")
    lines = (device.paths.state / "fake_requests.jsonl").read_text().splitlines()
    assert json.loads(lines[-1])["operator_requested"] is True
    assert control.answers[command_id] == {
        "state": "succeeded", "result": {"release": "1.0.0", "state": "healthy"},
    }  # fmt: skip


async def test_update_now_that_rolls_back_is_answered_as_failed_with_the_kind(
    daemon: Daemon, control: Control, device: Device
) -> None:
    plan(device, fail="unhealthy")
    update_to(control, "1.0.0")
    command_id = send_command(control, "update_now")
    await daemon.check_in("test")
    assert control.answers[command_id]["state"] == "failed"
    assert control.answers[command_id]["result"]["kind"] == "unhealthy"


@pytest.mark.parametrize(
    ("kind", "verb"),
    [("rollback", "rollback"), ("restart", "restart"), ("enter_safe_mode", "enter_safe_mode"),
     ("leave_safe_mode", "leave_safe_mode")],
)  # fmt: skip
async def test_a_command_is_carried_out_and_the_old_directive_is_asked_for_anew(
    daemon: Daemon, control: Control, device: Device, kind: str, verb: str
) -> None:
    """What was asked before a rollback would undo it at once."""
    update_to(control, "1.0.0")
    command_id = send_command(control, kind)
    daemon.schedule.due.at = float("inf")
    await daemon.check_in("test")
    assert requests(device) == ["recover", verb]
    assert control.answers[command_id]["state"] == "succeeded"
    assert daemon.schedule.left_s <= 0


async def test_a_command_the_engine_refuses_is_answered_with_its_kind(
    daemon: Daemon, control: Control, device: Device
) -> None:
    plan(device, refuse={"verb": "rollback", "kind": "nothing_to_roll_back"})
    command_id = send_command(control, "rollback")
    await daemon.check_in("test")
    assert control.answers[command_id]["state"] == "failed"
    assert control.answers[command_id]["result"]["kind"] == "nothing_to_roll_back"


async def test_a_command_of_an_unknown_kind_is_answered_and_hides_nothing(
    daemon: Daemon, control: Control, device: Device
) -> None:
    update_to(control, "1.0.0")
    command_id = send_command(control, "self_destruct")
    assert await daemon.check_in("test") == Outcome.CONVERGED
    assert requests(device) == ["recover", "converge"]
    assert control.answers[command_id]["state"] == "failed"
    assert control.answers[command_id]["result"]["kind"] == "not_supported"


async def test_a_command_whose_answer_was_lost_is_not_carried_out_twice(
    daemon: Daemon, control: Control, device: Device
) -> None:
    command_id = send_command(control, "restart")
    control.broken["device_commands"] = [httpx.ConnectError("gone")]
    await daemon.check_in("test")
    assert control.answers == {}
    await daemon.check_in("test")
    assert requests(device).count("restart") == 1
    assert control.answers[command_id]["state"] == "succeeded"
