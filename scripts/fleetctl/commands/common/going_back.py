"""How a release would be taken back: from how many devices, and under which limits."""

from __future__ import annotations

from typing import Any

from fleetctl.commands.common.context import Context


def going_back(context: Context, release_id: str, *, all_at_once: bool) -> dict[str, Any]:
    """What preview_going_back() says; `summary` says also that limits do not count."""
    told: dict[str, Any] = context.api.ask("preview_going_back", release_id=release_id)
    if all_at_once:
        told["summary"] = f"{told['devices']} devices run {told['version']}. They go back all at once."
    return told
