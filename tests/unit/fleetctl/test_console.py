"""Text of others at the operator's terminal: shown, never obeyed."""

from __future__ import annotations

import json

import pytest

from fleetctl import console

_HOSTILE = (
    "\x1b]0;owned\x1b\\\x9b2J\re\nforged line \u202egpj.sh\u200b\u2028\ufe0f\U000e0041:bomb: [red]K\u00fcche"
)
_SHOWN = (
    r"\x1b]0;owned\x1b\\x9b2J\re\nforged line \u202egpj.sh\u200b\u2028\ufe0f\U000e0041:bomb: [red]K"
    + "\u00fcche"
)


def test_what_a_device_says_is_shown_and_never_obeyed(capsys: pytest.CaptureFixture[str]) -> None:
    # The consoles look up stdout and stderr at each call.
    console.print_table("", ["error"], [[_HOSTILE]])
    console.pairs({"reason": _HOSTILE})
    console.print_error("refused", _HOSTILE)
    console.print_warning(_HOSTILE)
    console.out.print(_HOSTILE, markup=False)
    printed = capsys.readouterr()
    for stream, times in ((printed.out, 3), (printed.err, 2)):
        assert not [c for c in stream if c != "\n" and console.marked(c) != c]
        unwrapped = stream.replace("\n", " ")
        assert unwrapped.count("gpj.sh") == times
        assert "[red]K\u00fcche" in unwrapped and ":bomb:" in unwrapped
    assert console.marked(_HOSTILE) == _SHOWN
    assert not [line for line in printed.out.splitlines()[:-2] if line.startswith("forged")]
    # An error may bring the last lines of a log.
    assert [line.startswith("  │ forged") for line in printed.err.splitlines() if "forged" in line] == [
        True
    ] * 2


def test_json_stays_exact(capsys: pytest.CaptureFixture[str]) -> None:
    console.print_json({"error": _HOSTILE})
    assert json.loads(capsys.readouterr().out) == {"error": _HOSTILE}
