"""Where the stack of a folder answers, and with which keys: light, for commands that only talk to it."""

from __future__ import annotations

from pathlib import Path

from fleetctl.stack.keys import Keys
from fleetctl.stack.layout import DataFolder
from fleetctl.stack.state_file import api_url_of, read_state


def address_of(data: Path) -> str | None:
    """Where the folder's stack answers, as it recorded; None if none runs there."""
    try:
        return api_url_of(read_state(DataFolder.at(data)))
    except KeyError:
        return None


def publishable_key_of(data: Path) -> str:
    """The key that devices and the dashboard use."""
    return Keys.load(DataFolder.at(data)).publishable_key
