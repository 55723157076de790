"""Compose projects of this process alone: two sessions on one Docker engine must not share one."""

from __future__ import annotations

import secrets

_OURS = secrets.token_hex(3)


def own(name: str) -> str:
    """The Compose project, or the name of an image, that nobody else uses for `name`."""
    return f"eng-{name}-{_OURS}"
