"""Write a fetched release to its folder: complete and durable, or not at all."""

from __future__ import annotations

import hashlib
import json
import os
import shutil
import stat
import subprocess
import tempfile
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from loguru import logger

from fleet_agent.errors import Kind, ReleaseError
from fleet_agent.release import names
from fleet_agent.release.limits import DEFAULTS, Limits, need_space, too_large
from fleet_agent.release.manifest import (
    CHUNK_BYTES,
    MANIFEST_FILE,
    RELEASE_FILE,
    FileEntry,
    Manifest,
    check_manifest,
)
from fleet_agent.release.repository import CorruptError, Repository, check_names, folders, role_missing
from fleet_agent.support import atomic_files
from fleet_agent.support.sizes import MIB

#: Unfinished exports, beside the finished ones; `prune` and the next export remove them.
TEMPORARY_PREFIX = ".export-"
DISCARDED_PREFIX = ".discard-"
_FILE, _EXECUTABLE, _LINK, _SUBMODULE = "100644", "100755", "120000", "160000"
_MODES = {_FILE: 0o644, _EXECUTABLE: 0o755}


@dataclass(frozen=True)
class _Job:
    repo: Repository
    commit: str
    role: str


@dataclass(frozen=True)
class _Entry:
    """One file or link of the commit."""

    path: str
    mode: str
    blob: str
    size: int


def export(
    repository: Path,
    commit: str,
    role: str,
    target: Path,
    *,
    limits: Limits = DEFAULTS,
) -> Manifest:
    """Write `roles/<role>/`, `roles/common/`, `release.json` and `MANIFEST.sha256` of `commit` to `target`.

    A complete export that is there already is checked and kept; a damaged one, or one of another role, is
    replaced. Content is checked against its Git id on the way.

    Raises ReleaseError: `role_missing`, `commit_missing` (not fetched), `release_unsafe`,
    `release_too_large`, `disk_full`; StateError where `target` cannot be written.
    """
    check_names(commit, role)
    kept = _reusable(commit, role, target)
    if kept is not None:
        return kept
    repo = Repository(repository)
    try:
        entries = _entries(repo, commit, role)
        _check_entries(entries, limits)
        need_space(target, sum(entry.size for entry in entries), limits.min_free, "to unpack a release")
        return _write(_Job(repo, commit, role), entries, target)
    except CorruptError as error:
        raise ReleaseError(
            Kind.COMMIT_MISSING,
            f"The release {commit[:12]} is incomplete on this device.",
            hint="It will be fetched again.",
            retryable=True,
            evidence={"git": str(error)},
        ) from error


def _reusable(commit: str, role: str, target: Path) -> Manifest | None:
    if not target.exists():
        return None
    try:
        manifest = check_manifest(target)
    except ReleaseError as error:
        logger.warning("{error} Exporting it again.", error=error.message)
        return None
    return manifest if (manifest.commit, manifest.role) == (commit, role) else None


def _entries(repo: Repository, commit: str, role: str) -> list[_Entry]:
    listed = repo.read("ls-tree", "-r", "-l", "-z", "--full-tree", commit, "--", *folders(role))
    found = []
    for line in listed.split(b"\0")[:-1]:
        facts, raw = line.split(b"\t", 1)
        mode, kind, blob, size = facts.decode().split()
        try:
            path = raw.decode()
        except UnicodeDecodeError as error:
            raise _unsafe(commit, f"{raw!r} is not a UTF-8 name") from error
        if kind == "blob" and not size.isdecimal():
            raise CorruptError(f"{path} ({blob}) is not here")
        found.append(_Entry(path, mode, blob, int(size) if kind == "blob" else 0))
    if not any(entry.path.startswith(f"{folders(role)[0]}/") for entry in found):
        raise role_missing(commit, role)
    return found


def _check_entries(entries: list[_Entry], limits: Limits) -> None:
    """Refuse what must not reach a device's disk, before anything is written."""
    seen = set()
    if limits.release_files < len(entries):
        raise too_large(f"it has {len(entries)} files, at most {limits.release_files} are allowed")
    if (twice := names.collision([entry.path for entry in entries])) is not None:
        raise _unsafe(twice, "it is a file and a folder")
    for entry in entries:
        if entry.mode == _SUBMODULE:
            raise _unsafe(entry.path, "it is a submodule; put its files in the repository")
        if entry.mode not in (*_MODES, _LINK):
            raise _unsafe(entry.path, f"a release may not have mode {entry.mode}")
        if (why := names.unsafe(entry.path)) is not None:
            raise _unsafe(entry.path, why)
        if entry.path in seen:
            raise _unsafe(entry.path, "it appears twice")
        seen.add(entry.path)
        if limits.file_size < entry.size:
            raise too_large(
                f"{entry.path} has {entry.size // MIB} MiB, at most {limits.file_size // MIB} are allowed"
            )
    total = sum(entry.size for entry in entries)
    if limits.release_size < total:
        raise too_large(f"it has {total // MIB} MiB, at most {limits.release_size // MIB} are allowed")


def _write(job: _Job, entries: list[_Entry], target: Path) -> Manifest:
    try:
        atomic_files.make_folder(target.parent)
        _remove_left_overs(target)
        temporary = Path(tempfile.mkdtemp(prefix=f"{TEMPORARY_PREFIX}{job.commit}-", dir=target.parent))
        try:
            temporary.chmod(0o755)
            manifest = _fill(job, entries, temporary)
            _sync_tree(temporary)
            _put_in_place(temporary, target)
        except BaseException:
            shutil.rmtree(temporary, ignore_errors=True)
            raise
    except OSError as error:
        problem = atomic_files.unwritable(target, error)
        if problem.kind is Kind.DISK_FULL:
            raise ReleaseError(problem.kind, problem.message, hint=problem.hint) from error
        raise problem from error
    return manifest


def _fill(job: _Job, entries: list[_Entry], folder: Path) -> Manifest:
    files: dict[str, FileEntry] = {}
    links: dict[str, str] = {}
    # Links last: nothing is ever written through one.
    with job.repo.git.batch("cat-file", "--batch") as cat:
        for entry in sorted(entries, key=lambda item: item.mode == _LINK):
            path = folder / entry.path
            path.parent.mkdir(parents=True, exist_ok=True)
            if entry.mode == _LINK:
                links[entry.path] = _write_link(cat, entry, path, folder)
            else:
                files[entry.path] = _write_file(cat, entry, path)
    _check_links(links, folder, job.role)
    facts = {"format": 1, "commit": job.commit, "role": job.role}
    files[RELEASE_FILE] = _write_text(folder / RELEASE_FILE, json.dumps(facts, indent=2) + "\n")
    manifest = Manifest(commit=job.commit, role=job.role, files=dict(sorted(files.items())), links=links)
    _write_text(folder / MANIFEST_FILE, manifest.model_dump_json(indent=1) + "\n")
    return manifest


def _write_file(cat: subprocess.Popen[bytes], entry: _Entry, path: Path) -> FileEntry:
    git_id, sha256 = _git_hash(entry), hashlib.sha256()
    with path.open("xb") as file:
        for chunk in _content(cat, entry):
            git_id.update(chunk)
            sha256.update(chunk)
            file.write(chunk)
        os.fchmod(file.fileno(), _MODES[entry.mode])
    if git_id.hexdigest() != entry.blob:
        raise CorruptError(f"the content of {entry.path} does not match its id")
    return FileEntry(sha256=sha256.hexdigest(), size=entry.size, mode=_MODES[entry.mode])


def _write_link(cat: subprocess.Popen[bytes], entry: _Entry, path: Path, folder: Path) -> str:
    if entry.size > 4096:
        raise _unsafe(entry.path, "it is a link to a path that is too long")
    raw = b"".join(_content(cat, entry))
    git_id = _git_hash(entry)
    git_id.update(raw)
    if git_id.hexdigest() != entry.blob:
        raise CorruptError(f"the content of {entry.path} does not match its id")
    try:
        place = raw.decode()
    except UnicodeDecodeError as error:
        raise _unsafe(entry.path, "it is a link whose target is not UTF-8") from error
    if not place or "\0" in place or place.startswith("/"):
        raise _unsafe(entry.path, "it is a link that leads out of the release")
    if folder not in Path(os.path.normpath(path.parent / place)).parents:
        raise _unsafe(entry.path, "it is a link that leads out of the release")
    path.symlink_to(place)
    return place


def _check_links(links: dict[str, str], folder: Path, role: str) -> None:
    """With every link in place, none may lead out: through another link, `..` is not where it seems."""
    real = folder.resolve()
    inside = tuple(real / name for name in folders(role))
    for name in links:
        try:
            place = (folder / name).resolve()
        except (OSError, RuntimeError) as error:
            raise _unsafe(name, "it is a link that leads in a circle") from error
        if not any(place == part or part in place.parents for part in inside):
            raise _unsafe(name, "it is a link that leads out of the release")


def _content(cat: subprocess.Popen[bytes], entry: _Entry) -> Iterator[bytes]:
    """One blob's content from `cat-file --batch`, in pieces of at most a mebibyte."""
    assert cat.stdin is not None  # noqa: S101  both pipes are asked for when it starts
    assert cat.stdout is not None  # noqa: S101
    cat.stdin.write(f"{entry.blob}\n".encode())
    cat.stdin.flush()
    header = cat.stdout.readline().split()
    if header[1:] != [b"blob", str(entry.size).encode()]:
        raise CorruptError(f"{entry.path}: unexpected answer from git: {header!r}")
    left = entry.size
    while left:
        chunk = cat.stdout.read(min(left, CHUNK_BYTES))
        if not chunk:
            raise CorruptError(f"{entry.path} ends early")
        left -= len(chunk)
        yield chunk
    if cat.stdout.read(1) != b"\n":
        raise CorruptError(f"{entry.path} is longer than its size in git")


def _git_hash(entry: _Entry) -> hashlib._Hash:
    digest = hashlib.sha256() if len(entry.blob) == 64 else hashlib.sha1(usedforsecurity=False)
    digest.update(f"blob {entry.size}\0".encode())
    return digest


def _write_text(path: Path, text: str) -> FileEntry:
    data = text.encode()
    path.write_bytes(data)
    path.chmod(0o644)
    return FileEntry(sha256=hashlib.sha256(data).hexdigest(), size=len(data), mode=0o644)


def _sync_tree(folder: Path) -> None:
    """All files, then their folders from the inside out."""
    for current, _, files in os.walk(folder, topdown=False):
        for name in files:
            path = Path(current, name)
            if not path.is_symlink():
                atomic_files.sync_file(path)
        Path(current).chmod(stat.S_IRWXU | stat.S_IRGRP | stat.S_IXGRP | stat.S_IROTH | stat.S_IXOTH)
        atomic_files.sync_folder(Path(current))


def _put_in_place(temporary: Path, target: Path) -> None:
    """Rename into place. What was there (damaged, or of another role) is moved aside first. If killed between
    the two, the release is absent, and the next start exports it again."""
    if target.is_symlink() or target.is_file():
        target.unlink()
    elif target.exists():
        aside = Path(tempfile.mkdtemp(prefix=DISCARDED_PREFIX, dir=target.parent))
        target.rename(aside / target.name)
        temporary.rename(target)
        atomic_files.sync_folder(target.parent)
        shutil.rmtree(aside, ignore_errors=True)
        return
    temporary.rename(target)
    atomic_files.sync_folder(target.parent)


def _remove_left_overs(target: Path) -> None:
    for left in target.parent.glob(f"{TEMPORARY_PREFIX}*"):
        shutil.rmtree(left, ignore_errors=True)
    for left in target.parent.glob(f"{DISCARDED_PREFIX}*"):
        shutil.rmtree(left, ignore_errors=True)


def _unsafe(path: str, why: str) -> ReleaseError:
    return ReleaseError(
        Kind.RELEASE_UNSAFE,
        f"The release is refused because of {names.shown(path)}: {why}.",
        hint="Fix it in the fleet repository and release again.",
        evidence={"path": names.shown(path)},
    )
