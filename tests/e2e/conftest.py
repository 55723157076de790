"""The built dashboard on a running stack, in a real browser, with a cast of people and devices."""

from __future__ import annotations

import json
import os
import re
import uuid
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any

import httpx
import psycopg
import pytest
from playwright.sync_api import Browser, BrowserContext, Page, Route, expect, sync_playwright

from fleetctl.stack.local_stack import LocalStack
from tests.conftest import ROOT, chromium
from tests.stack.conftest import admin, device_jwt, make_operator  # noqa: F401
from tests.support.patience import PATIENCE_S
from tests.support.stack import running_stack
from tests.support.stack_identities import DeviceJwt, MakeOperator

PASSWORD = "correct horse battery"
FLAGS = [
    "--no-sandbox", "--disable-gpu", "--disable-background-networking", "--disable-component-update",
    "--disable-sync",
]  # fmt: skip
# Long enough that no test sees the lists read again: what shows up came by the live channel.
NO_POLLING_S = 3600

# Reduced motion: nothing fades, so nothing has to be waited for.
VIEW: dict[str, Any] = {"viewport": {"width": 1360, "height": 850}, "reduced_motion": "reduce"}

expect.set_options(timeout=PATIENCE_S * 1000)


@pytest.fixture(scope="session")
def stack() -> Iterator[LocalStack]:
    """A running stack that serves the dashboard, built from the sources of this checkout."""
    with running_stack(web=True) as running:
        yield running


@pytest.fixture(scope="module")
def browser(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Browser]:
    """Of one file: Playwright's event loop runs for as long, and no other test here can have one."""
    # Chromium leaves a folder in the home of whoever runs the tests otherwise.
    home = {name: str(tmp_path_factory.mktemp("chromium")) for name in ("XDG_CONFIG_HOME", "XDG_CACHE_HOME")}
    with sync_playwright() as playwright:
        started = playwright.chromium.launch(
            executable_path=chromium(), args=FLAGS, env={**os.environ, **home}
        )
        yield started
        started.close()


@dataclass
class Device:
    """A device of the fleet that reports with its own token, as an agent would."""

    id: str
    name: str
    _stack: LocalStack
    _token: str

    def reports(self, **fields: Any) -> None:
        """Upsert its row of `device_status` over REST."""
        answer = httpx.post(
            f"{self._stack.api_url}/rest/v1/device_status?on_conflict=device_id",
            headers=self._headers | {"Prefer": "resolution=merge-duplicates"},
            json={"device_id": self.id, "agent_version": "0.1.0"} | fields,
        )
        answer.raise_for_status()

    def tried(self, **fields: Any) -> None:
        """Insert a row of `update_history` over REST."""
        row = {
            "id": str(uuid.uuid4()), "device_id": self.id, "agent_version": "0.1.0",
            "started_at": "2026-11-20T10:00:00Z", "finished_at": "2026-11-20T10:00:08.5Z",
        }  # fmt: skip
        httpx.post(
            f"{self._stack.api_url}/rest/v1/update_history", headers=self._headers, json=row | fields
        ).raise_for_status()

    @property
    def _headers(self) -> dict[str, str]:
        return {"apikey": self._stack.publishable_key, "Authorization": f"Bearer {self._token}"}


MakeDevice = Callable[[str], Device]


@pytest.fixture
def make_device(
    stack: LocalStack,
    admin: psycopg.Connection,  # noqa: F811
    device_jwt: DeviceJwt,  # noqa: F811
) -> MakeDevice:
    """`make_device("lobby")` → an active device of the segment canary, with a name of its own."""

    def make(prefix: str) -> Device:
        name = f"{prefix}-{uuid.uuid4().hex[:8]}"
        row = admin.execute(
            "insert into public.devices (name, role, segment, state, public_key)"
            " values (%s, 'beacon', 'canary', 'active', %s) returning id",
            (name, (uuid.uuid4().hex + uuid.uuid4().hex)[:43]),
        ).fetchone()
        assert row is not None
        return Device(str(row[0]), name, stack, device_jwt(row[0]))

    return make


@pytest.fixture
def make_release(admin: psycopg.Connection) -> Callable[[str], str]:  # noqa: F811
    """`make_release("v7")` → the id of a release of main with that version, given to everybody at once."""
    admin.execute("update public.branches set delivery = 'immediate' where name = 'main'")

    def make(version: str) -> str:
        row = admin.execute(
            "insert into public.releases (commit_sha, version) values (%s, %s) returning id",
            ((uuid.uuid4().hex * 2)[:40], version),
        ).fetchone()
        assert row is not None
        return str(row[0])

    return make


@dataclass
class Visit:
    """One person's browser tab, and what it asked the database for."""

    page: Page
    asked: list[str]
    broken: list[str]

    def row(self, device: Device) -> Any:
        return self.page.locator(f'[data-device="{device.name}"]')

    def go(self, path: str) -> None:
        """To another page, as a link in the page would."""
        self.page.evaluate("(path) => { location.hash = path }", path)

    def is_live(self) -> None:
        """Wait until the channel is joined and the lists were read again after that."""
        expect(self.page.locator('[data-connection="Live"][data-loading="false"]')).to_be_visible()


VisitDashboard = Callable[..., Visit]


@dataclass(frozen=True)
class PageRoute:
    """One entry of the dashboard's own list of routes."""

    path: str
    title: str
    minimum: str


def page_routes() -> list[PageRoute]:
    """`web/src/app/routes.tsx`, so that a new page is tested with the others."""
    source = (ROOT / "web" / "src" / "app" / "routes.tsx").read_text(encoding="utf-8")
    entry = r'path: "([^"]+)",\s+title: "([^"]+)",\s+minimum: "([^"]+)"'
    found = [PageRoute(*fields) for fields in re.findall(entry, source)]
    assert len(found) == source.count("page: lazy("), "an entry is written in another way"
    return found


@pytest.fixture(scope="session")
def sessions() -> dict[str, Any]:
    """What a browser keeps of each rank's first sign-in, so that the next visit is signed in already."""
    return {}


@pytest.fixture
def visit(
    stack: LocalStack,
    browser: Browser,
    sessions: dict[str, Any],
    make_operator: MakeOperator,  # noqa: F811
) -> Iterator[VisitDashboard]:
    """`visit("operator")` → that rank's dashboard, signed in; rank "stranger" has no row in operators.

    `at` is the page's path; `prepare` gets the page before it loads anything; further keywords go to the
    browser's context.
    """
    contexts: list[BrowserContext] = []

    def open_dashboard(
        rank: str | None,
        *,
        at: str = "/devices",
        poll_s: int = NO_POLLING_S,
        prepare: Callable[[Page], None] = lambda page: None,
        **context: Any,
    ) -> Visit:
        known = sessions.get(rank or "")
        options: dict[str, Any] = VIEW | {"storage_state": known} | context
        opened = browser.new_context(**options)
        opened.set_default_timeout(PATIENCE_S * 1000)
        contexts.append(opened)
        page = opened.new_page()
        seen = Visit(page, asked=[], broken=[])
        page.on(
            "request", lambda request: seen.asked.append(request.url) if "/rest/v1/" in request.url else None
        )
        page.on("pageerror", lambda error: seen.broken.append(str(error)))
        page.route("**/config.json", lambda route: _give_config(route, stack, poll_s))
        prepare(page)
        page.goto(f"{stack.dashboard_url}#{at}")
        if rank is not None and known is None:
            email = f"{rank}@fleet.example"
            make_operator(email, None if rank == "stranger" else rank)
            page.get_by_label("Email address").fill(email)
            page.get_by_role("textbox", name="Password").fill(PASSWORD)
            page.get_by_role("button", name="Sign in").click()
            expect(page.get_by_role("button", name="Sign in")).to_have_count(0)
            if rank != "stranger":
                sessions[rank] = opened.storage_state()
        return seen

    yield open_dashboard
    for context in contexts:
        context.close()


def _give_config(route: Route, stack: LocalStack, poll_s: int) -> None:
    config = {"supabaseUrl": "", "publishableKey": stack.publishable_key, "pollSeconds": poll_s}
    route.fulfill(status=200, content_type="application/json", body=json.dumps(config))
