"""A sentence says "1 device" and "2 devices": a number before a noun comes from a function that knows."""

from __future__ import annotations

import re
from pathlib import Path

from tests.support.visible_texts import ROOT

NOUNS = (
    "device|rollout|release|command|row|outcome|attempt|slot|stage|container|check|round|alert|halt|token|file|variable|"
    "service|image|commit|key|segment|role|branch|opening|message|operator|volume|pattern"
)
#: A number that is never 1: a limit, or a part of more.
NEVER_ONE = (
    "SIMULATED_DEVICES", "COPY_FILES_LIMIT", "FILES_LIMIT", "len(rows)", "len(attempts)", "halted.spared",
    "len(entries)",
)  # fmt: skip


def _bare_numbers(text: str, placeholder: str) -> list[str]:
    found = re.finditer(rf"({placeholder}) (?:more |other |attempted )?(?:{NOUNS})s\b", text)
    return [match[0] for match in found if not any(name in match[1] for name in NEVER_ONE)]


def test_no_sentence_in_sql_puts_a_number_before_a_plural() -> None:
    files = sorted((Path(ROOT) / "migrations").glob("*.sql"))
    wrong = [
        f"{file.name}: {line.strip()}"
        for file in files
        for line in file.read_text(encoding="utf-8").splitlines()
        if _bare_numbers(line, "%s") and "slots = 1" not in line
    ]
    assert wrong == []


def test_no_sentence_in_python_puts_a_number_before_a_plural() -> None:
    wrong = [
        f"{file.relative_to(ROOT)}: {bare}"
        for part in ("fleet_agent", "scripts")
        for file in sorted((Path(ROOT) / part).rglob("*.py"))
        for bare in _bare_numbers(file.read_text(encoding="utf-8"), r"\{[^{}\n]+\}")
    ]
    assert wrong == []
