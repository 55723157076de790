"""What a report says about the machine itself: which start of it this is, and a clock that is days off."""

from __future__ import annotations

from datetime import timedelta
from pathlib import Path
from typing import Any
from uuid import uuid4

import pytest

from fleet_agent.daemon.loop import Daemon
from fleet_agent.host.machine import Machine
from fleet_agent.support.clock import local_now
from tests.support.control import Control, control, daemon

__all__ = ["control", "daemon"]  # fixtures


def test_a_boot_is_told_apart_by_start_and_by_copy(tmp_path: Path) -> None:
    kernel = tmp_path / "sys/kernel/random/boot_id"
    kernel.parent.mkdir(parents=True)
    folders = [tmp_path / "one", tmp_path / "copy"]

    def boots() -> list[Any]:
        return [Machine(folder, proc=tmp_path).boot_id() for folder in folders]

    assert boots() == [None, None]
    for folder in folders:
        folder.mkdir()
    assert boots() == [None, None]
    kernel.write_text(f"{uuid4()}\n")
    first = boots()
    assert first == boots() and len({*first, None}) == 3
    kernel.write_text(f"{uuid4()}\n")
    assert len({*first, *boots()}) == 4


async def test_every_report_names_the_boot_and_none_at_rest_an_attempt(
    daemon: Daemon, control: Control
) -> None:
    for _ in range(2):
        await daemon.check_in("test")
        daemon.turn.reporter._told = None
    assert len({row["boot_id"] for row in control.status} - {None}) == 1
    assert {row["attempt_id"] for row in control.status} == {None}


@pytest.mark.parametrize(
    ("off", "told"),
    [
        (timedelta(hours=23, minutes=59), None),
        (timedelta(days=3, hours=5), "This device's clock is 3 days ahead of the control plane's."),
        (-timedelta(hours=30, minutes=5), "This device's clock is 30 hours behind the control plane's."),
        (-timedelta(days=9000, minutes=5), "This device's clock is 9000 days behind the control plane's."),
    ],
)
async def test_a_clock_that_is_days_off_is_in_the_report(
    daemon: Daemon, control: Control, off: timedelta, told: str | None
) -> None:
    daemon.clock._local = lambda: local_now() + off
    await daemon.check_in("test")
    (row,) = control.status
    assert row["state"] == "healthy"
    assert row["error_kind"] == ("clock_wrong" if told else None)
    assert (row["error"] or "").startswith(told or "")
