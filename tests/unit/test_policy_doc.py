"""docs/usage/policy.md names each gate of the policy, and no other."""

from __future__ import annotations

import re
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
PAGE = (ROOT / "docs" / "usage" / "policy.md").read_text(encoding="utf-8")


def test_each_gate_is_in_the_table_once_and_no_other() -> None:
    table = PAGE.split("## The gates, in order")[1].split("\n### ")[0]
    described = re.findall(r"^\| `(\w+)` \|", table, re.MULTILINE)
    source = "".join(file.read_text(encoding="utf-8") for file in (ROOT / "migrations").glob("*.sql"))
    judged = set(re.findall(r"private\.gate_(?:pass|wait|refuse|note)\('(\w+)'", source))
    assert sorted(described) == sorted(judged)
