"""How machines join, from the dashboard: by a token, or compared and let in by a person."""

from __future__ import annotations

import base64
import re
import uuid

import httpx
import psycopg
import pytest
from playwright.sync_api import expect

from fleet_agent.support.fingerprint import fingerprint
from fleetctl.stack.local_stack import LocalStack
from tests.e2e.conftest import VisitDashboard

pytestmark = pytest.mark.browser


def waiting(admin: psycopg.Connection, prefix: str) -> tuple[str, str]:
    """Name and key of a device that asks to join."""
    name = f"{prefix}-{uuid.uuid4().hex[:8]}"
    key = base64.urlsafe_b64encode(uuid.uuid4().bytes + uuid.uuid4().bytes).rstrip(b"=").decode()
    admin.execute(
        "insert into public.devices (name, role, state, public_key) values (%s, 'beacon', 'pending', %s)",
        (name, key),
    )
    return name, key


def test_devices_are_compared_then_let_in_or_refused_many_at_once(
    visit: VisitDashboard, admin: psycopg.Connection
) -> None:
    mine = [waiting(admin, "mine"), waiting(admin, "mine")]
    stranger, _ = waiting(admin, "stranger")
    seen = visit("operator", at="/provisioning")
    seen.is_live()
    page = seen.page
    for name, key in mine:
        expect(page.locator(f'[data-pending="{name}"]')).to_contain_text(fingerprint(key))
        page.get_by_label(f"Select {name}").check()
    page.get_by_role("button", name="Accept 2 devices").click()
    question = page.get_by_role("dialog")
    for name, key in mine:
        expect(question).to_contain_text(f"{name} {fingerprint(key)}")
    question.get_by_role("button", name="Accept 2 devices").click()
    expect(page.get_by_role("status").filter(has_text="Accepted 2 devices.")).to_be_visible()

    page.get_by_label(f"Select {stranger}").check()
    page.get_by_role("button", name="Refuse 1 device").click()
    page.get_by_role("dialog").get_by_role("button", name="Refuse 1 device").click()
    expect(page.locator("[data-pending]")).to_have_count(0)
    states = admin.execute(
        "select name, state::text from public.devices where name = any (%s) order by 1",
        ([stranger, *(name for name, _ in mine)],),
    ).fetchall()
    assert states == sorted((name, "active") for name, _ in mine)
    expect(page.get_by_role("button", name="New token")).to_have_count(0)
    assert seen.broken == []


def test_a_token_is_shown_once_as_a_line_that_enrolls_and_can_be_revoked(
    stack: LocalStack, visit: VisitDashboard
) -> None:
    seen = visit("admin", at="/provisioning")
    seen.is_live()
    page = seen.page
    note = f"canteen {uuid.uuid4().hex[:8]}"
    page.get_by_role("button", name="New token").click()
    page.get_by_label("Note").fill(note)
    page.get_by_role("button", name="Make token").click()
    line = page.get_by_test_id("enroll-line").inner_text()
    found = re.fullmatch(r"fleet-agent enroll --url (\S+) --key (\S+) --token (fpt_\w+)", line)
    assert found is not None, line
    assert found[2] == stack.publishable_key
    assert httpx.get(f"{found[1]}/auth/v1/health", headers={"apikey": found[2]}).status_code == 200
    expect(page.get_by_role("img", name="The same line as a QR code")).to_be_visible()
    page.get_by_role("button", name="Done").click()
    expect(page.get_by_text(found[3])).to_have_count(0)

    row = page.locator("[data-token]").filter(has_text=note)
    expect(row).to_contain_text("0 of 1 device joined")
    row.get_by_role("button", name="Revoke").click()
    page.get_by_role("button", name="Revoke the token").click()
    expect(row).to_have_attribute("data-token", "revoked")
    assert seen.broken == []
