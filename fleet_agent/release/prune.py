"""Remove releases that this device no longer needs."""

from __future__ import annotations

import shutil
import tempfile
from collections.abc import Collection
from dataclasses import dataclass
from pathlib import Path

from loguru import logger

from fleet_agent.errors import Kind, ReleaseError
from fleet_agent.release.export import DISCARDED_PREFIX, TEMPORARY_PREFIX
from fleet_agent.release.git_command import GitCrashedError
from fleet_agent.release.repository import RELEASES, CorruptError, Repository
from fleet_agent.support import atomic_files

#: Packs, not releases: each update leaves one or two, and compacting rewrites all that is kept.
PACK_LIMIT = 16


@dataclass(frozen=True)
class Pruned:
    """Releases whose folder was removed, and bytes freed in the repository."""

    removed: tuple[str, ...]
    freed_bytes: int


def prune(repository: Path, releases: Path, keep: Collection[str], *, compact: bool = False) -> Pruned:
    """Remove every exported release in `releases` and every fetched one in `repository` but those in `keep`.

    Leftovers of unfinished exports and fetches go, too. The repository is compacted once it has more than
    `PACK_LIMIT` packs, or with `compact`. Never raises because of the repository: one that cannot be
    pruned is removed, since fetching rebuilds it. Raises StateError if a release folder cannot be removed.
    """
    removed = tuple(sorted(_prune_exports(releases, keep)))
    freed = 0
    if repository.is_dir():
        try:
            freed = _prune_objects(Repository(repository), keep, compact=compact)
        except (CorruptError, ReleaseError) as error:
            if isinstance(error, ReleaseError) and not _is_the_repositorys(error):
                raise
            logger.warning("the release repository cannot be pruned; removing it: {error}", error=error)
            Repository(repository).wipe()
    return Pruned(removed, freed)


def _is_the_repositorys(error: ReleaseError) -> bool:
    return isinstance(error, GitCrashedError) or error.kind is Kind.RELEASE_TOO_LARGE


def _prune_exports(releases: Path, keep: Collection[str]) -> list[str]:
    removed: list[str] = []
    if not releases.is_dir():
        return removed
    for folder in list(releases.iterdir()):
        if folder.name.startswith((TEMPORARY_PREFIX, DISCARDED_PREFIX)):
            shutil.rmtree(folder, ignore_errors=True)
        elif folder.name not in keep:
            try:
                # Renamed first: a half-removed folder must not look like a release.
                aside = Path(tempfile.mkdtemp(prefix=DISCARDED_PREFIX, dir=releases))
                folder.rename(aside / folder.name)
                atomic_files.sync_folder(releases)
            except OSError as error:
                raise atomic_files.unwritable(folder, error) from error
            shutil.rmtree(aside, ignore_errors=True)
            removed.append(folder.name)
    return removed


def _prune_objects(repo: Repository, keep: Collection[str], *, compact: bool) -> int:
    repo.clean_up()
    listed = repo.read("for-each-ref", "--format=%(refname)").decode().split()
    wanted = [ref for ref in listed if ref.startswith(f"{RELEASES}/") and ref.rpartition("/")[2] in keep]
    dropped = [ref for ref in listed if ref not in wanted]
    for ref in dropped:
        repo.read("update-ref", "-d", ref)
    packs = list((repo.folder / "objects" / "pack").glob("*.pack"))
    if not (compact or len(packs) > PACK_LIMIT):
        return 0
    return _compact(repo, [ref.rpartition("/")[2] for ref in wanted])


def _compact(repo: Repository, commits: list[str]) -> int:
    """Write one pack with what `commits` need, then drop all others.

    `git gc` would keep every object of a partial clone forever: promised, so never garbage.
    """
    packs = repo.folder / "objects" / "pack"
    before = _size(packs)
    old = set(packs.iterdir())
    if commits:
        # The history below a kept release is not here and not wanted.
        atomic_files.write_atomic(
            repo.folder / "shallow", "".join(f"{commit}\n" for commit in sorted(commits)).encode()
        )
        needed = repo.read(
            "rev-list", "--objects", "--no-object-names", "--missing=allow-any", "--no-walk", *commits
        )
        name = repo.read("pack-objects", "-q", str(packs / "pack"), stdin=needed).decode().strip()
        atomic_files.write_atomic(packs / f"pack-{name}.promisor", b"")
        atomic_files.sync_folder(packs)
        old -= {file for file in old if file.stem == f"pack-{name}"}
    # An index first would leave a pack that nobody reads; a pack first, an index that breaks every read.
    for file in sorted(old, key=lambda file: file.suffix != ".idx"):
        file.unlink(missing_ok=True)
    atomic_files.sync_folder(packs)
    return max(0, before - _size(packs))


def _size(folder: Path) -> int:
    return sum(file.stat().st_size for file in folder.iterdir())
