"""The list of devices: one selector, two kinds of selection, changes of exactly what was shown."""

from __future__ import annotations

import re
import uuid
from collections.abc import Iterator
from pathlib import Path

import psycopg
import pytest
from playwright.sync_api import expect

from tests.e2e.conftest import VisitDashboard

pytestmark = pytest.mark.browser


@pytest.fixture
def cameras(admin: psycopg.Connection) -> Iterator[str]:
    """Twelve devices with one label, seven of which a search finds; answers the label's value."""
    site = f"s{uuid.uuid4().hex[:8]}"
    admin.execute(
        "insert into public.devices (name, role, segment, state, public_key, labels)"
        " select case when n <= 7 then 'cam-' else 'box-' end || %(site)s || '-' || n,"
        " 'beacon', 'stable', 'active',"
        " left(md5(%(site)s || n) || md5(%(site)s || n), 43), jsonb_build_object('site', %(site)s)"
        " from generate_series(1, 12) n",
        {"site": site},
    )
    yield site
    # Out of the lists of other tests.
    admin.execute("update public.devices set state = 'retired' where labels ->> 'site' = %s", (site,))


def test_what_is_changed_is_exactly_what_was_shown_however_it_was_narrowed(
    visit: VisitDashboard, admin: psycopg.Connection, cameras: str
) -> None:
    seen = visit("operator")
    page = seen.page
    page.get_by_label("Filter as text").fill(f"label.site={cameras}")
    page.get_by_label("Filter as text").press("Enter")
    expect(page.get_by_test_id("matching")).to_have_text("12 devices match")
    page.get_by_label("Search").fill("cam-")
    expect(page.get_by_test_id("matching")).to_have_text("7 devices match")
    names = page.locator("[data-device]").evaluate_all("rows => rows.map((row) => row.dataset.device)")
    assert page.url.count("cam-") == 1
    page.get_by_role("button", name="Select all 7 that match").click()
    expect(page.get_by_test_id("selection")).to_have_text("All 7 devices that match are selected.")
    page.get_by_label("Change the selected devices").select_option("hold")
    dialog = page.get_by_role("dialog")
    expect(dialog).to_contain_text("all 7 devices that match")
    dialog.get_by_label("Reason").fill("quiet night")

    # Meanwhile an eighth one matches: nothing is changed.
    admin.execute("update public.devices set name = 'cam-' || name where name = %s", (f"box-{cameras}-8",))
    dialog.get_by_role("button", name="Change 7 devices").click()
    expect(dialog.get_by_role("alert")).to_contain_text(
        "This is about 8 devices now, not 7: nothing was changed."
    )
    held = "select array_agg(name order by name) from public.devices where hold and labels ->> 'site' = %s"
    assert admin.execute(held, (cameras,)).fetchone() == (None,)
    admin.execute(
        "update public.devices set name = substr(name, 5) where name = %s", (f"cam-box-{cameras}-8",)
    )
    dialog.get_by_role("button", name="Change 7 devices").click()
    expect(page.get_by_test_id("bulk-result")).to_contain_text("7 devices of 7 changed.")
    assert admin.execute(held, (cameras,)).fetchone() == (sorted(names),)
    expect(page.locator("[data-device]").first).to_contain_text(", held")

    # These rows only; one of them refuses, the other does not wait for it.
    for name in names[:2]:
        page.get_by_role("checkbox", name=f"Select {name}", exact=True).check()
    expect(page.get_by_test_id("selection")).to_have_text("2 devices selected: these rows only.")
    admin.execute("update public.devices set state = 'suspended' where name = %s", (names[0],))
    page.get_by_label("Change the selected devices").select_option("command")
    page.get_by_role("dialog").get_by_role("button", name="Change 2 devices").click()
    result = page.get_by_test_id("bulk-result")
    expect(result).to_contain_text("1 device of 2 changed, 1 refused.")
    expect(result).to_contain_text(f"{names[0]}: That device is suspended, so it would never read a command.")
    assert seen.broken == []


def test_a_viewer_sees_the_list_and_nothing_that_would_be_refused(
    visit: VisitDashboard, cameras: str, tmp_path: Path, admin: psycopg.Connection
) -> None:
    admin.execute(
        "update public.devices set hardware_model = '=1+1' where name = %s",
        (f"cam-{cameras}-1",),
    )
    page = visit("viewer").page
    page.get_by_label("Search").fill(f"cam-{cameras}-1")
    expect(page.get_by_test_id("matching")).to_have_text(re.compile("^1 device"))
    expect(page.get_by_role("checkbox")).to_have_count(0)
    expect(page.get_by_role("button", name=re.compile("Select all|Emergency"))).to_have_count(0)
    with page.expect_download() as download:
        page.get_by_role("button", name="Download CSV").click()
    path = tmp_path / "devices.csv"
    download.value.save_as(path)
    header, row = path.read_text("utf-8-sig").strip().splitlines()
    assert header.startswith("name,state,role")
    assert row.startswith(f"cam-{cameras}-1,Never seen,beacon,stable")
    assert ",'=1+1," in row
    page.get_by_role("button", name="Clear filters").click()
    page.get_by_role("button", name="Role", exact=True).click()
    expect(page.get_by_role("columnheader", name="Role")).to_have_attribute("aria-sort", "ascending")
    assert "sort=role" in page.url
