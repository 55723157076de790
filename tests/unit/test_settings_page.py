"""docs/usage/settings.md is made from the comments of the settings, and each setting has one."""

from __future__ import annotations

from tests.support import settings_page


def test_the_page_is_as_the_code_has_it() -> None:
    assert settings_page.PAGE.read_text(encoding="utf-8") == settings_page.page(), "run `make docs`"
    assert settings_page.LIST.read_text(encoding="utf-8") == settings_page.dashboard_list(), "run `make docs`"


def test_each_setting_says_what_it_means() -> None:
    rows = [*settings_page.fleet_rows(), *settings_page.device_rows()]
    assert len(rows) > 25
    assert [row[0] for row in rows if not row[-1]] == []
