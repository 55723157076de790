"""`secrets:` and `configs:` of a compose file as plain read-only mounts, which is what Compose makes of them.

One from `environment:` or `content:` becomes a file that the agent writes. Compose would copy it into the
container's layer, which is on the disk and readable for all who read images. The file is 0444, so that a
service reads its own as any user, inside a folder of 0700, so that no other user of the device reads it.
"""

from __future__ import annotations

import os
import secrets as random
import shutil
import stat
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from fleet_agent import errors
from fleet_agent.containers.compose_file import services
from fleet_agent.errors import FleetError, Kind, ValidationError
from fleet_agent.support.atomic_files import make_folder, sync_file, sync_folder

#: Where Compose mounts one whose target is not an absolute path.
_FOLDERS = {"secrets": "/run/secrets/", "configs": "/"}
_MODE = 0o444


def as_mounts(compose: dict[str, Any], environment: Mapping[str, str], folder: Path) -> dict[str, Any]:
    """`compose` without `secrets` and `configs`: each is a mount of the services that use it.

    What has no file of its own is written under `folder`. Raises ValidationError: `variable_missing` for an
    undeclared variable, `compose_invalid` for what a device cannot provide.
    """
    result: dict[str, Any] = {**compose, "services": {}}
    for section in _FOLDERS:
        result.pop(section, None)
    for name, service in services(compose).items():
        mounts = [
            _mount(compose, section, used, name, environment, folder)
            for section in _FOLDERS
            for used in service.get(section) or []
        ]
        rest = {key: value for key, value in service.items() if key not in _FOLDERS}
        if mounts:
            rest["volumes"] = [*(service.get("volumes") or []), *mounts]
        result["services"][name] = rest
    return result


def write(folder: Path, name: str, content: bytes) -> Path:
    """A file under `folder` with this name and content, durable: the one that is there, or a new one.

    The only function that puts a secret on a disk. The path says nothing about the content, and is the same
    for the same content, so that a service restarts only for a change.
    """
    if not folder.is_dir():
        make_folder(folder)
    folder.chmod(0o700)
    for place in sorted(folder.iterdir()):
        file = place / name
        if not place.name.startswith(".") and _holds(file, content):
            return file
    place = folder / random.token_hex(16)
    building = place.with_name(f".{place.name}.new")
    building.mkdir()
    try:
        # Nobody but the agent comes this far, and containers are given the file itself.
        (building / name).write_bytes(content)
        (building / name).chmod(_MODE)
        sync_file(building / name)
        sync_folder(building)
        building.rename(place)
        sync_folder(folder)
    except OSError:
        shutil.rmtree(building, ignore_errors=True)
        raise
    return place / name


def _holds(file: Path, content: bytes) -> bool:
    try:
        return stat.S_IMODE(file.stat().st_mode) == _MODE and file.read_bytes() == content
    except OSError:
        return False


def _mount(  # noqa: PLR0917
    compose: dict[str, Any],
    section: str,
    used: Any,
    service: str,
    environment: Mapping[str, str],
    folder: Path,
) -> dict[str, Any]:
    options: dict[str, Any] = used if isinstance(used, dict) else {"source": str(used)}
    source = str(options.get("source"))
    what = f"{section.removesuffix('s')} {source}"
    entry = (compose.get(section) or {}).get(source)
    if not isinstance(entry, dict):
        raise _invalid(f"{service} uses the {what}, which it does not define")
    file, mode = _file(entry, source, what, environment, folder)
    _check_ownership(options, mode, service, what)
    target = str(options.get("target") or source)
    if not target.startswith("/"):
        target = _FOLDERS[section] + target
    return {
        "type": "bind",
        "source": str(file),
        "target": target,
        "read_only": True,
        "bind": {"create_host_path": False},
    }


def _file(
    entry: dict[str, Any], name: str, what: str, environment: Mapping[str, str], folder: Path
) -> tuple[Path, int | None]:
    """Where it is, and its permission bits where they are known."""
    if entry.get("external") or entry.get("driver") or entry.get("template_driver"):
        raise _invalid(
            f"the {what} is external; devices have none", "Give it a `file`, or a variable in `environment`."
        )
    if entry.get("file"):
        file = Path(str(entry["file"]))
        try:
            return file, stat.S_IMODE(file.stat().st_mode)
        except OSError:
            return file, None
    if entry.get("environment"):
        variable = str(entry["environment"])
        if variable not in environment:
            raise ValidationError(
                Kind.VARIABLE_MISSING,
                f"The {what} takes {variable}, which the role does not declare.",
                hint="Declare it in role.yaml.",
            )
        return write(folder, name, environment[variable].encode()), _MODE
    return write(folder, name, str(entry.get("content") or "").encode()), _MODE


def _check_ownership(options: dict[str, Any], mode: int | None, service: str, what: str) -> None:
    """A mounted file keeps its owner and mode, whatever is asked for; Compose says so only in a warning."""
    for key, has in (("uid", os.geteuid()), ("gid", os.getegid())):
        if str(options.get(key) or "") not in ("", str(has)):
            raise _invalid(
                f"{service} asks for {key} {options[key]} for the {what}, and a mounted file cannot have it",
                f"Remove {key}; the file can be read by every user of the container.",
            )
    asked = options.get("mode")
    if asked in (None, "") or mode is None:
        return
    try:
        wanted = int(asked, 8) if isinstance(asked, str) else int(asked)
    except ValueError:
        wanted = -1
    if wanted != mode:
        raise _invalid(
            f"{service} asks for mode {asked if isinstance(asked, str) else f'{wanted:04o}'} for the {what}, "
            f"and the file has {mode:04o}",
            "Remove mode; the file is read-only in the container, and can be read by every user of it.",
        )


def _invalid(why: str, hint: str = "Define it, or correct the name.") -> FleetError:
    return errors.compose_invalid(why, hint=hint)
