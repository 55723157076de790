"""How much a release may take: bytes, files, seconds."""

from __future__ import annotations

import shutil
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from fleet_agent.errors import Kind, ReleaseError, disk_full
from fleet_agent.support.retry import FETCH
from fleet_agent.support.sizes import MIB


@dataclass(frozen=True)
class Limits:
    """Defaults suit a small device. Sizes in bytes, times in seconds.

    `batch_files` bounds what a broken connection can cost if the host serves partial clones: files arrive in
    batches, each is kept once it is here, and batches shrink while the connection keeps breaking.

    `fetch_size` and `memory` hold whatever the host sends, before anything was verified: what one fetch may
    add to the repository, and the address space of each Git process. A host that sends commits whole sends
    all roles, so the first is more than a release may have.
    """

    min_free: int = 64 * MIB
    release_size: int = 512 * MIB
    release_files: int = 20_000
    file_size: int = 256 * MIB
    fetch_size: int = 1024 * MIB
    memory: int = 192 * MIB
    idle_s: float = 120.0
    total_s: float = 3600.0
    attempts: int = FETCH.attempts
    backoff_s: float = FETCH.base_s
    backoff_cap_s: float = FETCH.cap_s
    batch_files: int = 256


DEFAULTS = Limits()
#: A commit with a signature has a few kilobytes; all of it is read into memory.
COMMIT_SIZE = MIB
#: What a Git command may answer: the list of all files of a release is a few megabytes.
ANSWER_SIZE = 16 * MIB


def too_large(why: str, **more: Any) -> ReleaseError:
    """The error for a release that is more than a device takes."""
    return ReleaseError(
        Kind.RELEASE_TOO_LARGE,
        f"The release is refused: {why}.",
        hint="Put large data in images or volumes, not in the fleet repository.",
        **more,
    )


def free_bytes(folder: Path) -> int:
    """How much is free where `folder` is, or will be."""
    there = next(parent for parent in (folder, *folder.parents) if parent.exists())
    return shutil.disk_usage(there).free


def need_space(folder: Path, needed: int, min_free: int, purpose: str) -> None:
    """Check that `needed` bytes fit beside `min_free`. Raises ReleaseError (`disk_full`)."""
    free = free_bytes(folder)
    wanted = needed + min_free
    if free < wanted:
        raise disk_full(
            f"{free // MIB} MiB are free and {wanted // MIB} MiB are needed {purpose}",
            error=ReleaseError,
            evidence={"free_bytes": free, "needed_bytes": wanted},
        )
