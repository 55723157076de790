"""What a role mounts, stored by its content, so that a service restarts only if a release changes it.

Compose restarts a service whose configuration changed, and a bind mount's path is part of it. Releases live
in a folder each, so every path would change each time. Here each file or folder that a role mounts is copied
to `content/<sha256>/<name>` and mounted from there: same content, same path, no restart.
"""

from __future__ import annotations

import hashlib
import os
import shutil
import stat
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from fleet_agent.containers.compose_file import services
from fleet_agent.errors import Kind, ValidationError
from fleet_agent.support.atomic_files import make_folder, sync_file, sync_folder


def address_content(compose: dict[str, Any], release: Path, store: Path) -> dict[str, Any]:
    """`compose` with every path inside `release` replaced by its content-addressed copy under `store`.

    Makes the copies that are missing, durably. Raises ValidationError (`compose_invalid`) for a path inside
    the release that does not exist, and for one that links out of it.
    """
    inside = release.resolve()
    result: dict[str, Any] = {**compose, "services": {}}
    for name, service in services(compose).items():
        mounts = []
        for mount in service.get("volumes") or []:
            if mount.get("type") == "bind" and _within(mount.get("source"), inside):
                kept = _keep(Path(mount["source"]), inside, store, name)
                # Without its content a service must not start on an empty folder that Docker would create.
                mounts.append({**mount, "source": str(kept), "bind": {"create_host_path": False}})
            else:
                mounts.append(mount)
        result["services"][name] = {**service, **({"volumes": mounts} if mounts else {})}
        # What builds an image is not needed to run it, and its paths change with each release.
        result["services"][name].pop("build", None)
    for section in ("configs", "secrets"):
        if not isinstance(compose.get(section), dict):
            continue
        result[section] = {
            name: {**entry, "file": str(_keep(Path(entry["file"]), inside, store, name))}
            if _within(entry.get("file"), inside)
            else entry
            for name, entry in compose[section].items()
        }
    return result


def used_content(compose: dict[str, Any], store: Path) -> set[str]:
    """The names under `store` that a resolved file mounts."""
    return {
        Path(path).relative_to(store).parts[0]
        for path in _paths(compose)
        if Path(path).is_absolute() and Path(path).is_relative_to(store)
    }


def _paths(compose: dict[str, Any]) -> Iterator[str]:
    for service in services(compose).values():
        for mount in service.get("volumes") or []:
            if mount.get("type") == "bind":
                yield str(mount.get("source"))
    for section in ("configs", "secrets"):
        for entry in (compose.get(section) or {}).values():
            if entry.get("file"):
                yield str(entry["file"])


def _within(source: Any, folder: Path) -> bool:
    return isinstance(source, str) and Path(os.path.normpath(source)).is_relative_to(folder)


def _keep(source: Path, inside: Path, store: Path, owner: str) -> Path:
    """Copy `source` to its place under `store`, unless a complete copy is there already."""
    source = Path(os.path.normpath(source))
    if not source.exists():
        raise ValidationError(
            Kind.COMPOSE_INVALID,
            f"{owner} mounts {source.relative_to(inside)}, which is not in the release.",
            hint="Paths are relative to the role's folder.",
        )
    if not source.resolve().is_relative_to(inside):
        raise ValidationError(
            Kind.COMPOSE_INVALID,
            f"{owner} mounts {source.relative_to(inside)}, which leads out of the release.",
        )
    digest = fingerprint(source)
    kept = store / digest / source.name
    if kept.exists() and fingerprint(kept) == digest:
        return kept
    _copy(source, store, digest)
    return kept


def _copy(source: Path, store: Path, digest: str) -> None:
    """Copy beside, sync, rename: a folder named by its hash is always complete."""
    make_folder(store)
    building = store / f".{digest}.new"
    shutil.rmtree(building, ignore_errors=True)
    building.mkdir()
    building.chmod(0o755)  # regardless of the umask: containers read this as another user
    copy = building / source.name
    if source.is_dir():
        shutil.copytree(source, copy, symlinks=True)
    else:
        shutil.copy2(source, copy)
    for path in [*building.rglob("*"), building]:
        if path.is_dir():
            sync_folder(path)
        elif path.is_file() and not path.is_symlink():
            sync_file(path)
    target = store / digest
    if target.exists():
        # Only a damaged copy gets here: move it away; a running container keeps its old files.
        damaged = store / f".{digest}.damaged"
        shutil.rmtree(damaged, ignore_errors=True)
        target.rename(damaged)
        shutil.rmtree(damaged, ignore_errors=True)
    building.rename(target)
    sync_folder(store)


def fingerprint(path: Path) -> str:
    """SHA-256 over names, kinds, permission bits and bytes of a file or a whole folder."""
    digest = hashlib.sha256()
    for entry in [path, *sorted(path.rglob("*"))] if path.is_dir() else [path]:
        found = entry.lstat()
        name = entry.relative_to(path.parent).as_posix()
        if stat.S_ISLNK(found.st_mode):
            head, body = f"link {os.readlink(entry)}", b""  # noqa: PTH115  a Path would normalize it
        elif stat.S_ISDIR(found.st_mode):
            head, body = f"folder {stat.S_IMODE(found.st_mode):o}", b""
        else:
            head, body = f"file {stat.S_IMODE(found.st_mode):o}", hashlib.sha256(entry.read_bytes()).digest()
        digest.update(f"{name}\0{head}\0".encode() + body)
    return digest.hexdigest()
