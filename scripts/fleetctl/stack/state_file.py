"""What the supervisor records about the processes of its stack, for status, down and the next start."""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any

from fleetctl.stack.layout import DataFolder


def write_state(folder: DataFolder, content: Mapping[str, Any]) -> None:
    """Replace the record, readable by its owner alone."""
    # Not fsynced: after a power cut no process of it runs any more.
    temporary = folder.state.with_suffix(".new")
    temporary.touch(mode=0o600)
    temporary.write_text(json.dumps(content, indent=2))
    temporary.replace(folder.state)


def read_state(folder: DataFolder) -> dict[str, Any]:
    """The last record of the supervisor, or {}."""
    try:
        value = json.loads(folder.state.read_text())
    except (OSError, ValueError):
        return {}
    return value if isinstance(value, dict) else {}


def api_url_of(state: Mapping[str, Any]) -> str:
    """Where the API of a recorded stack answers. Raises KeyError for a record of none."""
    host = state["host"]
    # An address that means "every interface" is no address to call.
    if host in ("0.0.0.0", "::"):  # noqa: S104
        host = "127.0.0.1"
    return f"http://{f'[{host}]' if ':' in host else host}:{state['ports']['api']}"
