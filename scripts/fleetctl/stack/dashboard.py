"""The dashboard's static files: built when its sources changed, under Deno, into `web/dist`."""

from __future__ import annotations

import fcntl
import hashlib
import os
import subprocess
from collections.abc import Callable
from pathlib import Path
from typing import IO, cast

from fleetctl.errors import FleetctlError
from fleetctl.stack.layout import Project
from fleetctl.stack.process import last_lines

_NOT_SOURCES = ("dist", "node_modules")
_STAMP = ".built-from"


def needs_build(project: Project) -> bool:
    """Whether there are sources, and `web/dist` was not built from just these."""
    if not (project.web / "deno.json").is_file():
        return False
    stamp = project.web / "dist" / _STAMP
    return not stamp.is_file() or stamp.read_text() != fingerprint(project)


def fingerprint(project: Project) -> str:
    """SHA-256 over names and contents of everything that goes into the build."""
    digest = hashlib.sha256()
    files = []
    for entry in project.web.iterdir():
        if entry.name not in _NOT_SOURCES and not entry.name.startswith("."):
            files += [entry] if entry.is_file() else [path for path in entry.rglob("*") if path.is_file()]
    for path in sorted(files):
        digest.update(f"{path.relative_to(project.web)}\0".encode())
        digest.update(hashlib.sha256(path.read_bytes()).digest())
    return digest.hexdigest()


def build(project: Project, deno: str, log: Path, line: Callable[[str], None]) -> None:
    """Run `deno task build` in web/; raises `dashboard_build_failed` with the end of its log."""
    log.parent.mkdir(parents=True, exist_ok=True)
    with (project.web / "deno.json").open() as turn:
        # Two stacks of one checkout take turns; the second finds it built.
        fcntl.flock(turn, fcntl.LOCK_EX)
        if needs_build(project):
            _build(project, deno, log, line)


def _build(project: Project, deno: str, log: Path, line: Callable[[str], None]) -> None:
    before = fingerprint(project)
    with (
        log.open("w") as file,
        subprocess.Popen(
            [deno, "task", "build"], cwd=project.web, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT, text=True, errors="replace", env=os.environ | {"NO_COLOR": "1"},
        ) as process,
    ):  # fmt: skip
        for text in cast("IO[str]", process.stdout):
            file.write(text)
            file.flush()
            if text.strip():
                line(text.strip())
    if process.returncode != 0:
        raise FleetctlError(
            "dashboard_build_failed",
            f"The dashboard could not be built. Its log ends with:\n{last_lines(log)}",
            hint=f"Read {log}, or start without the dashboard: fleetctl up --no-web",
        )
    dist = project.web / "dist"
    if not dist.is_dir():
        raise FleetctlError("dashboard_build_failed", f"The build succeeded but did not create {dist}.")
    (dist / _STAMP).write_text(before)
