"""The front page: the database's own counts, rollouts with their next event, what needs attention."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator

import psycopg
import pytest
from playwright.sync_api import Page, expect
from psycopg.types.json import Jsonb

from tests.e2e.conftest import Device, MakeDevice, VisitDashboard

pytestmark = pytest.mark.browser

HOSTILE = "<img src=x onerror=alert(1)>{{7*7}}"


@pytest.fixture
def rolling(
    make_device: MakeDevice, make_release: Callable[[str], str], admin: psycopg.Connection
) -> Iterator[Device]:
    """A device, in a rollout whose name is hostile, and an alert about it; both over at the end."""
    release = make_release("v9-overview")
    device = make_device("front")
    device.reports(state="degraded", error_kind="unhealthy", error="web does not answer.")
    row = admin.execute(
        "select (public.create_rollout(%s, stages => %s, options => %s)).id",
        (release, Jsonb([{"segment": "canary", "soak_s": 600}, {}]), Jsonb({"name": HOSTILE})),
    ).fetchone()
    assert row is not None
    admin.execute("select public.start_rollout(%s)", row)
    admin.execute(
        "insert into public.alerts (kind, severity, device_id, summary)"
        " values ('clock_drift', 'critical', %s, %s)",
        (device.id, f"{HOSTILE} is late."),
    )
    yield device
    admin.execute("select public.cancel_rollout(%s)", row)
    admin.execute("update public.alerts set resolved_at = now() where device_id = %s", (device.id,))


def test_the_overview_shows_the_fleet_as_the_database_counts_it_and_follows_it(
    visit: VisitDashboard, rolling: Device, admin: psycopg.Connection
) -> None:
    seen = visit("viewer", at="/")
    page = seen.page
    expect(page.get_by_role("heading", name="Overview")).to_be_visible()
    seen.is_live()
    counts = admin.execute("select devices, degraded from public.fleet_overview").fetchone()
    assert counts is not None
    expect(page.get_by_test_id("devices-total")).to_contain_text(f"{counts[0]:,} in the fleet")
    expect(page.locator('[data-state="degraded"]')).to_contain_text(f"{counts[1]:,} Degraded")
    # Names stay text, and what comes next is said.
    line = page.locator("[data-rollout]")
    expect(line).to_contain_text(HOSTILE)
    expect(line.get_by_test_id("next-event")).to_contain_text("Stage 2 opens later: stage 1 is not proved")
    expect(page.get_by_label("Alerts").get_by_role("link", name=re.compile("is late"))).to_contain_text(
        HOSTILE
    )
    expect(page.get_by_label("Last 24 hours")).to_contain_text(re.compile(r"\d+ releases? added"))
    expect(page.get_by_role("button", name=re.compile("stop|Halt"))).to_have_count(0)

    rolling.reports(state="healthy")
    left = counts[1] - 1
    expect(page.locator('[data-state="degraded"]')).to_have_count(0 if left == 0 else 1)
    assert page.title() == "Overview – Metrica Fleet"
    assert seen.broken == []


def test_a_release_is_halted_and_its_devices_are_taken_back_all_at_once(
    visit: VisitDashboard,
    make_device: MakeDevice,
    make_release: Callable[[str], str],
    admin: psycopg.Connection,
) -> None:
    release = make_release("v8-bad")
    for prefix in ("runs", "retired"):
        device = make_device(prefix)
        device.reports(state="healthy", current_release=release)
        if prefix == "retired":
            admin.execute("update public.devices set state = 'retired' where id = %s", (device.id,))
    page: Page = visit("operator", at="/").page
    page.get_by_role("button", name="Halt a part…").click()
    dialog = page.get_by_role("dialog")
    dialog.get_by_label("Which").select_option(label="v8-bad (main)")
    # The retired one runs it, too, and does not count.
    dialog.get_by_label(re.compile("Take devices back: 1 active device that runs it")).check()
    dialog.get_by_label("All at once, past every limit of slots").check()
    dialog.get_by_label("Reason").fill("it eats the disk")
    dialog.get_by_role("button", name="Take 1 device back").click()
    halt = page.get_by_test_id("halt").filter(has_text="v8-bad")
    expect(halt).to_contain_text("Release v8-bad is halted")
    expect(halt).to_contain_text("opened by operator@fleet.example")
    expect(halt).to_contain_text("1 device still runs it and goes back")
    kept = admin.execute(
        "select scope::text, roll_back, all_at_once from public.halts where reason = 'it eats the disk'"
    ).fetchone()
    assert kept == ("release", True, True)

    # Nobody runs it, and nobody is offered it: one quiet line is left.
    admin.execute("update public.releases set state = 'withdrawn' where id = %s", (release,))
    admin.execute(
        "update public.device_status set current_release = null where current_release = %s", (release,)
    )
    page.reload()
    expect(page.get_by_test_id("past-halt").filter(has_text="v8-bad")).to_contain_text(
        "stops nothing any more"
    )
    expect(halt).to_have_count(0)
    admin.execute("update public.halts set lift_reason = 'over' where reason = 'it eats the disk'")
