"""Where a Git host on this machine redirects to, if releases may be fetched from there.

Git itself follows redirects of an https address, and only to https. Plain http is for this machine only, and
Git cannot be told to stay there: so it follows none, and the agent looks.
"""

from __future__ import annotations

import http.client
from urllib.parse import urljoin, urlsplit

from fleet_agent.config import git_url_problem

_ASKS = "/info/refs?service=git-upload-pack"
_PATIENCE_S = 20.0


def redirected(url: str) -> str | None:
    """The address that `url` redirects to; None if it is not http, or not to where an address may lead."""
    parts = urlsplit(url)
    if parts.scheme != "http" or git_url_problem(url) is not None:
        return None
    connection = http.client.HTTPConnection(parts.hostname or "", parts.port, timeout=_PATIENCE_S)
    try:
        connection.request("GET", parts.path + _ASKS)
        location = connection.getresponse().getheader("Location") or ""
    except (OSError, http.client.HTTPException):
        return None
    finally:
        connection.close()
    place, found, rest = urljoin(url + _ASKS, location).partition(_ASKS)
    there = found and not rest and place.startswith(("http://", "https://"))
    return place if there and git_url_problem(place) is None else None
