"""Where a command acts, and as whom."""

from __future__ import annotations

from dataclasses import dataclass, field
from urllib.parse import urlsplit

from fleetctl.errors import FleetctlError


@dataclass(frozen=True)
class Target:
    """A control plane's URL, and who uses it: the secret key, or a person. `repr` leaves secrets out."""

    api_url: str
    key: str = field(repr=False)
    token: str | None = field(default=None, repr=False)
    email: str | None = None
    user_id: str | None = None
    #: What a person calls it: a name of `fleetctl fleet list`, a data folder, or where the address is from.
    fleet: str = ""
    #: The key that devices of this fleet use, if it is known here.
    publishable_key: str | None = None


def address(text: str) -> str:
    """`text` as the address of a control plane, written like every other one of it.

    Raises FleetctlError `address_malformed`.
    """
    try:
        parts = urlsplit(text.strip())
        usable = parts.scheme.lower() in ("http", "https") and parts.hostname and (parts.port or 1)
        spaces = any(character.isspace() or not character.isprintable() for character in text.strip())
    except ValueError:
        usable, spaces = None, False
    if not usable or spaces:
        raise FleetctlError(
            "address_malformed",
            f"{text} is not the address of a control plane.",
            hint="Write it like https://<ref>.supabase.co or http://127.0.0.1:54321.",
            exit_code=2,
        )
    return f"{parts.scheme.lower()}://{parts.netloc.lower()}{parts.path.rstrip('/')}"
