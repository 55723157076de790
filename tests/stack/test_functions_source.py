"""The edge functions' source, held to Deno's own checks and to what the deployment needs."""

from __future__ import annotations

import subprocess
from pathlib import Path

import pytest

from fleetctl.stack.deno import find_deno

FUNCTIONS = Path(__file__).resolve().parents[2] / "edge_functions"
NAMES = sorted(path.parent.name for path in FUNCTIONS.glob("*/index.ts"))


def run(*args: str) -> None:
    done = subprocess.run([find_deno(), *args], cwd=FUNCTIONS, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout + done.stderr


# `make lint` checks types, lint and format each time, of the functions that its task names.


@pytest.mark.full
@pytest.mark.parametrize("name", NAMES)
def test_types_hold_with_the_locked_packages(name: str) -> None:
    run("check", "--frozen", "--config", f"{name}/deno.json", f"{name}/index.ts")


@pytest.mark.full
def test_lint_and_format_hold() -> None:
    run("lint")
    run("fmt", "--check", "--line-width", "110")


def test_nothing_is_a_symlink_and_imports_are_pinned_and_named_with_their_extension() -> None:
    """The deploy walker follows only specifiers with an extension, and no links."""
    for file in FUNCTIONS.rglob("*"):
        assert not file.is_symlink(), file
        for line in file.read_text().splitlines() if file.suffix == ".ts" else ():
            if " from " in line and line.startswith(("import", "export", "}")):
                source = line.rsplit('"', 2)[1]
                local = source.startswith(("./", "../")) and source.endswith(".ts")
                assert local or (source.startswith("npm:") and source.rsplit("@", 1)[1].count(".") == 2), line
