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


#: Of what is good and must be taken, of how a test is made, or of arithmetic: no line of the threat model.
_NO_ATTACK = {
    "test_a_ration_is_as_large_as_it_says",
    "test_an_address_that_is_one_is_taken",
    "test_each_row_was_tried_and_the_page_names_what_can_be_declared",
    "test_other_names_are_taken",
    "test_what_is_large_and_good_is_taken",
    "test_what_stays_inside_is_taken",
}


def test_each_attack_is_a_line_of_the_threat_model() -> None:
    """In its own words, or as a part of one that is named in the same file."""
    lacking = []
    for file in sorted((ROOT / "tests" / "attack").glob("test_*.py")):
        played = set(re.findall(r"^(?:async )?def (test_\w+)\(", file.read_text(), re.MULTILINE))
        lacking += sorted(name for name in played - _NO_ATTACK if f"`{name}`" not in SECURITY)
    assert lacking == []


def test_each_line_of_the_threat_model_names_a_test() -> None:
    lines = [line for line in SECURITY.splitlines() if line.startswith("|")]
    rows = [line for line in lines if not line.startswith(("|---", "| what they"))]
    assert rows
    assert [row for row in rows if not re.search(r"`test_\w+`[^|]*\|$", row)] == []
