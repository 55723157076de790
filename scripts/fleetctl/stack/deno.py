"""Which Deno runs the API server and builds the dashboard."""

from __future__ import annotations

import shutil
import sys
from pathlib import Path

from fleetctl.errors import FleetctlError


def find_deno() -> str:
    """The Deno of this Python environment, which pip installed, or the one on PATH."""
    beside = Path(sys.executable).with_name("deno")
    found = str(beside) if beside.exists() else shutil.which("deno")
    if found is None:
        raise FleetctlError(
            "deno_missing",
            "Deno is not installed.",
            hint="Install it with: pip install 'metrica-fleet[operator]'",
        )
    return found
