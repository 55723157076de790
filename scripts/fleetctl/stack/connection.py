"""Where the stack of a folder answers, and with which keys: light, for commands that only talk to it."""

from __future__ import annotations

import http.client
import json
from dataclasses import dataclass
from pathlib import Path
from urllib.parse import urlsplit

from fleetctl.stack.keys import Keys
from fleetctl.stack.layout import DataFolder
from fleetctl.stack.lock import is_locked
from fleetctl.stack.state_file import api_url_of, read_state

_PATIENCE_S = 10.0


def address_of(data: Path) -> str | None:
    """Where the folder's stack answers, as it recorded; None if none runs there."""
    try:
        return api_url_of(read_state(DataFolder.at(data)))
    except KeyError:
        return None


def publishable_key_of(data: Path) -> str:
    """The key that devices and the dashboard use."""
    return Keys.load(DataFolder.at(data)).publishable_key


@dataclass(frozen=True)
class Connection:
    """A stack that answers. `fault` says what does not work, in words."""

    api_url: str
    publishable_key: str
    secret_key: str
    fault: str


def connect(data: Path) -> Connection:
    """The stack that runs in a folder. Raises FleetctlError: `not_running`, `unavailable`."""
    folder = DataFolder.at(data)
    api_url = address_of(data)
    failing = _failing(api_url) if api_url is not None and is_locked(folder) else None
    if api_url is None or failing is None:
        # It says in words what is wrong, for which it loads all that makes a stack.
        from fleetctl.stack.local_stack import LocalStack

        found = LocalStack.find(data)
        return Connection(found.api_url, found.publishable_key, found.secret_key, "")
    keys = Keys.load(folder)
    return Connection(
        api_url,
        keys.publishable_key,
        keys.secret_key,
        f"not working: {', '.join(failing)}" if failing else "",
    )


def _failing(api_url: str) -> list[str] | None:
    """The parts that fail; None if the stack does not answer."""
    parts = urlsplit(api_url)
    connection = http.client.HTTPConnection(parts.hostname or "", parts.port, timeout=_PATIENCE_S)
    try:
        connection.request("GET", "/_fleet/health")
        answer = json.loads(connection.getresponse().read())
        return [name for name, part in answer["parts"].items() if part["state"] == "failed"]
    except (OSError, ValueError, KeyError, TypeError, AttributeError, http.client.HTTPException):
        return None
    finally:
        connection.close()
