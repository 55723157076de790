"""The device list and the device page follow the fleet by themselves."""

from __future__ import annotations

import re
from collections.abc import Callable

import pytest
from playwright.sync_api import Page, expect

from tests.e2e.conftest import MakeDevice, VisitDashboard

pytestmark = pytest.mark.browser


def test_a_device_that_reports_changes_its_row_without_reload(
    visit: VisitDashboard, make_device: MakeDevice, make_release: Callable[[str], str]
) -> None:
    """Polling is an hour away and no list is read again, so what changes came by the live channel."""
    release = make_release("v1-live")
    device = make_device("lobby")
    device.reports(state="healthy", current_release=release)
    seen = visit("viewer")
    row = seen.row(device)
    expect(row).to_contain_text("Healthy")
    expect(row).to_contain_text("v1-live")
    seen.is_live()
    seen.page.evaluate("globalThis.sameDocument = true")
    seen.asked.clear()

    device.reports(
        state="degraded", current_release=release, error_kind="unhealthy", error="web does not answer."
    )

    expect(row).to_contain_text("Degraded")
    expect(row).to_contain_text("web does not answer.")
    assert seen.page.evaluate("globalThis.sameDocument") is True
    # One page of the list, and the counts: nothing for each device.
    names = [url.partition("/rest/v1/")[2].partition("?")[0] for url in seen.asked]
    assert set(names) <= {"rpc/list_devices", "fleet_overview"}
    assert len(names) <= 4, names
    assert seen.broken == []


def test_a_device_that_joins_shows_up_without_reload(visit: VisitDashboard, make_device: MakeDevice) -> None:
    make_device("first")
    seen = visit("viewer")
    seen.is_live()
    joined = make_device("joined")
    expect(seen.row(joined)).to_contain_text("Never seen")


def test_without_the_live_channel_polling_catches_up_and_the_page_says_so(
    visit: VisitDashboard, make_device: MakeDevice
) -> None:
    def cut_websockets(page: Page) -> None:
        page.route_web_socket(re.compile("/realtime/"), lambda socket: socket.close(code=1011))

    device = make_device("roof")
    device.reports(state="healthy")
    seen = visit("viewer", poll_s=5, prepare=cut_websockets)
    expect(seen.row(device)).to_contain_text("Healthy")
    expect(seen.page.locator("[data-connection]")).to_have_attribute("data-connection", "Polling")
    device.reports(state="isolated", reason="The Git host does not answer.")
    expect(seen.row(device)).to_contain_text("Isolated")


def test_data_that_cannot_be_read_again_is_called_stale(
    visit: VisitDashboard, make_device: MakeDevice
) -> None:
    def cut_websockets(page: Page) -> None:
        page.route_web_socket(re.compile("/realtime/"), lambda socket: socket.close(code=1011))

    device = make_device("roof")
    seen = visit("viewer", prepare=cut_websockets)
    expect(seen.row(device)).to_be_visible()
    seen.page.route("**/rest/v1/**", lambda route: route.abort())
    seen.page.get_by_role("button", name=re.compile("connection status")).click()
    seen.page.get_by_role("button", name="Refresh now").click()
    expect(seen.page.locator("[data-connection]")).to_have_attribute("data-connection", "Stale")
    expect(seen.row(device)).to_be_visible()


def test_the_device_page_shows_gates_and_history_and_follows_both(
    visit: VisitDashboard, make_device: MakeDevice, make_release: Callable[[str], str]
) -> None:
    old, new = make_release("v1-page"), make_release("v2-page")
    device = make_device("kiosk")
    device.reports(state="healthy", current_release=old)
    seen = visit("viewer")
    seen.row(device).get_by_role("link").click()
    page = seen.page
    expect(page.get_by_role("heading", name=device.name)).to_be_visible()
    expect(page.locator('[data-gate="device_state"]')).to_have_attribute("data-verdict", "pass")
    expect(page.locator('[data-gate="release"]')).to_contain_text("v2-page is the newest of branch main.")
    expect(page.get_by_text("No update attempts yet.")).to_be_visible()
    seen.is_live()

    device.tried(
        release_id=new, to_commit="b" * 40, outcome="rolled_back", failed_phase="probation",
        error_kind="unhealthy", error="web did not answer.",
        phase_durations_ms={"probation": 6000, "fetching": 2500},
    )  # fmt: skip

    attempt = page.locator('[data-outcome="rolled_back"]')
    expect(attempt).to_contain_text("v2-page")
    expect(attempt).to_contain_text("took 8.5 s")
    expect(attempt).to_contain_text("In phase probation: web did not answer.")
    expect(attempt.get_by_role("listitem")).to_have_text(["fetching 2.5 s", "probation (failed) 6.0 s"])
    expect(page.locator('[data-gate="known_bad"]')).to_have_attribute("data-verdict", "refuse")
    assert seen.broken == []
