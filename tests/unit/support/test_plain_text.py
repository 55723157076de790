"""What an agent writes into tables: no text of a service, of Git or of Docker makes a row that is refused."""

from __future__ import annotations

import json

from fleet_agent.support import plain_text

HOSTILE = "a\x1b[2J\nb\u202e\u2028\ud800\x00c"


def test_a_sentence_is_one_line_and_keeps_what_was_there_as_marks() -> None:
    assert plain_text.one_line(HOSTILE) == "a\\x1b[2J b\\u202e \\ud800\\x00c"
    assert plain_text.one_line("Größe \u05e9\u200d🙂") == "Größe \u05e9\u200d🙂"


def test_a_row_can_be_stored() -> None:
    row = plain_text.row(
        {
            "reason": HOSTILE,
            "error": HOSTILE,
            "n": 3,
            "evidence": {"x\x00": [HOSTILE, None, 1.5]},
            "long": "\x1b" * 4000,
        },
        several_lines={"error"},
    )
    assert row["reason"] == plain_text.one_line(HOSTILE)
    assert row["error"] == "a\\x1b[2J\nb\\u202e\u2028\\ud800\\x00c"
    assert row["n"] == 3 and len(row["long"]) == 4000
    nested = json.dumps(row["evidence"], ensure_ascii=False)
    assert "\x00" not in nested and "\ud800" not in nested
    assert row["evidence"]["x\\x00"][0].startswith("a\x1b[2J\nb"), "JSON holds the rest as it is"
