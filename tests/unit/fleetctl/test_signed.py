"""Who signed a release, in words: as its devices verified it."""

from __future__ import annotations

import pytest

from fleetctl.commands.release import _signed


@pytest.mark.parametrize(
    ("signers", "words"),
    [
        ({}, ""),
        ({"alice@fleet": 12}, "signed by alice@fleet, verified by 12 devices"),
        ({"alice@fleet": 1}, "signed by alice@fleet, verified by 1 device"),
        ({"mallory": 1, "alice": 11}, "devices differ: alice (11 devices), mallory (1 device)"),
    ],
)
def test_words(signers: dict[str, int], words: str) -> None:
    assert _signed(signers) == words
