"""The page's Content-Security-Policy refuses nothing that the page does: all routes, all dialogs."""

from __future__ import annotations

import re
import uuid
from collections.abc import Callable
from typing import Any

import psycopg
import pytest
from playwright.sync_api import Page, expect

from fleetctl.stack.local_stack import LocalStack
from tests.conftest import ROOT
from tests.e2e.conftest import MakeDevice, VisitDashboard

pytestmark = pytest.mark.browser

#: Buttons that end the walk.
_LEAVING = re.compile("sign out", re.IGNORECASE)
#: What a click changes is on the screen, unless it loads something.
_SETTLED = "() => new Promise((done) => requestAnimationFrame(() => requestIdleCallback(done)))"
_LISTEN = """
document.addEventListener("securitypolicyviolation", (event) =>
  report(`${event.violatedDirective} ${event.blockedURI} ${event.sourceFile}:${event.lineNumber}`));
"""


def routes() -> list[str]:
    """Of every page: web/src/app/routes.tsx is the one list."""
    found = re.findall(r'^    path: "(/[^"]*)"', (ROOT / "web/src/app/routes.tsx").read_text(), re.MULTILINE)
    assert len(found) >= 3
    return found


def test_no_page_and_no_dialog_breaks_the_policy(
    stack: LocalStack,
    visit: VisitDashboard,
    make_device: MakeDevice,
    make_release: Callable[[str], str],
    admin: psycopg.Connection,
) -> None:
    device = make_device("policy")
    device.reports(state="degraded", current_release=make_release(f"v1-{uuid.uuid4().hex[:8]}"))
    admin.execute(
        "insert into public.alerts (kind, severity, device_id, summary)"
        " values ('clock_drift', 'warning', %s, 'x')",
        (device.id,),
    )
    reports: list[str] = []
    opened: list[str] = []

    def listen(page: Page) -> None:
        page.context.expose_function("report", lambda text: reports.append(text))  # noqa: PLW0108  no builtin
        page.context.add_init_script(_LISTEN)

    seen = visit("admin", prepare=listen)
    page = seen.page
    seen.is_live()
    policies = page.request.get(stack.dashboard_url).headers["content-security-policy"]
    socket = stack.dashboard_url.rstrip("/").replace("http", "ws", 1)
    assert f"connect-src 'self' {socket};" in policies
    assert "unsafe-inline" not in policies and policies.endswith("frame-ancestors 'none'")
    # The dialogs' code is loaded at the first one.
    page.get_by_role("button", name="Emergency stop").click()
    expect(page.get_by_role("dialog")).to_be_visible()
    page.keyboard.press("Escape")
    for route in routes():
        page.goto(f"{stack.dashboard_url}#{route.replace(':id', _an_id(page, stack, route, device.id))}")
        opened += _open_everything(page)
        assert reports == [], route
    assert len(opened) >= 3, opened
    # The test would see one.
    page.evaluate(
        "document.body.append(Object.assign(document.createElement('style'), {textContent: 'b{}'}))"
    )
    page.wait_for_function("true")
    assert reports and reports[0].startswith("style-src-elem inline"), reports
    assert seen.broken == []


def _an_id(page: Page, stack: LocalStack, route: str, device: str) -> str:
    """What `:id` of a page may be: of a device, or what the page's list links to first."""
    folder = route.split("/:id", 1)[0]
    if folder == "/devices":
        return device
    page.goto(f"{stack.dashboard_url}#{folder}")
    links: list[Any] = page.locator(f'#main a[href*="#{folder}/"]').all()
    return links[0].get_attribute("href").rsplit("/", 1)[1] if links else str(uuid.uuid4())


def _loaded(page: Page) -> None:
    page.evaluate(_SETTLED)
    expect(page.locator("#main h1").first).to_be_visible()
    expect(page.locator("#main .mantine-Loader-root")).to_have_count(0)
    page.evaluate(_SETTLED)


def _open_everything(page: Page) -> list[str]:
    """Click every button, and close what opens; the names of those that opened a dialog."""
    _loaded(page)
    opened = []
    here = page.url
    names = page.get_by_role("button", disabled=False).evaluate_all(
        "(all) => all.map((one) => one.textContent || one.ariaLabel)"
    )
    for name in dict.fromkeys(names):
        button = page.locator("button").filter(has_text=name).first
        if not name or _LEAVING.search(name) or not button.count():
            continue
        # By script, because a pointer would wait for what lies above it.
        button.evaluate("(button) => button.click()")
        page.evaluate(_SETTLED)
        if page.locator(".modal").count():
            expect(page.get_by_role("dialog").first).to_be_visible()
            assert page.evaluate("getComputedStyle(document.documentElement).overflow") == "hidden"
            opened.append(name)
            page.keyboard.press("Escape")
            expect(page.locator(".modal")).to_have_count(0)
        if page.url != here:
            page.goto(here)
            _loaded(page)
    return opened
