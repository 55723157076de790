"""How much of the disk is free, and how much must stay free."""

from __future__ import annotations

import shutil

from fleet_agent.engine.core import Engine
from fleet_agent.errors import ReleaseError, disk_full
from fleet_agent.support.sizes import MIB


def need_space(engine: Engine) -> None:
    """Raises ReleaseError (`disk_full`) if less is free than must stay free."""
    free = free_bytes(engine)
    wanted = engine.config.min_free_bytes
    if free < wanted:
        raise disk_full(
            f"{free // MIB} MiB are free and {wanted // MIB} MiB must stay free",
            error=ReleaseError,
            retryable=True,
            evidence={"free_bytes": free, "needed_bytes": wanted},
        )


def free_bytes(engine: Engine) -> int:
    return shutil.disk_usage(engine.paths.root).free
