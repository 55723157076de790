"""The fingerprint of a key, by which people let a device in."""

from __future__ import annotations

from fleet_agent.support.fingerprint import fingerprint


def test_a_key_has_the_fingerprint_that_the_dashboard_shows() -> None:
    """web/src/devices/fingerprint.test.ts has the same pair."""
    key = "4OHi4-Tl5ufo6err7O3u7_Dx8vP09fb3-Pn6-_z9_v8"
    assert fingerprint(key) == "9432-c1a7-d343-fcfa-cb16-4bdc-44ff-71c1"
