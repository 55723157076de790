"""The best known time on a machine without a battery for its clock."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest

from fleet_agent.daemon.schedule import Outcome, Schedule
from fleet_agent.support.clock import FLOOR_REFRESH, SKEW_WARNING, Clock

NOW = datetime(2026, 11, 23, 12, tzinfo=UTC)
EPOCH = datetime(1970, 1, 1, tzinfo=UTC)


class Hands:
    """A local clock and a monotonic one, moved by the test."""

    def __init__(self, local: datetime = NOW) -> None:
        self.local, self.ticks = local, 1000.0

    def pass_s(self, seconds: float) -> None:
        self.local += timedelta(seconds=seconds)
        self.ticks += seconds

    def clock(self, file: Path) -> Clock:
        return Clock(file, local=lambda: self.local, monotonic=lambda: self.ticks)


def test_before_the_server_is_heard_the_local_clock_counts(tmp_path: Path) -> None:
    assert Hands().clock(tmp_path / "floor").now() == NOW


def test_the_servers_time_wins_and_is_carried_on_by_the_monotonic_clock(tmp_path: Path) -> None:
    hands = Hands(local=EPOCH)
    clock = hands.clock(tmp_path / "floor")
    clock.observe(NOW)
    hands.pass_s(90)
    assert clock.now() == NOW + timedelta(seconds=90)
    hands.local += timedelta(days=3000)  # the local clock jumps
    assert clock.now() == NOW + timedelta(seconds=90)


def test_after_a_boot_in_1970_time_is_at_least_the_last_known_one(tmp_path: Path) -> None:
    Hands().clock(tmp_path / "floor").observe(NOW)
    reborn = Hands(local=EPOCH).clock(tmp_path / "floor")
    assert reborn.now() == NOW
    assert reborn.is_implausible()


def test_a_clock_ahead_of_the_floor_is_believed(tmp_path: Path) -> None:
    Hands().clock(tmp_path / "floor").observe(NOW)
    later = NOW + timedelta(days=9)
    clock = Hands(local=later).clock(tmp_path / "floor")
    assert clock.now() == later
    assert not clock.is_implausible()


def test_a_child_process_carries_on_the_time_that_was_heard(tmp_path: Path) -> None:
    hands = Hands(local=EPOCH)
    parent, child = hands.clock(tmp_path / "floor"), hands.clock(tmp_path / "none")
    parent.observe(NOW)
    hands.pass_s(90)
    child.carry_on(parent.heard)
    assert child.now() == parent.now() == NOW + timedelta(seconds=90)


@pytest.mark.parametrize("jump", [EPOCH - NOW, timedelta(days=365)], ids=["1970", "a year ahead"])
def test_a_jump_neither_hurries_nor_delays_the_next_check_in(tmp_path: Path, jump: timedelta) -> None:
    hands = Hands()
    schedule = Schedule(hands.clock(tmp_path / "floor"), uniform=lambda _low, high: high)
    schedule.take()
    schedule.count(Outcome.NOT_CONVERGED)
    schedule.poll_within(schedule.wait_s(Outcome.NOT_CONVERGED, 900, isolated=False, pending=False))
    before = schedule.left_s
    hands.local += jump
    assert schedule.left_s == before > 0


@pytest.mark.parametrize(
    ("age", "written"),
    [(FLOOR_REFRESH - timedelta(seconds=1), False), (FLOOR_REFRESH, True), (timedelta(days=-1), False)],
)
def test_the_floor_is_written_once_a_day_and_never_back(
    tmp_path: Path, age: timedelta, written: bool
) -> None:
    file = tmp_path / "floor"
    clock = Hands().clock(file)
    clock.observe(NOW)
    file.unlink()
    clock.observe(NOW + age)
    assert file.exists() is written


@pytest.mark.parametrize(
    ("skew", "wrong"),
    [(SKEW_WARNING - timedelta(seconds=1), False), (SKEW_WARNING, True), (-SKEW_WARNING, True)],
)
def test_a_clock_two_minutes_off_is_known_to_be_wrong(tmp_path: Path, skew: timedelta, wrong: bool) -> None:
    clock = Hands(local=NOW + skew).clock(tmp_path / "floor")
    clock.observe(NOW)
    assert clock.skew() == skew
    assert clock.is_implausible() is wrong


def test_an_unreadable_floor_is_no_floor(tmp_path: Path) -> None:
    (tmp_path / "floor").write_text("tomorrow")
    assert Hands().clock(tmp_path / "floor").now() == NOW
