"""One device: its gates have buttons, edits overwrite nobody, its story is one list."""

from __future__ import annotations

from collections.abc import Callable

import psycopg
import pytest
from playwright.sync_api import expect

from tests.e2e.conftest import MakeDevice, VisitDashboard

pytestmark = pytest.mark.browser


def test_an_edit_of_a_field_that_changed_meanwhile_is_refused_with_both_values(
    visit: VisitDashboard, make_device: MakeDevice, admin: psycopg.Connection
) -> None:
    device = make_device("edited")
    seen = visit("operator", at=f"/devices/{device.id}")
    page = seen.page
    seen.is_live()
    page.get_by_role("button", name="Edit", exact=True).click()
    form = page.locator('[data-form="devices"]')
    form.get_by_label("Segment").select_option("early")
    form.get_by_label("Labels").fill("site=rome")

    # A machine's touch is no conflict, nor is another field; a reload keeps what was typed.
    device.reports(state="healthy")
    admin.execute("update public.devices set timezone = 'Europe/Rome' where id = %s", (device.id,))
    expect(form.get_by_role("status")).to_contain_text("timezone is now Europe/Rome")
    page.reload()
    expect(form.get_by_label("Segment")).to_have_value("early")
    expect(form.get_by_label("Labels")).to_have_value("site=rome")

    # The same field is.
    admin.execute("update public.devices set segment = 'stable' where id = %s", (device.id,))
    form.get_by_role("button", name="Save").click()
    conflict = form.locator('[data-conflict="segment"]')
    expect(conflict).to_contain_text("yours is early, theirs is stable")
    row = "select segment, timezone, labels from public.devices where id = %s"
    assert admin.execute(row, (device.id,)).fetchone() == ("stable", "Europe/Rome", {})
    conflict.get_by_role("button", name="Use mine").click()
    form.get_by_role("button", name="Save").click()
    expect(form).to_have_count(0)
    assert admin.execute(row, (device.id,)).fetchone() == ("early", "Europe/Rome", {"site": "rome"})
    entry = page.get_by_label("Timeline").locator('[data-entry="edit"]').first
    expect(entry).to_contain_text("Changed labels from nothing to site=rome, segment from stable to early.")
    expect(entry).to_contain_text("by operator@fleet.example")
    assert seen.broken == []


def test_gates_have_buttons_for_whoever_may_and_the_timeline_is_one_list(
    visit: VisitDashboard,
    make_device: MakeDevice,
    make_release: Callable[[str], str],
    admin: psycopg.Connection,
) -> None:
    old, new = make_release("v1-gates"), make_release("v2-gates")
    device = make_device("gated")
    device.reports(state="healthy", current_release=old)
    device.tried(
        release_id=new, to_commit="d" * 40, outcome="rolled_back", failed_phase="probation",
        error_kind="unhealthy", error="<b>web</b> did not answer.",
    )  # fmt: skip
    admin.execute("insert into public.halts (scope, target, reason) values ('segment', 'canary', 'smoke')")
    seen = visit("operator", at=f"/devices/{device.id}")
    page = seen.page
    page.locator('[data-gate="halt"]').get_by_role("button", name="Lift halt").click()
    page.get_by_label("Why it is safe to continue").fill("no smoke")
    page.get_by_role("dialog").get_by_role("button").last.click()
    page.locator('[data-gate="known_bad"]').get_by_role("button", name="Try again").click()
    page.get_by_role("dialog").get_by_role("button", name="Try again").click()
    expect(page.locator('[data-gate="known_bad"]')).to_have_attribute("data-verdict", "pass")
    timeline = page.get_by_label("Timeline")
    expect(timeline.locator('[data-entry="attempt"]')).to_contain_text("<b>web</b> did not answer.")
    expect(timeline.locator('[data-entry="halt"]').first).to_contain_text("Lifted: no smoke")
    expect(timeline.locator('[data-entry="retry"]')).to_contain_text("May try v2-gates again.")
    viewer = visit("viewer", at=f"/devices/{device.id}").page
    expect(viewer.get_by_label("Timeline").locator("[data-entry]").first).to_be_visible()
    expect(viewer.locator("[data-gate]").get_by_role("button")).to_have_count(0)
    expect(viewer.get_by_role("button", name="Edit", exact=True)).to_have_count(0)
