"""Everything people read is in plain American English: docs/development/style.md lists what is refused."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from tests.support.visible_texts import Text, visible_texts

ROOT = Path(__file__).resolve().parents[2]
PAGE = "docs/development/style.md"
#: The page that quotes bad sentences on purpose.
QUOTES = {PAGE}


def patterns() -> list[tuple[str, str]]:
    """Each refused pattern and what to write instead, as the page has them."""
    (block,) = re.findall(r"^```text\n(.*?)^```", (ROOT / PAGE).read_text(), re.DOTALL | re.MULTILINE)
    return [tuple(re.split(r" +→ ", line)) for line in block.splitlines()]  # type: ignore[misc]


@pytest.fixture(scope="module")
def texts() -> list[Text]:
    return [text for text in visible_texts() if text.file not in QUOTES]


def test_texts_of_every_kind_are_read(texts: list[Text]) -> None:
    """A reader that finds nothing would let everything pass."""
    for start, least in {
        "fleet_agent/": 1500,
        "scripts/fleetctl/": 1500,
        "web/src/": 800,
        "supabase/local/": 300,
        "edge_functions/": 80,
        "migrations/": 1000,
        "docs/": 1000,
    }.items():
        assert sum(text.file.startswith(start) for text in texts) >= least, start


@pytest.mark.parametrize(("pattern", "instead"), patterns(), ids=lambda value: value)
def test_nothing_that_people_read_has_a_refused_phrase(pattern: str, instead: str, texts: list[Text]) -> None:
    compiled = re.compile(pattern, re.IGNORECASE | re.MULTILINE)
    found = [
        f"{text.file}:{text.line}: …{text.text[max(0, hit.start() - 40) : hit.end() + 40]}… write: {instead}"
        for text in texts
        for hit in compiled.finditer(text.text)
    ]
    assert found == []
