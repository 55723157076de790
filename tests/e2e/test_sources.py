"""The dashboard's own checks, run where the whole suite runs, and the size of what a first visit loads."""

from __future__ import annotations

import gzip
import json
import os
import subprocess
from pathlib import Path
from typing import Any

import pytest

from fleetctl.stack.deno import find_deno
from fleetctl.stack.local_stack import LocalStack
from tests.conftest import ROOT
from tests.support.patience import PATIENCE_S

WEB = ROOT / "web"
FIRST_LOAD_BYTES = 250_000


def test_the_view_model_keeps_its_rules() -> None:
    _task("test")


# Types, lint and format are `make lint`'s part.


@pytest.mark.full
def test_each_boundary_rule_catches_what_it_is_for() -> None:
    """That the code keeps to the rules is `make lint`'s part."""
    _task("test", folder=WEB / "tools" / "boundaries")


def test_the_types_are_those_of_the_schema(stack: LocalStack) -> None:
    """Else: `deno task types` in web/, with FLEET_DB_URL of a stack that has the migrations."""
    _task("types", "--check", FLEET_DB_URL=stack.db_url)


def test_the_first_visit_loads_at_most_250_kb(stack: LocalStack) -> None:
    """Everything up to the overview, gzip: its scripts and styles."""
    dist = WEB / "dist"
    manifest: dict[str, dict[str, Any]] = json.loads((dist / ".vite" / "manifest.json").read_text())
    files = {"index.html"}
    wanted = ["index.html", "src/app/FleetPage.tsx", "src/overview/OverviewPage.tsx"]
    while wanted:
        chunk = manifest[wanted.pop()]
        if chunk["file"] not in files:
            files |= {chunk["file"], *chunk.get("css", [])}
            wanted += chunk.get("imports", [])
    sizes = {name: len(gzip.compress((dist / name).read_bytes(), 9)) for name in files}
    assert sum(sizes.values()) <= FIRST_LOAD_BYTES, sizes
    assert sum(name.endswith(".js") for name in files) >= 3, "the manifest was misread"


def _task(name: str, *arguments: str, folder: Path = WEB, **environment: str) -> None:
    done = subprocess.run(
        [find_deno(), "task", "--quiet", name, *arguments], cwd=folder, capture_output=True, text=True,
        timeout=2 * PATIENCE_S, check=False, env=os.environ | {"NO_COLOR": "1"} | environment,
    )  # fmt: skip
    assert done.returncode == 0, done.stdout[-4000:] + done.stderr[-4000:]
