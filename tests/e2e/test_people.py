"""Who gets in, and what each rank may do from the dashboard."""

from __future__ import annotations

import re
from typing import Any

import httpx
import psycopg
import pytest
from playwright.sync_api import expect

from fleet_agent.support.fingerprint import fingerprint
from fleetctl.stack.local_stack import LocalStack
from tests.e2e.conftest import MakeDevice, VisitDashboard

pytestmark = pytest.mark.browser


def test_a_wrong_password_is_refused_in_words(visit: VisitDashboard) -> None:
    page = visit(None).page
    page.get_by_label("Email address").fill("nobody@fleet.example")
    page.get_by_role("textbox", name="Password").fill("wrong")
    page.get_by_role("button", name="Sign in").click()
    expect(page.get_by_role("alert")).to_contain_text("Sign-in failed")
    expect(page.get_by_role("button", name="Sign in")).to_be_enabled()


def test_a_person_without_a_row_in_operators_is_told_what_is_missing(
    visit: VisitDashboard, make_device: MakeDevice
) -> None:
    make_device("secret")
    seen = visit("stranger")
    expect(seen.page.get_by_role("heading", name="Not an operator yet")).to_be_visible()
    expect(seen.page.get_by_text("Ask an admin to run fleetctl operator add")).to_be_visible()
    expect(seen.page.locator("[data-device]")).to_have_count(0)
    seen.page.get_by_role("button", name="Sign out").click()
    expect(seen.page.get_by_role("button", name="Sign in")).to_be_visible()


def test_a_viewer_cannot_halt_from_the_page_nor_past_it(
    stack: LocalStack, visit: VisitDashboard, make_device: MakeDevice
) -> None:
    device = make_device("watched")
    seen = visit("viewer")
    expect(seen.row(device)).to_be_visible()
    expect(seen.page.get_by_role("button", name="Emergency stop")).to_have_count(0)
    seen.row(device).get_by_role("link").click()
    expect(seen.page.locator("[data-gate]").first).to_be_visible()
    expect(seen.page.get_by_role("group", name="Actions")).to_have_count(0)

    session = seen.page.evaluate("JSON.parse(localStorage.getItem('metrica-fleet-session'))")
    answer = _rpc(stack, session["access_token"], "halt_fleet", {"reason": "a viewer tries"})
    assert answer.status_code == 403
    assert answer.json()["details"] == "rank_too_low"


def test_an_operator_stops_the_fleet_after_reading_how_many_and_lifts_it(
    visit: VisitDashboard, make_device: MakeDevice, admin: psycopg.Connection
) -> None:
    make_device("stopped")
    active = admin.execute("select count(*) from public.devices where state = 'active'").fetchone()
    assert active is not None
    devices = "1 device" if active[0] == 1 else f"{active[0]:,} devices"
    seen = visit("operator")
    other = visit("viewer")
    seen.is_live()
    other.is_live()

    page = seen.page
    page.get_by_role("button", name="Emergency stop").click()
    stop = page.get_by_role("button", name=f"Stop updates on {devices}", exact=True)
    expect(stop).to_be_disabled()
    page.get_by_label("Reason").fill("v3 breaks the canteen")
    stop.click()

    for screen in (page, other.page):
        expect(screen.get_by_test_id("halt")).to_contain_text("The whole fleet is halted")
        expect(screen.get_by_test_id("halt")).to_contain_text("v3 breaks the canteen")
    expect(other.page.get_by_role("button", name="Lift")).to_have_count(0)

    page.get_by_role("button", name="Lift").click()
    page.get_by_label("Why it is safe to continue").fill("v4 is good")
    page.get_by_role("button", name=re.compile("Resume updates")).click()
    for screen in (page, other.page):
        expect(screen.get_by_test_id("halt")).to_have_count(0)
    kept = admin.execute(
        "select reason, lift_reason, opened_by = lifted_by from public.halts order by opened_at desc limit 1"
    ).fetchone()
    assert kept == ("v3 breaks the canteen", "v4 is good", True)
    assert seen.broken == other.broken == []


def test_an_operator_accepts_holds_and_suspends_a_device(
    visit: VisitDashboard, make_device: MakeDevice, admin: psycopg.Connection
) -> None:
    device = make_device("applicant")
    admin.execute("alter table public.devices disable trigger check_device")
    admin.execute("update public.devices set state = 'pending' where id = %s", (device.id,))
    admin.execute("alter table public.devices enable trigger check_device")
    seen = visit("operator")
    seen.row(device).get_by_role("link").click()
    page = seen.page

    key = admin.execute("select public_key from public.devices where id = %s", (device.id,)).fetchone()
    assert key is not None
    page.get_by_role("button", name="Accept", exact=True).click()
    # The name is whatever was asked for.
    expect(page.get_by_role("dialog")).to_contain_text(fingerprint(key[0]))
    page.get_by_role("button", name=f"Accept {device.name}").click()
    expect(page.locator('[data-gate="device_state"]')).to_have_attribute("data-verdict", "pass")
    page.get_by_role("button", name="Hold", exact=True).click()
    page.get_by_role("textbox", name="Reason").fill("exhibition until Friday")
    page.get_by_role("button", name=f"Hold {device.name}").click()
    expect(page.locator('[data-gate="hold"]')).to_contain_text("exhibition until Friday")
    expect(page.locator('[data-gate="hold"]')).to_contain_text(
        f"End the hold: fleetctl hold clear {device.name}."
    )
    _do(page, "End hold", "End hold")
    expect(page.locator('[data-gate="hold"]')).to_have_attribute("data-verdict", "pass")
    _do(page, "Suspend", f"Suspend {device.name}")
    expect(page.locator('[data-gate="device_state"]')).to_have_attribute("data-verdict", "refuse")
    state = admin.execute("select state, hold from public.devices where id = %s", (device.id,)).fetchone()
    assert state == ("suspended", False)


def test_an_operator_acknowledges_alerts_and_a_viewer_only_reads_them(
    visit: VisitDashboard, make_device: MakeDevice, admin: psycopg.Connection
) -> None:
    device = make_device("cellar")
    text = f"{device.name} is an hour ahead."
    # Not device_offline: the clock would resolve that, for the device is there.
    seen, other = visit("operator"), visit("viewer")
    seen.is_live()
    other.is_live()
    admin.execute(
        "insert into public.alerts (kind, severity, device_id, summary) values"
        " ('clock_drift', 'warning', %(id)s, %(text)s),"
        " ('lease_expired', 'critical', %(id)s, %(text)s || ' Twice.')",
        {"id": device.id, "text": text},
    )
    for screen in (seen.page, other.page):
        badge = screen.get_by_test_id("alerts-unacknowledged")
        expect(badge).to_contain_text(re.compile(r"^\d+unacknowledged"))
        screen.get_by_role("navigation", name="Pages").get_by_role("link", name="Alerts").click()
        expect(screen.locator("[data-alert]").filter(has_text=device.name)).to_have_count(2)
    expect(other.page.get_by_role("button", name="Acknowledge")).to_have_count(0)

    seen.page.get_by_role("button", name=f"Acknowledge: {text}", exact=True).click()
    expect(seen.page.locator("[data-alert]").filter(has_text="acknowledged by you")).to_contain_text(text)
    expect(other.page.locator("[data-alert]").filter(has_text="acknowledged")).to_contain_text(text)
    stamped = admin.execute(
        "select kind, acknowledged_by is not null from public.alerts where device_id = %s order by kind",
        (device.id,),
    ).fetchall()
    assert stamped == [("clock_drift", True), ("lease_expired", False)]
    seen.page.locator("[data-alert]").filter(has_text=device.name).get_by_role("link").first.click()
    expect(seen.page.get_by_role("heading", name=device.name)).to_be_visible()
    admin.execute("update public.alerts set resolved_at = now() where device_id = %s", (device.id,))
    expect(other.page.locator("[data-alert]").filter(has_text=device.name)).to_have_count(0)
    assert seen.broken == other.broken == []


def test_a_device_in_safe_mode_says_why_and_can_be_told_to_leave(
    visit: VisitDashboard, make_device: MakeDevice, admin: psycopg.Connection
) -> None:
    device = make_device("attic")
    device.reports(
        state="safe_mode", reason="Safe mode: the first release failed.", error_kind="unhealthy",
        error="web did not answer.",
    )  # fmt: skip
    for rank in ("viewer", "operator"):
        page = visit(rank).page
        page.locator(f'[data-device="{device.name}"]').get_by_role("link").click()
        notice = page.get_by_test_id("safe-mode")
        expect(notice).to_contain_text("Safe mode: the first release failed.")
        expect(notice).to_contain_text("Give it a working release")
        leave = notice.get_by_role("button", name="Leave safe mode")
        expect(leave).to_have_count(1 if rank == "operator" else 0)
    leave.click()
    page.get_by_role("dialog").get_by_role("button", name="Leave safe mode").click()
    expect(notice).to_contain_text("Command sent.")
    given = admin.execute(
        "select kind, state, requested_by is not null from public.device_commands where device_id = %s",
        (device.id,),
    ).fetchall()
    assert given == [("leave_safe_mode", "queued", True)]
    device.reports(state="healthy", reason="", error_kind=None, error=None)
    expect(notice).to_have_count(0)


def _do(page: Any, offered: str, confirmed: str) -> None:
    """Press an action, and the button of its question."""
    page.get_by_role("group", name="Actions").get_by_role("button", name=offered, exact=True).click()
    page.get_by_role("dialog").get_by_role("button", name=confirmed, exact=True).click()
    expect(page.get_by_role("dialog")).to_have_count(0)


def _rpc(stack: LocalStack, token: str, name: str, arguments: dict[str, str]) -> httpx.Response:
    return httpx.post(
        f"{stack.api_url}/rest/v1/rpc/{name}",
        headers={"apikey": stack.publishable_key, "Authorization": f"Bearer {token}"},
        json=arguments,
    )
