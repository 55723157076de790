"""docs/usage/stack.md tells every error and every option."""

from __future__ import annotations

import inspect
import re
from pathlib import Path

import pytest

from fleetctl.commands import stack as commands

ROOT = Path(__file__).resolve().parents[2]
PAGE = (ROOT / "docs" / "usage" / "stack.md").read_text()
FLEETCTL = ROOT / "scripts/fleetctl"
PYTHON = [
    *(FLEETCTL / "stack").glob("*.py"),
    *(FLEETCTL / name for name in ("commands/stack.py", "migrate.py", "migration_files.py", "baseline.py")),
]
SERVER = list((ROOT / "supabase/local").glob("*.ts"))


def kinds() -> set[str]:
    found = set()
    for path in PYTHON:
        found |= set(re.findall(r'FleetctlError\(\s*"(\w+)"', path.read_text()))
        found |= set(re.findall(r'(?:run_script\([^)]*|_failed\()"(\w+_failed)"', path.read_text()))
    for path in SERVER:
        for pair in re.findall(r'answer\(\d+, "(\w+)"|kind: "([a-z_]+)"', path.read_text()):
            found.add(pair[0] or pair[1])
    return found


def test_every_error_kind_is_explained() -> None:
    assert len(kinds()) > 30
    assert sorted(kind for kind in kinds() if f"`{kind}`" not in PAGE) == []


@pytest.mark.parametrize("command", ["up", "down", "status", "reset", "migrate"])
def test_every_command_and_option_is_named(command: str) -> None:
    assert f"fleetctl {command}" in PAGE
    source = inspect.getsource(getattr(commands, command))
    options = re.findall(r'"(--[\w-]+)(?:/(--no-[\w-]+))?"', source)
    assert [off or on for on, off in options if (off or on) not in PAGE] == []
