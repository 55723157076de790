"""Files of the role: what devices get of links and large files, and what services may write to."""

from __future__ import annotations

import os
import subprocess
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from fleet_agent.containers.content_store import broken_link, is_lfs_pointer
from fleet_agent.release import names
from fleetctl.role_check.findings import Finding, error, warning
from fleetctl.role_check.subject import Subject, bind_sources


def links_have_content(subject: Subject) -> Iterator[Finding]:
    """A link means what it leads to, so it must lead to files that devices get with this role."""
    folder = subject.role.folder
    parts = (folder, folder.parent / "common")
    allowed = [part.resolve() for part in parts]
    for part in parts:
        for path in sorted(part.rglob("*")) if part.is_dir() else []:
            if not path.is_symlink():
                continue
            wrong = broken_link(path, lambda real: any(real.is_relative_to(one) for one in allowed))
            if wrong is not None:
                yield error("link_broken", f"The link {path.relative_to(folder.parent)} {wrong}.")


def writable_mounts_are_meant(subject: Subject) -> Iterator[Finding]:
    roles = subject.role.folder.parent
    for name, source in bind_sources(subject, writable=True):
        place = Path(os.path.normpath(source))
        if place.is_relative_to(roles):
            yield warning(
                "mount_writable",
                f"{name} can write to {place.relative_to(roles)}, of which it gets its own copy. What the "
                "service writes here does not survive a release that changes these files; put data into a "
                "volume, or mount it with :ro.",
                name,
            )


def secrets_can_be_had(subject: Subject) -> Iterator[Finding]:
    """Secrets and configs are files that are mounted, with the owner and the mode that they have."""
    for used in _used_secrets(subject):
        if used.entry.get("external"):
            yield error(
                "secret_unsupported", f"The {used.what} is external; devices have none.", used.service
            )
        asked = [key for key in ("uid", "gid", "mode") if _is_asked(key, used.options, used.entry)]
        if asked:
            keys = ", ".join(asked)
            sentence = f"{used.service} asks for {keys} of the {used.what}; a mounted file keeps its own."
            yield error("secret_unsupported", sentence, used.service)


@dataclass(frozen=True)
class _Secret:
    """A secret or config as one service uses it, and as the file defines it."""

    service: str
    what: str
    options: dict[str, Any]
    entry: dict[str, Any]


def _used_secrets(subject: Subject) -> Iterator[_Secret]:
    for name, service in subject.services.items():
        for section in ("secrets", "configs"):
            yield from (_secret(subject, name, section, used) for used in service.get(section) or [])


def _secret(subject: Subject, service: str, section: str, used: Any) -> _Secret:
    options: dict[str, Any] = used if isinstance(used, dict) else {"source": used}
    source = options.get("source")
    entry = (subject.resolved.get(section) or {}).get(source) or {}
    return _Secret(service, f"{section.removesuffix('s')} {source}", options, entry)


def _is_asked(key: str, options: dict[str, Any], entry: dict[str, Any]) -> bool:
    """Whether it is given, and is not what the file has on a device."""
    value = str(options.get(key) or "")
    has = ("0444", "444", "292") if key == "mode" and not entry.get("file") else ("", "0")
    return value not in ("", *has)


def files_are_not_in_lfs(subject: Subject) -> Iterator[Finding]:
    """Devices do not fetch from Git LFS: they would get the pointer."""
    roles = subject.role.folder.parent
    users = _users_of_files(subject, roles)
    for file in _in_lfs(sorted(users)):
        yield error(
            "git_lfs",
            f"{users[file]} mounts {file.relative_to(roles)}, which is in Git LFS; devices get its pointer.",
            users[file],
        )


def _users_of_files(subject: Subject, roles: Path) -> dict[Path, str]:
    """Each file of the repository that is mounted, and the first service that does."""
    users: dict[Path, str] = {}
    for name, source in bind_sources(subject):
        place = Path(os.path.normpath(source))
        files = _files_of(place) if place.is_relative_to(roles) else ()
        users |= {file: name for file in files if file not in users}
    return users


def _files_of(place: Path) -> list[Path]:
    return [file for file in (place.rglob("*") if place.is_dir() else [place]) if file.is_file()]


def names_can_be_written(subject: Subject) -> Iterator[Finding]:
    """A device refuses a release that has a name which no disk, or no reader, can cope with."""
    roles = subject.role.folder.parent
    for folder in (subject.role.folder, roles / "common"):
        for path in sorted(folder.rglob("*")) if folder.is_dir() else []:
            name = f"roles/{path.relative_to(roles).as_posix()}"
            # A repository's own folder is in no commit.
            if ".git" not in path.parts and (why := names.unsafe(name)) is not None:
                yield error("release_unsafe", f"A device would refuse {names.shown(name)}: {why}.")


def _in_lfs(files: list[Path]) -> list[Path]:
    """Those that are pointers, or will be once they are committed."""
    by_attribute = _by_attribute(files) if files else set()
    return [file for file in files if file in by_attribute or is_lfs_pointer(file)]


def _by_attribute(files: list[Path]) -> set[Path]:
    """What `.gitattributes` puts into LFS; nothing where Git cannot say."""
    asked = "\0".join(map(str, files))
    try:
        done = subprocess.run(
            ["git", "check-attr", "-z", "--stdin", "filter"],
            input=asked, cwd=files[0].parent, capture_output=True, text=True, check=False, timeout=60,
        )  # fmt: skip
    except (OSError, subprocess.SubprocessError):
        return set()
    said = done.stdout.split("\0") if done.returncode == 0 else []
    return {Path(path) for path, value in zip(said[::3], said[2::3], strict=False) if value == "lfs"}
