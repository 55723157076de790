"""Two agents with one identity, and a clock that is days off: told by an alert, and nothing honest is."""

from __future__ import annotations

from itertools import product
from uuid import UUID

import pytest

from tests.support.identities import DEVICE, OTHER, Fleet

A, B, C, D = (UUID(int=number) for number in range(1, 5))


def _open(fleet: Fleet, kind: str) -> list[str]:
    return [
        row[0]
        for row in fleet.sql(
            "select summary from public.alerts where kind = %s and resolved_at is null", kind
        )
    ]


def _told(fleet: Fleet, kind: str, reports: list[tuple[int, UUID]]) -> list[int]:
    """The positions of the reports, at these seconds with these ids, after which a copy is noticed."""
    noticed = []
    for position, (second, reporter) in enumerate(reports):
        if position and reports[position - 1][1] == reporter:
            continue
        at = "timestamptz '2026-06-01Z' + make_interval(secs => %s)"
        if fleet.one(f"select private.note_reporter(%s, %s, %s, {at})", DEVICE, kind, reporter, second):
            noticed.append(position)
    return noticed


@pytest.mark.parametrize("kind", ["boot", "attempt"])
def test_only_what_returns_is_a_copy(fleet: Fleet, kind: str) -> None:
    honest = {
        "one boot": [(0, A), (900, A), (1800, A)],
        "started again and again": [(0, A), (60, B), (120, C), (180, D)],
        "a report of the last boot was late": [(0, A), (60, B), (150, A), (151, B), (900, B)],
        "late after each of three starts": [
            (0, A), (60, B), (61, A), (62, B), (120, C), (121, B), (122, C), (180, D), (181, C), (182, D),
        ],
    }  # fmt: skip
    copies = {
        "two": [(0, A), (450, B), (900, A)],
        "three": [(0, A), (300, B), (600, C), (901, A)],
        "two that report all the time": [(second, A if second % 2 else B) for second in range(8)],
        "one of them is started again": [(0, A), (450, B), (800, C), (900, B), (1700, C), (1800, B)],
    }
    found = {}
    for name, reports in (honest | copies).items():
        fleet.sql("delete from private.reporter_ids where true")
        found[name] = bool(_told(fleet, kind, reports))
    assert found == {**dict.fromkeys(honest, False), **dict.fromkeys(copies, True)}
    assert fleet.one("select count(*) from private.reporter_ids") <= 8


def test_an_alert_tells_of_two_machines_and_neither_is_refused(fleet: Fleet) -> None:
    report = (
        "insert into public.device_status (device_id, boot_id, attempt_id) values (%s, %s, %s) "
        "on conflict (device_id) do update set boot_id = excluded.boot_id, attempt_id = excluded.attempt_id"
    )
    # An honest device: two boots, two attempts, one of which was interrupted by the boot.
    for boot, attempt in [(A, None), (A, C), (A, None), (B, C), (B, None), (B, D), (B, None)]:
        fleet.sql(report, OTHER, boot, attempt, who="other device")
    assert _open(fleet, "identity_shared") == []
    for boot, _ in product((A, B), range(4)):
        fleet.sql(report, DEVICE, boot, None, who="device")
    assert _open(fleet, "identity_shared") == []
    for _, boot in product(range(4), (A, B)):
        fleet.sql(report, DEVICE, boot, None, who="device")
        fleet.sql("select public.desired_state()", who="device")
    (told,) = _open(fleet, "identity_shared")
    assert "Two machines report as device: their reports alternate." in told
    assert "fleetctl device replace device" in told
    fleet.sql("select private.tick(now() + interval '23 hours')")
    assert _open(fleet, "identity_shared") == [told]
    fleet.sql("select private.tick(now() + interval '25 hours')")
    assert _open(fleet, "identity_shared") == []
    # Two attempts at a time, with one boot id: a machine that was copied while it ran.
    for _, attempt in product(range(4), (C, D)):
        fleet.sql(report, OTHER, B, attempt, who="other device")
    assert "two attempts are running at the same time" in _open(fleet, "identity_shared")[0]
    fleet.sql("update public.devices set state = 'retired' where id = %s", OTHER, who="operator")
    assert _open(fleet, "identity_shared") == []


@pytest.mark.parametrize(
    ("offset", "told"),
    [
        ("86399 s", ""),
        ("1 day", "24 hours ahead"),
        ("-3 days", "3 days behind"),
        ("400 days 5 h", "400 days ahead"),
        ("-20000 days", "20000 days behind"),
    ],
)
def test_a_clock_that_is_days_off_is_an_alert_in_days(fleet: Fleet, offset: str, told: str) -> None:
    report = (
        "insert into public.device_status (device_id, device_time) values (%s, now() + %s::interval) "
        "on conflict (device_id) do update set device_time = excluded.device_time"
    )
    fleet.sql(report, DEVICE, offset, who="device")
    found = _open(fleet, "clock_off")
    assert [f"The clock of device is {told}." in summary for summary in found] == ([True] if told else [])
    assert told in fleet.one("select sentence from public.drifted_clocks", who="viewer")
    fleet.sql(report, DEVICE, "0", who="device")
    assert _open(fleet, "clock_off") == []
    assert fleet.sql("select * from public.drifted_clocks", who="viewer") == []
