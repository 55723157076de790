"""docs/usage/reliability.md and security.md promise only what a test holds, and name what one can watch."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from fleetctl.demo.faults.scenarios import SCENARIOS

ROOT = Path(__file__).resolve().parents[2]
DOC = (ROOT / "docs" / "usage" / "reliability.md").read_text()
SECURITY = (ROOT / "docs" / "usage" / "security.md").read_text()
TESTS = "\n".join(file.read_text() for file in (ROOT / "tests").rglob("*.py"))


@pytest.mark.parametrize("name", sorted(set(re.findall(r"`(test_\w+)`", DOC + SECURITY))))
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


def test_each_line_of_the_threat_model_names_a_test() -> None:
    lines = [line for line in SECURITY.splitlines() if line.startswith("|")]
    rows = [line for line in lines if not line.startswith(("|---", "| what they"))]
    assert rows
    assert [row for row in rows if not re.search(r"`test_\w+`[^|]*\|$", row)] == []
