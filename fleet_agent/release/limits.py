"""How much a release may take: bytes, files, seconds."""

from __future__ import annotations

import shutil
from dataclasses import dataclass
from pathlib import Path

from fleet_agent.errors import ReleaseError, disk_full
from fleet_agent.support.retry import FETCH
from fleet_agent.support.sizes import MIB


@dataclass(frozen=True)
class Limits:
    """Defaults suit a small device. Sizes in bytes, times in seconds.

    `batch_files` bounds what a broken connection can cost if the host serves partial clones: files arrive in
    batches, each is kept once it is here, and batches shrink while the connection keeps breaking.
    """

    min_free: int = 64 * MIB
    release_size: int = 512 * MIB
    release_files: int = 20_000
    file_size: int = 256 * MIB
    idle_s: float = 120.0
    total_s: float = 3600.0
    attempts: int = FETCH.attempts
    backoff_s: float = FETCH.base_s
    backoff_cap_s: float = FETCH.cap_s
    batch_files: int = 256


DEFAULTS = Limits()


def need_space(folder: Path, needed: int, min_free: int, purpose: str) -> None:
    """Check that `needed` bytes fit beside `min_free`. Raises ReleaseError (`disk_full`)."""
    there = next(parent for parent in (folder, *folder.parents) if parent.exists())
    free = shutil.disk_usage(there).free
    wanted = needed + min_free
    if free < wanted:
        raise disk_full(
            f"{free // MIB} MiB are free and {wanted // MIB} MiB are needed {purpose}",
            error=ReleaseError,
            evidence={"free_bytes": free, "needed_bytes": wanted},
        )
