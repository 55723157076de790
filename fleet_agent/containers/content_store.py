"""What a role mounts, stored by its content, so that a service restarts only if a release changes it.

Compose restarts a service whose configuration changed, and a bind mount's path is part of it. Releases live
in a folder each, so every path would change each time. Here each file or folder that a role mounts is copied
to a place of its own and mounted from there: same content, same path, no restart.

    content/<sha256>/<name>             mounted with `:ro`, shared by all that mount this content
    content/<sha256>.<service>/<name>   writable: this service's own copy, which it may change
    …~1, …~2                            the same content again, where the place before was changed or lost

A place is never changed, reset or replaced here: a container may be using it. Content that differs gets a new
place, and so its service a new container. A link in a role means what it leads to: a copy has no links.
"""

from __future__ import annotations

import hashlib
import itertools
import os
import re
import shutil
import stat
from collections.abc import Callable, Iterator, Set
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from fleet_agent import errors
from fleet_agent.containers.compose_file import services
from fleet_agent.support.atomic_files import make_folder, sync_file, sync_folder
from fleet_agent.support.sizes import MIB

#: Links can multiply what a release holds; a copy must not be larger than a release may be.
COPY_FILES_LIMIT, COPY_BYTES_LIMIT = 20_000, 512 * MIB
_LFS_POINTER, _LFS_POINTER_LIMIT = b"version https://git-lfs.github.com/spec/", 1024
_CHUNK_BYTES = MIB
_SHARED = re.compile(r"([0-9a-f]{64})(~\d+)?")


@dataclass(frozen=True)
class _Entry:
    """A file or folder as it is copied: `name` begins with the copied thing's own, `path` has no link."""

    name: str
    path: Path
    status: os.stat_result

    @property
    def is_folder(self) -> bool:
        return stat.S_ISDIR(self.status.st_mode)


class _BrokenError(Exception):
    """Why something cannot be copied: a phrase that follows `web mounts roles/x/site, `."""


def address_content(
    compose: dict[str, Any], release: Path, store: Path, *, avoid: Set[str] = frozenset()
) -> dict[str, Any]:
    """`compose` with every path inside `release` replaced by its place under `store`.

    Makes the places that are missing, durably; none whose name is in `avoid`, as it was lost or changed.
    Raises ValidationError (`compose_invalid`) for what is not in the release, leads out of it, leads in a
    circle, or is a Git LFS pointer.
    """
    places = _Places(release, store, avoid)
    _refuse_bound_volumes(compose, places)
    result: dict[str, Any] = {**compose, "services": {}}
    for name, service in services(compose).items():
        mounts = [(mount, places.inside(_source(mount))) for mount in service.get("volumes") or []]
        writable = {inside for mount, inside in mounts if inside is not None and not mount.get("read_only")}
        addressed = []
        for mount, inside in mounts:
            if inside is None:
                addressed.append(mount)
                continue
            kept = places.keep(inside, name, own=inside in writable)
            # Without its content a service must not start on an empty folder that Docker would create.
            bind = {**(mount.get("bind") or {}), "create_host_path": False}
            addressed.append({**mount, "source": str(kept), "bind": bind})
        result["services"][name] = {**service, **({"volumes": addressed} if addressed else {})}
        # What builds an image is not needed to run it, and its paths change with each release.
        result["services"][name].pop("build", None)
    return result


def used_content(compose: dict[str, Any], store: Path) -> set[str]:
    """The names under `store` that a resolved file mounts.

    Also by its `configs` and `secrets`: files that older agents wrote have those.
    """
    entries = [
        entry
        for section in ("configs", "secrets")
        for entry in (compose.get(section) or {}).values()
        if isinstance(entry, dict)
    ]
    files = {str(entry["file"]) for entry in entries if entry.get("file")}
    return {name for _, _, name in _mounted(compose, store)} | names_of(files, store)


def names_of(sources: Iterator[str] | Set[str], store: Path) -> set[str]:
    """The names under `store` of these paths; of paths elsewhere none."""
    return {
        Path(path).relative_to(store).parts[0]
        for path in sources
        if Path(path).is_relative_to(store) and Path(path) != store
    }


def changed_content(compose: dict[str, Any], store: Path) -> list[tuple[str, str]]:
    """(service, target) of each `:ro` mount whose files are no longer those of the release."""
    found = []
    for service, mount, name in _mounted(compose, store):
        shared = _SHARED.fullmatch(name)
        if shared is not None and not _is_whole(Path(mount["source"]), shared[1]):
            found.append((service, str(mount.get("target"))))
    return found


def fingerprint(path: Path, inside: Path | None = None) -> str:
    """SHA-256 over names, kinds, permission bits and bytes of a file or a whole folder, links followed.

    Raises _BrokenError for a link that leads nowhere, in a circle, or out of `inside` (itself by default).
    """
    return _hash(_entries(path, (inside or path).resolve()))


def broken_link(path: Path, allowed: Callable[[Path], bool]) -> str | None:
    """What is wrong with the link `path`, as a phrase; None if it leads to something that is `allowed`."""
    try:
        real = path.resolve(strict=True)
    except FileNotFoundError:
        return f"leads to {path.readlink()}, which does not exist"
    except (OSError, RuntimeError):
        return "leads in a circle"
    if not allowed(real):
        return "leads out of the release"
    if real.is_dir() and path.parent.resolve().is_relative_to(real):
        return "leads to a folder that contains it"
    return None


@dataclass(frozen=True)
class _Places:
    """Where content is kept, and what must not be used of it."""

    release: Path
    store: Path
    avoid: Set[str]

    def inside(self, source: str | None) -> Path | None:
        """`source` relative to the release; None if it is elsewhere."""
        path = Path(os.path.normpath(source or "."))
        for release in (self.release, self.release.resolve()):
            if path.is_relative_to(release):
                return path.relative_to(release)
        return None

    def keep(self, inside: Path, service: str, *, own: bool) -> Path:
        """The place of what is `inside` the release; it is filled if it is new."""
        source = self.release.resolve() / inside
        try:
            entries = _entries(source, self.release.resolve())
            _refuse_pointers(entries)
        except _BrokenError as error:
            raise errors.compose_invalid(
                f"{service} mounts {inside}, {error}",
                hint="Paths are relative to the role's folder; links must lead to files of the release.",
            ) from error
        digest = _hash(entries)
        # Two folders with the same content stay two if a service writes to them.
        owned = hashlib.sha256(f"{digest} {inside}".encode()).hexdigest()
        name = f"{owned}.{service}" if own else digest
        for place in (self.store / candidate for candidate in _candidates(name)):
            kept = place / source.name
            if place.name in self.avoid:
                continue
            if not os.path.lexists(place):
                _copy(entries, place)
                return kept
            if (own and os.path.lexists(kept)) or (not own and _is_whole(kept, digest)):
                return kept
        raise AssertionError("candidates do not end")


def _candidates(name: str) -> Iterator[str]:
    yield name
    yield from (f"{name}~{number}" for number in itertools.count(1))


def _mounted(compose: dict[str, Any], store: Path) -> Iterator[tuple[str, dict[str, Any], str]]:
    """(service, mount, name) of each mount from `store`."""
    for service, settings in services(compose).items():
        for mount in settings.get("volumes") or []:
            if (source := _source(mount)) is not None:
                yield from ((service, mount, name) for name in names_of({source}, store))


def _source(mount: Any) -> str | None:
    return str(mount.get("source")) if isinstance(mount, dict) and mount.get("type") == "bind" else None


def _refuse_bound_volumes(compose: dict[str, Any], places: _Places) -> None:
    """A named volume that is a folder of the release would go with the release's folder."""
    for name, volume in (compose.get("volumes") or {}).items():
        options = (volume or {}).get("driver_opts") or {}
        device = str(options.get("device") or "")
        if "bind" not in str(options.get("o") or "").split(",") or not device:
            continue
        if not device.startswith("/") or places.inside(device) is not None:
            raise errors.compose_invalid(
                f"the volume {name} is bound to {device}, a folder of the release",
                hint="Mount the folder itself (./folder:/target), or name a folder of the device.",
            )


def _entries(source: Path, inside: Path) -> list[_Entry]:
    """`source` and all below it, in a fixed order, links followed. Raises _BrokenError."""
    found: list[_Entry] = []
    total = 0
    for entry in _walk(source, source.name, inside, ()):
        found.append(entry)
        total += 0 if entry.is_folder else entry.status.st_size
        if len(found) > COPY_FILES_LIMIT or total > COPY_BYTES_LIMIT:
            raise _BrokenError(
                f"which has more than {COPY_FILES_LIMIT} files or {COPY_BYTES_LIMIT // MIB} MiB "
                "with what its links lead to"
            )
    return found


def _walk(path: Path, name: str, inside: Path, above: tuple[Path, ...]) -> Iterator[_Entry]:
    real = _follow(path, name, inside)
    if real in above:
        raise _BrokenError(f"in which the link {name} leads to a folder that contains it")
    entry = _Entry(name, real, real.stat())
    yield entry
    if entry.is_folder:
        for child in sorted(real.iterdir(), key=lambda item: item.name):
            yield from _walk(child, f"{name}/{child.name}", inside, (*above, real))


def _follow(path: Path, name: str, inside: Path) -> Path:
    linked = path.is_symlink()
    which = f"in which the link {name}" if "/" in name else "a link that"
    try:
        real = path.resolve(strict=True)
    except FileNotFoundError as error:
        if linked:
            raise _BrokenError(f"{which} leads to {path.readlink()}, which is not in the release") from error
        raise _BrokenError("which is not in the release") from error
    except (OSError, RuntimeError) as error:
        raise _BrokenError(f"{which} leads in a circle") from error
    if not real.is_relative_to(inside):
        raise _BrokenError(f"{which if '/' in name else 'which'} leads out of the release")
    return real


def _refuse_pointers(entries: list[_Entry]) -> None:
    for entry in entries:
        if is_lfs_pointer(entry.path):
            which = f"in which {entry.name}" if "/" in entry.name else "which"
            raise _BrokenError(
                f"{which} is a Git LFS pointer and not the file; devices do not fetch from Git LFS"
            )


def is_lfs_pointer(file: Path) -> bool:
    """Whether `file` is what Git keeps in place of a large file."""
    try:
        if not file.is_file() or file.stat().st_size > _LFS_POINTER_LIMIT:
            return False
        with file.open("rb") as handle:
            return handle.read(len(_LFS_POINTER)) == _LFS_POINTER
    except OSError:
        return False


def _copy(entries: list[_Entry], place: Path) -> None:
    """Copy beside, sync, rename: a place that is there is always complete."""
    make_folder(place.parent)
    building = place.with_name(f".{place.name}.new")
    shutil.rmtree(building, ignore_errors=True)
    building.mkdir()
    building.chmod(0o755)  # regardless of the umask: containers read this as another user
    for entry in entries:
        target = building / entry.name
        if entry.is_folder:
            target.mkdir()
        else:
            shutil.copy2(entry.path, target)
            sync_file(target)
    for entry in reversed(entries):
        if entry.is_folder:
            shutil.copystat(entry.path, building / entry.name)
            sync_folder(building / entry.name)
    sync_folder(building)
    building.rename(place)
    sync_folder(place.parent)


def _is_whole(kept: Path, digest: str) -> bool:
    try:
        return fingerprint(kept, kept.parent) == digest
    except (_BrokenError, OSError):
        return False


def _hash(entries: list[_Entry]) -> str:
    digest = hashlib.sha256()
    for entry in entries:
        mode = stat.S_IMODE(entry.status.st_mode)
        if entry.is_folder:
            head, body = f"folder {mode:o}", b""
        elif stat.S_ISREG(entry.status.st_mode):
            head, body = f"file {mode:o}", _hash_file(entry.path)
        else:
            # Not from a release; and reading it might never end.
            head, body = f"special {entry.status.st_mode:o}", b""
        digest.update(f"{entry.name}\0{head}\0".encode() + body)
    return digest.hexdigest()


def _hash_file(path: Path) -> bytes:
    digest = hashlib.sha256()
    with path.open("rb") as file:
        while chunk := file.read(_CHUNK_BYTES):
            digest.update(chunk)
    return digest.digest()
