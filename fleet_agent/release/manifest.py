"""What an exported release consists of, and whether a folder on disk still matches."""

from __future__ import annotations

import hashlib
import os
import stat
from collections.abc import Iterator
from pathlib import Path

from pydantic import BaseModel, ConfigDict, Field
from pydantic import ValidationError as PydanticValidationError

from fleet_agent.errors import Kind, ReleaseError
from fleet_agent.support.sizes import MIB

MANIFEST_FILE = "MANIFEST.sha256"
RELEASE_FILE = "release.json"
#: A file is read in pieces of this size: a device has little memory.
CHUNK_BYTES = MIB


class _Part(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid", strict=True)


class FileEntry(_Part):
    """One file: hash of its content, bytes, permission bits (0o644 or 0o755)."""

    sha256: str = Field(pattern=r"^[0-9a-f]{64}$")
    size: int = Field(ge=0)
    mode: int


class Manifest(_Part):
    """`MANIFEST.sha256`, as JSON. Paths are relative to the release's folder, with `/`."""

    format: int = 1
    commit: str
    role: str
    files: dict[str, FileEntry]
    links: dict[str, str] = Field(default_factory=dict)

    @property
    def size(self) -> int:
        """Bytes of all files."""
        return sum(entry.size for entry in self.files.values())


def check_manifest(release: Path) -> Manifest:
    """Compare every file, mode and link of an exported release with its manifest.

    Raises ReleaseError (`manifest_mismatch`) with what is missing, changed or unknown as evidence.
    """
    manifest = read_manifest(release)
    found_files, found_links = set(), set()
    changed = []
    for path, entry in walk(release):
        name = path.relative_to(release).as_posix()
        if name == MANIFEST_FILE:
            continue
        if entry.is_symlink():
            found_links.add(name)
            if manifest.links.get(name, str(path.readlink())) != str(path.readlink()):
                changed.append(name)
            continue
        found_files.add(name)
        expected = manifest.files.get(name)
        if expected is not None and not _same(path, expected):
            changed.append(name)
    there, listed = found_files | found_links, manifest.files.keys() | manifest.links.keys()
    kind_changed = (found_files & manifest.links.keys()) | (found_links & manifest.files.keys())
    evidence = {
        "missing": sorted(listed - there)[:20],
        "changed": sorted({*changed, *kind_changed})[:20],
        "unknown": sorted(there - listed)[:20],
    }
    if any(evidence.values()):
        first = next(f"{name} {what}" for what, names in evidence.items() for name in names)
        raise _mismatch(release, first, {what: names for what, names in evidence.items() if names})
    return manifest


def read_manifest(release: Path) -> Manifest:
    """Read the manifest alone. Raises ReleaseError (`manifest_mismatch`) if there is none."""
    try:
        raw = (release / MANIFEST_FILE).read_bytes()
    except OSError as error:
        raise _mismatch(release, "its manifest is missing", {}) from error
    try:
        return Manifest.model_validate_json(raw)
    except PydanticValidationError as error:
        raise _mismatch(release, "its manifest cannot be read", {}) from error


def hash_file(path: Path) -> str:
    """SHA-256 of a file's content, hex."""
    digest = hashlib.sha256()
    with path.open("rb") as file:
        while chunk := file.read(CHUNK_BYTES):
            digest.update(chunk)
    return digest.hexdigest()


def walk(folder: Path) -> Iterator[tuple[Path, os.DirEntry[str]]]:
    """Every file and link below `folder`, never following a link."""
    with os.scandir(folder) as entries:
        for entry in sorted(entries, key=lambda item: item.name):
            if entry.is_dir(follow_symlinks=False):
                yield from walk(Path(entry.path))
            else:
                yield Path(entry.path), entry


def _same(path: Path, expected: FileEntry) -> bool:
    try:
        status = path.lstat()
        return (
            stat.S_ISREG(status.st_mode)
            and stat.S_IMODE(status.st_mode) == expected.mode
            and status.st_size == expected.size
            and hash_file(path) == expected.sha256
        )
    except OSError:
        # A file that the disk can no longer read is a changed file.
        return False


def _mismatch(release: Path, what: str, evidence: dict[str, list[str]]) -> ReleaseError:
    return ReleaseError(
        Kind.MANIFEST_MISMATCH,
        f"The release folder {release.name[:12]} is not what was exported: {what}.",
        hint="It will be exported again from Git; if this persists, check the disk.",
        evidence=dict(evidence),
    )
