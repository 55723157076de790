"""Times as operators type and read them: on their own clock, and in UTC."""

from __future__ import annotations

import time
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta

import pytest

from fleetctl.commands.common.format import both_clocks
from fleetctl.commands.common.parse import duration, end_of, moment
from fleetctl.errors import FleetctlError


@pytest.fixture(autouse=True)
def rome(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    monkeypatch.setenv("TZ", "Europe/Rome")
    time.tzset()
    yield
    monkeypatch.undo()
    time.tzset()


@pytest.mark.parametrize(
    ("typed", "meant"),
    [
        ("2026-12-01T02:00", datetime(2026, 12, 1, 1, tzinfo=UTC)),
        ("2026-07-01 02:00", datetime(2026, 7, 1, tzinfo=UTC)),
        ("2026-12-01", datetime(2026, 11, 30, 23, tzinfo=UTC)),
        ("2026-12-01T02:00Z", datetime(2026, 12, 1, 2, tzinfo=UTC)),
        ("2026-12-01T02:00:00-05:00", datetime(2026, 12, 1, 7, tzinfo=UTC)),
        # Twice, in autumn: the first time.
        ("2026-10-25T02:30", datetime(2026, 10, 25, 0, 30, tzinfo=UTC)),
    ],
)
def test_a_time_without_an_offset_is_on_the_operators_clock(typed: str, meant: datetime) -> None:
    assert moment(typed) == meant


@pytest.mark.parametrize(
    "typed", ["soon", "", "2026-03-29T02:30", "0001-01-01", "9999-12-31T23:59-12:00", "25:00"]
)
def test_what_is_not_a_time_is_said(typed: str) -> None:
    with pytest.raises(FleetctlError) as caught:
        moment(typed)
    assert (caught.value.kind, caught.value.exit_code) == ("time_malformed", 2)


@pytest.mark.parametrize(
    ("at", "shown"),
    [
        (datetime(2026, 12, 1, 1, tzinfo=UTC), "2026-12-01 02:00 CET (01:00 UTC)"),
        (datetime(2026, 6, 30, 22, 30, tzinfo=UTC), "2026-07-01 00:30 CEST (2026-06-30 22:30 UTC)"),
    ],
)
def test_a_time_is_shown_on_both_clocks(at: datetime, shown: str) -> None:
    assert both_clocks(at) == shown


def test_a_zone_without_a_name_is_shown_by_its_offset(monkeypatch: pytest.MonkeyPatch) -> None:
    noon = datetime(2026, 12, 1, 12, tzinfo=UTC)
    for zone, shown in (
        ("America/Sao_Paulo", "2026-12-01 09:00 UTC-0300 (12:00 UTC)"),
        ("UTC", "2026-12-01 12:00 UTC"),
    ):
        monkeypatch.setenv("TZ", zone)
        time.tzset()
        assert both_clocks(noon) == shown


def test_what_ends_in_the_past_is_refused() -> None:
    assert end_of(None, None) is None
    soon = end_of("2h", None)
    assert soon is not None
    assert timedelta(minutes=119) < soon - datetime.now(UTC) <= timedelta(hours=2)
    for given, kind in (
        (("0s", None), "date_in_the_past"),
        ((None, "2026-01-01"), "date_in_the_past"),
        (("1h", "2099-01-01"), "end_said_twice"),
    ):
        with pytest.raises(FleetctlError) as caught:
            end_of(*given)
        assert (caught.value.kind, caught.value.exit_code) == (kind, 2)
    with pytest.raises(FleetctlError) as caught:
        end_of(None, "2026-01-01T12:00")
    assert "2026-01-01 12:00 CET (11:00 UTC) has passed already." in caught.value.message


def test_no_duration_is_longer_than_a_clock_can_count() -> None:
    assert duration("5200w") < timedelta(days=36_600)
    with pytest.raises(FleetctlError) as caught:
        duration("999999999w")
    assert caught.value.kind == "duration_malformed"
