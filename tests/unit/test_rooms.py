"""The rooms of the agent and of fleetctl: each says what it offers, and the daemon stays small.

Which room may import which is in `[tool.importlinter]` of pyproject.toml; `make lint` holds it.
"""

from __future__ import annotations

import ast
import functools
import importlib
import importlib.util
import json
import re
import subprocess
import sys
from collections.abc import Iterable
from pathlib import Path

import pytest

import fleet_agent
import fleetctl

ROOT = Path(fleet_agent.__file__).parent
ROOMS = sorted(file.parent.name for file in ROOT.glob("*/__init__.py"))
ROOTS = {"fleet_agent": ROOT, "fleetctl": Path(fleetctl.__file__).parent}
ALL_ROOMS = [
    (name, file.parent.name) for name, root in ROOTS.items() for file in sorted(root.glob("*/__init__.py"))
]
#: What a running daemon has loaded, with a subscription.
DAEMON = "fleet_agent.cli.main, fleet_agent.daemon.loop, fleet_agent.control_plane.subscription"


@pytest.fixture(scope="module")
def loaded() -> set[str]:
    """The modules that the daemon loads, in a process of its own."""
    script = (
        "import sys, json; from fleet_agent.host import process_memory; process_memory.leave_out()\n"
        f"import {DAEMON}\n"
        "print(json.dumps(sorted(name for name, module in sys.modules.items() if module)))"
    )
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True)
    return set(json.loads(done.stdout))


def test_the_daemon_loads_none_of_the_heavy_libraries(loaded: set[str]) -> None:
    """They would stay in memory for good: about 20 MiB."""
    heavy = {"docker", "git", "yaml", "cryptography", "jwt", "requests", "h2", "rich", "typer"}
    assert heavy & {name.partition(".")[0] for name in loaded} == set()


def test_the_daemon_does_not_load_the_engine(loaded: set[str]) -> None:
    """It needs the lock and the table of phases; the rest is the engine's process."""
    rooms = {name for name in loaded if name.startswith("fleet_agent.") and name.count(".") > 1}
    assert {name for name in rooms if name.startswith("fleet_agent.engine.")} <= {
        "fleet_agent.engine.lock",
        "fleet_agent.engine.phases",
    }
    assert {name for name in rooms if name.split(".")[1] in ("containers", "release", "health")} == set()


def test_a_room_that_the_daemon_touches_imports_nothing_by_itself(loaded: set[str]) -> None:
    touched = [room for room in ROOMS if f"fleet_agent.{room}" in loaded]
    assert {"cli", "control_plane", "daemon", "engine", "host"} <= set(touched)
    assert {room for room in touched if _imports(_tree(ROOT / room / "__init__.py"))} == set()


@pytest.mark.parametrize(("house", "room"), ALL_ROOMS)
def test_a_room_exports_what_it_has_and_its_map_names_it(house: str, room: str) -> None:
    package = importlib.import_module(f"{house}.{room}")
    exported = package.__all__
    assert exported == sorted(exported)
    for name in exported:
        if importlib.util.find_spec(f"{house}.{room}.{name}") is None:
            assert hasattr(package, name)
        else:
            importlib.import_module(f"{house}.{room}.{name}")
            assert re.search(rf"\b{name}\b", package.__doc__ or ""), f"the map of {room} does not name {name}"


@pytest.mark.parametrize(("house", "room"), ALL_ROOMS)
def test_other_rooms_use_only_what_a_room_exports(house: str, room: str) -> None:
    exported = set(importlib.import_module(f"{house}.{room}").__all__)
    root = ROOTS[house]
    files = [file for file in root.rglob("*.py") if file.relative_to(root).parts[0] != room]
    used = {name for file in files for name in _below(_imported(file), f"{house}.{room}")}
    assert used <= exported


def _tree(file: Path) -> ast.Module:
    return ast.parse(file.read_text())


@functools.cache
def _imported(file: Path) -> frozenset[str]:
    return frozenset(_imports(_tree(file)))


def _imports(tree: ast.Module) -> set[str]:
    """What is imported, from anywhere."""
    found = set()
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            found |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom) and node.module not in (None, "__future__"):
            found |= {f"{node.module}.{alias.name}" for alias in node.names}
    return found


def _below(names: Iterable[str], package: str) -> set[str]:
    """The first name below `package` of what is imported from it."""
    inside = {name.removeprefix(f"{package}.") for name in names if name.startswith(f"{package}.")}
    return {name.partition(".")[0] for name in inside}
