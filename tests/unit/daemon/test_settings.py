"""What is in force on a device is its file over what the control plane sends, and it says so."""

from __future__ import annotations

from typing import Any

import pytest

from fleet_agent.daemon.loop import Daemon
from fleet_agent.log import Log
from tests.support.control import Control, control, daemon, no_patience
from tests.support.device import Device, json_answer

__all__ = ["control", "daemon", "no_patience"]  # fixtures


def send(control: Control, **config: Any) -> None:
    control.asks["config"] = {"poll_interval_s": None, "labels": {}, **config}


async def test_what_is_in_force_is_reported_with_the_names_of_the_pins(
    device: Device, log: Log, control: Control
) -> None:
    device.configure(poll_interval_s=77, labels={"site": "milan"})
    send(control, labels={"site": "rome", "floor": "2"})
    await device.daemon(log).once()
    assert control.status[-1]["settings"] == {
        "poll_interval_s": 77,
        "labels": {"site": "milan", "floor": "2"},
        "pinned": ["poll_interval_s", "labels.site"],
    }


async def test_a_changed_label_is_reported_and_an_interval_shortened_for_once_is_not(
    daemon: Daemon, control: Control
) -> None:
    await daemon.check_in("test")
    control.asks["next_poll_s"] = 31
    await daemon.check_in("test")
    assert len(control.status) == 1
    assert daemon.turn.interval_s() == 31
    send(control, labels={"floor": "3"})
    await daemon.check_in("test")
    assert [row["settings"]["labels"] for row in control.status] == [{}, {"floor": "3"}]


async def test_a_pin_changed_in_the_file_takes_force_and_is_reported(
    daemon: Daemon, control: Control, device: Device
) -> None:
    await daemon.check_in("test")
    for pin in (50, 60):
        device.configure(poll_interval_s=pin)
        await daemon._follow_configuration()
        await daemon.check_in("test")
    assert [row["settings"]["poll_interval_s"] for row in control.status] == [900, 50, 60]


@pytest.mark.parametrize("code", ["PGRST204", "42703"])
async def test_a_control_plane_without_the_column_still_gets_its_reports(
    daemon: Daemon, control: Control, code: str
) -> None:
    refusal = json_answer({"code": code, "message": "no such column"}, 400)
    control.broken["device_status"] = [refusal]
    for _ in range(2):
        await daemon.check_in("test")
        daemon.turn.reporter._told = None
    assert [row["state"] for row in control.status] == ["healthy", "healthy"]
    assert not any("settings" in row for row in control.status)
