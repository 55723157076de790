"""What `fleetctl dashboard export` writes: one project, one policy, in the forms that static hosts read."""

from __future__ import annotations

import json
from html import unescape
from pathlib import Path

import pytest

from fleetctl.errors import FleetctlError
from fleetctl.stack.dashboard_export import export

BUILT = (
    "<html><head>\n"
    '    <meta http-equiv="Content-Security-Policy" content="default-src &#39;self&#39;; '
    'connect-src &#39;self&#39; http: https: ws: wss:; style-src &#39;self&#39; &#39;sha256-abc+/=&#39;">\n'
    "</head></html>"
)
NARROW = (
    "default-src 'self'; connect-src 'self' https://abc.supabase.co wss://abc.supabase.co; "
    "style-src 'self' 'sha256-abc+/='"
)
PUBLISHABLE = "sb_publishable_x"


@pytest.fixture
def dist(tmp_path: Path) -> Path:
    dist = tmp_path / "dist"
    (dist / "assets").mkdir(parents=True)
    (dist / "index.html").write_text(BUILT)
    (dist / "assets" / "main.js").write_text("1")
    (dist / ".built-from").write_text("stamp")
    return dist


def test_the_policy_names_one_project_in_every_form(dist: Path, tmp_path: Path) -> None:
    site = tmp_path / "site"
    for url in ("https://other.example/", "https://abc.supabase.co/"):
        export(dist, site, url, PUBLISHABLE, poll_seconds=30)
    assert json.loads((site / "config.json").read_text()) == {
        "supabaseUrl": "https://abc.supabase.co",
        "publishableKey": PUBLISHABLE,
        "pollSeconds": 30,
    }
    page = unescape((site / "index.html").read_text())
    assert f'content="{NARROW}">' in page
    assert "frame-ancestors" not in page
    framed = f"{NARROW}; frame-ancestors 'none'"
    assert f"\n  Content-Security-Policy: {framed}\n" in (site / "_headers").read_text()
    nginx = (site / "headers.nginx.conf").read_text()
    # A location with headers of its own inherits none.
    assert nginx.count(f'add_header Content-Security-Policy "{framed}" always;') == 3
    assert f'\n\tContent-Security-Policy "{framed}"\n' in (site / "headers.Caddyfile").read_text()
    assert (site / "assets" / "main.js").exists()
    assert not (site / ".built-from").exists()
    assert (dist / "index.html").read_text() == BUILT


def test_exporting_over_the_build_itself_can_be_repeated(dist: Path) -> None:
    for url in ("https://abc.supabase.co", "http://127.0.0.1:54321"):
        export(dist, dist, url, PUBLISHABLE)
    page = unescape((dist / "index.html").read_text())
    assert "connect-src 'self' http://127.0.0.1:54321 ws://127.0.0.1:54321;" in page


@pytest.mark.parametrize(
    ("url", "key", "kind"),
    [
        ("abc.supabase.co", PUBLISHABLE, "url_malformed"),
        ("https://", PUBLISHABLE, "url_malformed"),
        ("https://a.example; script-src *", PUBLISHABLE, "url_malformed"),
        ('https://a.example"', PUBLISHABLE, "url_malformed"),
        ("https://abc.supabase.co", "sb_secret_x", "key_is_secret"),
    ],
)
def test_what_does_not_belong_into_it_is_refused(
    dist: Path, tmp_path: Path, url: str, key: str, kind: str
) -> None:
    with pytest.raises(FleetctlError) as refused:
        export(dist, tmp_path / "site", url, key)
    assert refused.value.kind == kind
    assert not (tmp_path / "site").exists()


def test_a_folder_without_a_build_is_said(tmp_path: Path) -> None:
    with pytest.raises(FleetctlError) as refused:
        export(tmp_path, tmp_path / "site", "https://abc.supabase.co", PUBLISHABLE)
    assert refused.value.kind == "dashboard_not_built"
