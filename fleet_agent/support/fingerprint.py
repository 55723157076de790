"""A public key as people compare it, on the device and in front of `fleetctl device accept`."""

from __future__ import annotations

import base64
import hashlib


def fingerprint(public_key: str) -> str:
    """The first half of the SHA-256 of a key in base64url without padding, in groups of four hex digits."""
    raw = base64.urlsafe_b64decode(public_key + "=" * (-len(public_key) % 4))
    digest = hashlib.sha256(raw).hexdigest()[:32]
    return "-".join(digest[at : at + 4] for at in range(0, 32, 4))
