"""The dashboard as files for any static host: the build, `config.json`, and the policy for that project."""

from __future__ import annotations

import html
import json
import re
import shutil
from pathlib import Path
from urllib.parse import urlsplit

from fleetctl.errors import FleetctlError
from fleetctl.stack import dashboard
from fleetctl.stack.deno import find_deno
from fleetctl.stack.layout import Project

_META = re.compile(r'<meta http-equiv="Content-Security-Policy" content="([^"]*)">')
#: The policy is the build's own: it alone knows the hash of its style element.
_CONNECT = re.compile(r"connect-src [^;]*")
_YEAR_S = 31_536_000


def build_and_export(
    folder: Path, api_url: str, publishable_key: str, *, poll_seconds: int | None = None
) -> list[Path]:
    """Build this checkout's dashboard if its sources changed, and export it."""
    project = Project.find()
    log = project.web / "node_modules" / ".dashboard-build.log"
    dashboard.build(project, find_deno(), log, lambda line: None)
    return export(project.web / "dist", folder, api_url, publishable_key, poll_seconds=poll_seconds)


def export(
    dist: Path, folder: Path, api_url: str, publishable_key: str, *, poll_seconds: int | None = None
) -> list[Path]:
    """Copy the built dashboard in `dist` to `folder`, for the project at `api_url`; return what it wrote.

    Writing over an earlier export is fine. Raises FleetctlError `url_malformed`, `key_is_secret`,
    `dashboard_not_built`, `export_failed`.
    """
    origin = _origin(api_url)
    if publishable_key.startswith("sb_secret_"):
        raise FleetctlError(
            "key_is_secret",
            "This is a secret key, and everyone who opens the dashboard would read it.",
            hint="Give the publishable key (sb_publishable_…).",
            exit_code=2,
        )
    try:
        page = (dist / "index.html").read_text()
        found = _META.search(page)
    except OSError:
        found = None
    if found is None:
        raise FleetctlError(
            "dashboard_not_built",
            f"{dist} does not contain a built dashboard.",
            hint="Build it: cd web && deno task build",
        )
    narrow = _narrowed(html.unescape(found[1]), origin)
    meta = f'<meta http-equiv="Content-Security-Policy" content="{html.escape(narrow)}">'
    config: dict[str, str | int] = {"supabaseUrl": origin, "publishableKey": publishable_key}
    if poll_seconds is not None:
        config["pollSeconds"] = poll_seconds
    # Browsers ignore this directive in a page.
    policy = f"{narrow}; frame-ancestors 'none'"
    texts = {
        "index.html": page.replace(found[0], meta),
        "config.json": json.dumps(config, indent=2) + "\n",
        "_headers": _netlify(policy),
        "headers.nginx.conf": _nginx(policy),
        "headers.Caddyfile": _caddy(policy),
    }
    try:
        if folder.resolve() != dist.resolve():
            shutil.copytree(dist, folder, dirs_exist_ok=True, ignore=shutil.ignore_patterns(".*"))
        for name, text in texts.items():
            (folder / name).write_text(text)
    except OSError as error:
        raise FleetctlError(
            "export_failed", f"{folder} cannot be written: {error.strerror}.", hint="Choose another folder."
        ) from error
    return [folder / name for name in texts]


def _origin(api_url: str) -> str:
    parts = urlsplit(api_url.strip())
    if parts.scheme not in ("http", "https") or not re.fullmatch(r"[\w.:\[\]-]+", parts.netloc):
        raise FleetctlError(
            "url_malformed",
            f"{api_url!r} is not the URL of a project.",
            hint="It looks like https://abcdefghijklmnop.supabase.co",
            exit_code=2,
        )
    return f"{parts.scheme}://{parts.netloc}"


def _narrowed(policy: str, origin: str) -> str:
    """Connections to this project alone, over http and websockets; `'self'` is for `config.json`."""
    socket = origin.replace("http", "ws", 1)
    return _CONNECT.sub(f"connect-src 'self' {origin} {socket}", policy)


def _headers(policy: str) -> dict[str, str]:
    return {
        "Content-Security-Policy": policy,
        "X-Content-Type-Options": "nosniff",
        "Referrer-Policy": "no-referrer",
        "Strict-Transport-Security": f"max-age={_YEAR_S}",
    }


def _netlify(policy: str) -> str:
    """As Netlify and Cloudflare Pages read it from the folder that they serve."""
    lines = ["/*", *(f"  {name}: {value}" for name, value in _headers(policy).items())]
    lines += ["/assets/*", f"  Cache-Control: public, max-age={_YEAR_S}, immutable"]
    lines += ["/config.json", "  Cache-Control: no-store"]
    return "\n".join(lines) + "\n"


def _nginx(policy: str) -> str:
    """For the `server` block; a `location` with an `add_header` of its own does not inherit these."""
    always = [f'add_header {name} "{value}" always;' for name, value in _headers(policy).items()]
    lines = [
        "# In the server block that serves this folder over https: include …/headers.nginx.conf;",
        *always,
        "location /assets/ {",
        *(f"    {line}" for line in always),
        f'    add_header Cache-Control "public, max-age={_YEAR_S}, immutable" always;',
        "}",
        "location = /config.json {",
        *(f"    {line}" for line in always),
        '    add_header Cache-Control "no-store" always;',
        "}",
    ]
    return "\n".join(lines) + "\n"


def _caddy(policy: str) -> str:
    lines = [
        "# In the site block that serves this folder: import …/headers.Caddyfile",
        "header {",
        *(f'\t{name} "{value}"' for name, value in _headers(policy).items()),
        "}",
        f'header /assets/* Cache-Control "public, max-age={_YEAR_S}, immutable"',
        'header /config.json Cache-Control "no-store"',
    ]
    return "\n".join(lines) + "\n"
