"""docs/usage/reliability.md promises only what a test holds, and names each scenario that one can watch."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from fleetctl.demo.faults.scenarios import SCENARIOS

ROOT = Path(__file__).resolve().parents[2]
DOC = (ROOT / "docs" / "usage" / "reliability.md").read_text()
TESTS = "\n".join(file.read_text() for file in (ROOT / "tests").rglob("*.py"))


@pytest.mark.parametrize("name", sorted(set(re.findall(r"`(test_\w+)`", DOC))))
def test_each_test_named_exists(name: str) -> None:
    assert f"def {name}(" in TESTS


@pytest.mark.parametrize("file", sorted(set(re.findall(r"`((?:tests/)?[\w/]*test_\w+\.py)`", DOC))))
def test_each_file_named_exists(file: str) -> None:
    assert any((ROOT / "tests").rglob(Path(file).name))
    assert (ROOT / file).exists() or "/" not in file


@pytest.mark.parametrize("name", [scenario.name for scenario in SCENARIOS])
def test_each_scenario_of_the_demo_is_named(name: str) -> None:
    assert re.search(rf"^\|.*\| `{name}` \|$", DOC, re.MULTILINE)
    assert f"`{name}`" in (ROOT / "docs" / "usage" / "fleetctl.md").read_text()
