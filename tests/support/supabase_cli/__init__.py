"""The Supabase CLI that people use: its program from the npm registry, installed once by Deno, with its hash.

The package `supabase` only chooses among such packages, one for each system.
"""

from __future__ import annotations

import functools
import os
import platform
import shutil
import subprocess
from pathlib import Path

from fleetctl.stack.deno import find_deno
from tests.support.cached import ROOT, cached, digest
from tests.support.patience import PATIENCE_S

_HERE = Path(__file__).parent
_FILES = ("deno.json", "deno.lock")


def environment(home: Path) -> dict[str, str]:
    """For the CLI in a test: nobody is signed in, nothing is sent, and nothing is kept outside `home`."""
    quiet = {"DO_NOT_TRACK": "1", "SUPABASE_TELEMETRY_DISABLED": "1", "SUPABASE_NO_UPDATE_NOTIFIER": "1"}
    return {**os.environ, **quiet, "SUPABASE_HOME": str(home), "SUPABASE_NO_KEYRING": "1"}


@functools.cache
def program() -> Path:
    """The CLI. Raises RuntimeError where it cannot be installed."""
    if (platform.system(), platform.machine()) != ("Linux", "x86_64"):
        raise RuntimeError("the lock names the CLI for Linux on x86-64 only")
    with cached("supabase-cli", digest(*(_HERE / name for name in _FILES)), _install) as folder:
        return folder / "supabase"


def missing() -> str | None:
    """Why the CLI cannot be run here, or None."""
    try:
        program()
    except (OSError, RuntimeError, subprocess.SubprocessError) as error:
        return f"the Supabase CLI is not installed: {error}"
    return None


def run(*arguments: str, home: Path) -> subprocess.CompletedProcess[str]:
    """The CLI on this checkout."""
    return subprocess.run(
        [program(), *arguments, "--workdir", str(ROOT)],
        capture_output=True, text=True, check=False, env=environment(home), timeout=PATIENCE_S,
    )  # fmt: skip


def _install(folder: Path) -> None:
    work = folder / "install"
    work.mkdir()
    for name in _FILES:
        shutil.copy(_HERE / name, work)
    done = subprocess.run(
        [find_deno(), "install", "--quiet", "--frozen"],
        cwd=work, capture_output=True, text=True, check=False, timeout=PATIENCE_S,
    )  # fmt: skip
    if done.returncode != 0:
        raise RuntimeError(done.stderr.strip() or f"deno install ended with {done.returncode}")
    (found,) = work.glob("node_modules/.deno/*/node_modules/@supabase/*/bin/supabase")
    found.rename(folder / "supabase")
    shutil.rmtree(work)
