"""How a release would be taken back: from how many devices, and under which limits."""

from __future__ import annotations

from typing import Any

from fleetctl.commands.common.context import Context


def going_back(
    context: Context, release_id: str, *, all_at_once: bool, by_halt: bool, rollout_id: str | None = None
) -> dict[str, Any]:
    """What preview_going_back() says of a halt (of the release, or of one rollout of it) or a withdrawal."""
    told: dict[str, Any] = context.api.ask(
        "preview_going_back",
        release_id=release_id, by_halt=by_halt, rollout_id=rollout_id, all_at_once=all_at_once,
    )  # fmt: skip
    return told
