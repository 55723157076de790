"""What a commit says about itself: which fleet it is for, and when it was made.

True as far as its signature is: for whoever trusts the key, so ask after `verify`.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from uuid import UUID

from fleet_agent.errors import Kind, ReleaseError
from fleet_agent.model import FLEET_FILE, FleetFile
from fleet_agent.release.repository import CorruptError, Repository

#: It holds one short key.
_FLEET_FILE_SIZE = 4096
_COMMITTER = re.compile(rb"committer .*> (\d{1,12}) [+-]\d{4}")


@dataclass(frozen=True)
class Origin:
    """`fleet_id` is None without a `fleet.json`; `committed_at` is None if the commit has no time."""

    fleet_id: UUID | None
    committed_at: datetime | None


def origin(repository: Path, commit: str) -> Origin:
    """Read it from a fetched commit.

    Raises ReleaseError: `wrong_fleet` if its `fleet.json` names no fleet, `commit_missing` (retryable).
    """
    repo = Repository(repository)
    try:
        said = repo.commit(commit)
        return Origin(_fleet_id(repo, commit), committed_at(said))
    except CorruptError as error:
        raise ReleaseError(
            Kind.COMMIT_MISSING,
            f"The commit {commit[:12]} cannot be read on this device.",
            hint="It will be fetched again.",
            retryable=True,
            evidence={"git": str(error)},
        ) from error


def _fleet_id(repo: Repository, commit: str) -> UUID | None:
    listed = repo.read("ls-tree", "-l", "-z", "--full-tree", commit, "--", FLEET_FILE).rstrip(b"\0")
    if not listed:
        return None
    mode, kind, blob, size = listed.partition(b"\t")[0].decode().split()
    small = kind == "blob" and mode.startswith("100") and int(size) <= _FLEET_FILE_SIZE
    try:
        content = repo.read("cat-file", "blob", blob) if small else b""
        return FleetFile.model_validate_json(content).fleet_id
    except ValueError as error:
        raise ReleaseError(
            Kind.WRONG_FLEET,
            f"The release {commit[:12]} does not say which fleet it is for: {FLEET_FILE} is not valid.",
            hint='It must contain {"fleet_id": "<uuid>"}.',
        ) from error


def committed_at(raw: bytes) -> datetime | None:
    """When a commit was made, as it says itself."""
    head = raw.partition(b"\n\n")[0]
    found = next((match for line in head.split(b"\n") if (match := _COMMITTER.fullmatch(line))), None)
    try:
        return datetime.fromtimestamp(int(found[1]), UTC) if found else None
    except (OverflowError, ValueError, OSError):
        return None
