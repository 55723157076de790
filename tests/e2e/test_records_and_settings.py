"""The pages about the fleet as a whole: who changed what, taking it back, and the settings."""

from __future__ import annotations

import re
import uuid

import psycopg
import pytest
from playwright.sync_api import expect

from tests.e2e.conftest import MakeDevice, VisitDashboard

pytestmark = pytest.mark.browser


def test_who_changed_what_is_found_and_undone_and_a_row_that_moved_on_is_left_alone(
    visit: VisitDashboard, make_device: MakeDevice, admin: psycopg.Connection
) -> None:
    one, other = make_device("audited"), make_device("audited")
    both = [one.id, other.id]
    admin.execute("update public.devices set segment = 'stable' where id = any (%s)", (both,))
    admin.execute("update public.devices set segment = 'early' where id = %s", (other.id,))
    seen = visit("operator", at="/audit")
    seen.is_live()
    page = seen.page
    page.get_by_label("What").select_option("device")
    page.get_by_label("Device or other name").fill(one.name.upper())
    expect(page.locator("[data-action]").first).not_to_contain_text(other.name)
    page.get_by_label("Device or other name").fill("")
    action = page.locator("[data-action]").filter(has_text=one.name).first
    expect(action).to_contain_text("2 changes at once")
    expect(action).to_contain_text(re.compile(r"segment: ?canary ?→ ?stable"))
    action.get_by_role("button", name="Undo all").click()
    page.get_by_role("button", name="Undo the action").click()
    outcome = page.get_by_role("status").filter(has_text="Undone")
    expect(outcome).to_contain_text("Undone: 1 change. Not undone: 1 change.")
    expect(outcome).to_contain_text(f"device {other.name}: It was changed again since")
    # The undo is the newest change, by this person.
    expect(page.locator("[data-action]").first).to_contain_text("operator@fleet.example")
    rows = admin.execute("select segment from public.devices where id = any (%s) order by 1", (both,))
    assert rows.fetchall() == [("canary",), ("early",)]

    viewer = visit("viewer", at="/audit").page
    expect(viewer.locator("[data-action]").first).to_be_visible()
    expect(viewer.get_by_role("button", name=re.compile("^Undo"))).to_have_count(0)
    assert seen.broken == []


def test_a_hostile_name_in_the_log_is_text(visit: VisitDashboard, admin: psycopg.Connection) -> None:
    name = f"w{uuid.uuid4().hex[:8]}"
    text = "<img src=x onerror=\"document.title='owned'\">"
    admin.execute(
        "insert into public.segments (name, description) values (%s, %s)",
        (name, text),
    )
    seen = visit("viewer", at="/audit")
    expect(seen.page.get_by_text(text).first).to_be_visible()
    assert "owned" not in seen.page.title()


def test_an_admin_changes_a_setting_and_a_second_tab_is_told_whose_value_is_newer(
    visit: VisitDashboard, admin: psycopg.Connection
) -> None:
    first, second = visit("admin", at="/settings"), visit("admin", at="/settings")
    operator = visit("operator", at="/settings").page
    for seen in (first, second):
        seen.is_live()
        seen.page.get_by_role("button", name="Edit").click()
    field = "Clock drift"
    first.page.get_by_label(field).fill("90")
    first.page.get_by_role("button", name="Save").click()
    expect(first.page.locator('[data-setting="clock_drift_s"] dd')).to_have_text("90")
    expect(operator.locator('[data-setting="clock_drift_s"] dd')).to_have_text("90")
    expect(operator.get_by_role("button", name="Edit")).to_have_count(0)

    expect(second.page.get_by_role("status").filter(has_text="Changed by somebody else")).to_contain_text(
        "clock drift is now 90"
    )
    second.page.get_by_label(field).fill("120")
    second.page.get_by_role("button", name="Save").click()
    expect(second.page.locator('[data-conflict="clock_drift_s"]')).to_contain_text(
        "yours is 120, theirs is 90"
    )
    second.page.get_by_role("button", name="Use mine").click()
    second.page.get_by_label("Max in flight").fill("0")
    second.page.get_by_role("button", name="Save").click()
    expect(second.page.get_by_role("alert")).to_contain_text("max_in_flight must be 1 or more, or empty")
    second.page.get_by_label("Max in flight").fill("")
    second.page.get_by_role("button", name="Save").click()
    expect(second.page.locator('[data-setting="clock_drift_s"] dd')).to_have_text("120")
    admin.execute("update public.fleet_settings set clock_drift_s = 60 where id")
    for seen in (first, second):
        assert seen.broken == []
