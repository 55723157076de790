"""The configuration that `fleet-agent enroll` is given as options, so that nobody writes it by hand."""

from __future__ import annotations

import argparse
import json
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from fleet_agent.errors import config_invalid

if TYPE_CHECKING:
    from fleet_agent.config import DeviceConfig

#: Option of `enroll` -> key of `device.json`.
_KEYS = {"url": "api_url", "key": "publishable_key", "git_url": "git_url", "fleet_id": "fleet_id"}
_SIGNERS = "allowed_signers"


def of(file: Path, options: argparse.Namespace) -> tuple[DeviceConfig, dict[Path, bytes]]:
    """The configuration to enroll with, and the files that `write` has to write for it.

    What the options say is added to a `device.json` that lacks it. Raises ConfigError, also where the file
    says something else.
    """
    from fleet_agent import config

    wanted = {key: str(value) for option, key in _KEYS.items() if (value := getattr(options, option))}
    signers = "".join(f"{line.strip()}\n" for line in options.signer).encode()
    if not wanted and not signers:
        return config.load(file), {}
    there = _read(file)
    _require_same(file, there, wanted)
    files = _signers_file(file, there, signers)
    if files:
        wanted[_SIGNERS] = _SIGNERS
    made = {**there, **wanted}
    lacking = [
        option
        for option, key in (("--url", "api_url"), ("--key", "publishable_key"), ("--git-url", "git_url"))
        if key not in made
    ]
    if _SIGNERS not in made and made.get("verify_signatures", True):
        lacking.append("--signer")
    if lacking:
        raise config_invalid(
            "This command line",
            f"there is no {file} that says the rest, so it also needs {' and '.join(lacking)}",
            hint="Use the whole line that `fleetctl token create --repository FOLDER` prints.",
        )
    text = (json.dumps(made, indent=2) + "\n").encode()
    device = config.parse(text, source=file)
    return device, ({} if made == there else {**files, file: text})


def write(files: Mapping[Path, bytes]) -> None:
    """Write what `of` found to be missing. Raises StateError (`state_unwritable`, `disk_full`)."""
    from fleet_agent.support import atomic_files

    for path, content in files.items():
        path.parent.mkdir(parents=True, exist_ok=True)
        atomic_files.write_atomic(path, content, mode=0o644)


def _read(file: Path) -> dict[str, Any]:
    """The keys that the file has already."""
    from fleet_agent import config

    if not file.exists():
        return {}
    try:
        raw = json.loads(file.read_bytes())
    except ValueError:
        raw = None
    if not isinstance(raw, dict):
        config.load(file)  # says what is wrong with it
        return {}
    return raw


def _require_same(file: Path, there: Mapping[str, Any], wanted: Mapping[str, str]) -> None:
    for key, value in wanted.items():
        if key in there and str(there[key]).rstrip("/") != value.rstrip("/"):
            raise config_invalid(
                "This command line",
                f"{file} already says another `{key}`",
                hint=f"Leave the option out, or remove {file} if this device joins another fleet.",
            )


def _signers_file(file: Path, there: Mapping[str, Any], signers: bytes) -> dict[Path, bytes]:
    """The file of signers to write: none if the device has this one already."""
    path = file.parent / str(there.get(_SIGNERS) or _SIGNERS)
    if not signers or (path.exists() and path.read_bytes() == signers and _SIGNERS in there):
        return {}
    if path.exists() and path.read_bytes() != signers:
        raise config_invalid(
            "This command line",
            f"{path} already trusts other signers",
            hint=f"Leave --signer out, or remove {path}.",
        )
    return {path: signers}
