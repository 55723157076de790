"""Everybody can use the pages: axe finds nothing, a phone scrolls one way only, addresses keep filters."""

from __future__ import annotations

import uuid
from collections.abc import Callable, Iterator
from typing import Any

import psycopg
import pytest
from playwright.sync_api import Page, expect

from tests.conftest import ROOT
from tests.e2e.conftest import Device, MakeDevice, VisitDashboard, page_routes

pytestmark = pytest.mark.browser

AXE = ROOT / "web" / "node_modules" / "axe-core" / "axe.min.js"
RULES = ["wcag2a", "wcag2aa", "wcag21a", "wcag21aa", "wcag22aa"]


@pytest.fixture
def eventful(
    make_device: MakeDevice, make_release: Callable[[str], str], admin: psycopg.Connection
) -> Iterator[Device]:
    """A device with something in every part of its page, and alerts about it."""
    release = make_release(f"v1-{uuid.uuid4().hex[:8]}")
    device = make_device("a-device-with-quite-a-long-name-in-the-canteen")
    device.reports(
        state="degraded", current_release=release, error_kind="unhealthy",
        error="clock exits with 137 and was restarted 4 times; http://127.0.0.1:8080/long/address/that/does/not/break",
        resources={"cpu_percent": 97, "memory_used_bytes": 9e8, "memory_total_bytes": 1e9},
        containers=[{"service": "clock", "image": "busybox:stable", "state": "exited", "exit_code": 137}],
        log_tail=[{"at": "2026-11-23T18:00:05Z", "level": "ERROR", "message": "web did not answer"}],
    )  # fmt: skip
    device.tried(
        release_id=release, to_commit="c" * 40, outcome="failed", failed_phase="fetching",
        error_kind="git_unreachable", error="The Git host closed the connection.",
        phase_durations_ms={"fetching": 6000},
    )  # fmt: skip
    admin.execute(
        "insert into public.alerts (kind, severity, device_id, summary, acknowledged_at) values"
        " ('clock_drift', 'warning', %(id)s, %(text)s, null),"
        " ('rollout_halted', 'critical', %(id)s, %(text)s, null),"
        " ('lease_expired', 'info', %(id)s, %(text)s, now())",
        {"id": device.id, "text": f"{device.name} has been offline since noon."},
    )
    yield device
    admin.execute("update public.alerts set resolved_at = now() where device_id = %s", (device.id,))


@pytest.mark.parametrize("scheme", ["light", pytest.param("dark", marks=pytest.mark.full)])
def test_every_page_passes_wcag_22_aa(visit: VisitDashboard, eventful: Device, scheme: str) -> None:
    sign_in = visit(None, color_scheme=scheme, bypass_csp=True).page
    expect(sign_in.get_by_role("button", name="Sign in")).to_be_visible()
    assert _violations(sign_in) == []

    seen = visit("operator", color_scheme=scheme, bypass_csp=True)
    expect(seen.row(eventful)).to_be_visible()
    seen.is_live()
    assert _violations(seen.page) == []
    seen.page.get_by_role("button", name="Emergency stop").click()
    expect(seen.page.get_by_role("dialog")).to_be_visible()
    assert _violations(seen.page) == []
    seen.page.keyboard.press("Escape")
    for route in page_routes():
        if ":" in route.path or route.minimum == "admin":
            continue
        seen.go(route.path)
        expect(seen.page.get_by_role("heading", level=1)).to_have_text(route.title)
        expect(seen.page.get_by_label("Loading")).to_have_count(0)
        assert _violations(seen.page) == [], route.path
    seen.go("/devices")
    seen.row(eventful).get_by_role("link").click()
    expect(seen.page.locator("[data-gate]").first).to_be_visible()
    expect(seen.page.locator("[data-outcome]").first).to_be_visible()
    assert _violations(seen.page) == []


def test_a_phone_needs_no_sideways_scrolling(visit: VisitDashboard, eventful: Device) -> None:
    seen = visit("operator", viewport={"width": 360, "height": 740}, has_touch=True, is_mobile=True)
    expect(seen.row(eventful)).to_contain_text("Degraded")
    assert _overflow(seen.page) <= 0
    seen.row(eventful).get_by_role("link").click()
    expect(seen.page.locator("[data-outcome]").first).to_be_visible()
    expect(seen.page.locator("[data-gate]").first).to_be_visible()
    assert _overflow(seen.page) <= 0
    eventful.reports(state="safe_mode", reason="Safe mode: " + "a/long/path" * 20)
    expect(seen.page.get_by_test_id("safe-mode")).to_be_visible()
    assert _overflow(seen.page) <= 0
    seen.page.get_by_role("button", name="Pages").click()
    assert _overflow(seen.page) <= 0
    seen.page.get_by_role("link", name="Alerts").click()
    expect(seen.page.locator("[data-alert]").first).to_be_visible()
    for route in page_routes():
        if ":" in route.path or route.minimum == "admin":
            continue
        seen.go(route.path)
        expect(seen.page.get_by_role("heading", level=1)).to_have_text(route.title)
        expect(seen.page.get_by_label("Loading")).to_have_count(0)
        assert _overflow(seen.page) <= 0, route.path


def test_filters_live_in_the_address_and_a_button_clears_them(
    visit: VisitDashboard, make_device: MakeDevice, eventful: Device
) -> None:
    other = make_device("other")
    seen = visit("viewer")
    page = seen.page
    page.get_by_label("Search").fill(eventful.name)
    expect(page.get_by_test_id("matching")).to_have_text("1 device matches")
    expect(seen.row(other)).to_have_count(0)
    expect(seen.row(eventful)).to_be_visible()
    page.reload()
    expect(page.get_by_label("Search")).to_have_value(eventful.name)
    expect(seen.row(eventful)).to_be_visible()
    expect(seen.row(other)).to_have_count(0)
    page.get_by_role("button", name="Clear filters").click()
    expect(seen.row(other)).to_be_visible()
    page.get_by_role("group", name="Devices by state").get_by_role("button", name="Degraded").click()
    expect(seen.row(other)).to_have_count(0)
    expect(seen.row(eventful)).to_be_visible()


def test_more_devices_than_one_answer_holds_are_all_there(
    visit: VisitDashboard, make_device: MakeDevice, admin: Any
) -> None:
    """PostgREST cuts an answer at 1000 rows without saying so."""
    try:
        admin.execute(
            "insert into public.devices (name, role, state) select 'bulk-' || n, 'beacon', 'pending'"
            " from generate_series(1, 1001) n"
        )
        seen = visit("viewer")
        seen.page.get_by_label("Search").fill("bulk-")
        expect(seen.page.get_by_test_id("matching")).to_have_text("1,001 devices match")
    finally:
        admin.execute("delete from public.devices where name like 'bulk-%'")


def _violations(page: Page) -> list[str]:
    """What axe finds against WCAG 2.2 AA, as `rule: element`."""
    page.add_script_tag(path=AXE)
    found = page.evaluate("(tags) => axe.run({runOnly: {type: 'tag', values: tags}})", RULES)
    return [
        f"{broken['id']}: {node['html'][:160]} {node['failureSummary']}"
        for broken in found["violations"]
        for node in broken["nodes"]
    ]


def _overflow(page: Page) -> int:
    return int(page.evaluate("document.documentElement.scrollWidth - document.documentElement.clientWidth"))


def test_what_a_device_writes_is_shown_as_marks(visit: VisitDashboard, make_device: MakeDevice) -> None:
    """Nothing that turns letters around, is invisible or is a control reaches the page."""
    device = make_device("hostile")
    device.reports(
        state="degraded", reason="well\u200bknown", error_kind="un\u00adhealthy", error="no\ufeffthing",
        containers=[{"service": "\u202egpj.sh", "image": "\x1b[2J\u2066", "state": "exited", "exit_code": 1}],
        log_tail=[{"at": "2026-11-23T18:00:05Z", "level": "ERROR", "message": "\x9b31m\u202eforged\x07"}],
        settings={"labels": {"a": "\u202ex"}, "pinned": ["labels.a"]},
    )  # fmt: skip
    device.tried(
        to_commit="c" * 40, outcome="failed", failed_phase="fetch\u200ding", error_kind="x",
        error="The host said\u061c so.", phase_durations_ms={"\u202efetching": 6000},
    )  # fmt: skip
    seen = visit("viewer")
    expect(seen.row(device)).to_be_visible()
    hidden = "document.documentElement.outerHTML.match(/(?![\\n\\t])[\\p{Cc}\\p{Cf}]/gu)"
    assert seen.page.evaluate(hidden) is None
    seen.row(device).get_by_role("link").click()
    for shown in ("\\u202egpj.sh", "\\x9b31m\\u202eforged\\x07", "said\\u061c so"):
        expect(seen.page.get_by_text(shown).first).to_be_visible()
    assert seen.page.evaluate(hidden) is None
    assert seen.broken == []
