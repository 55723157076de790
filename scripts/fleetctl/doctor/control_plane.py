"""What is known about the control plane that is examined."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from enum import StrEnum
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

from fleetctl.errors import FleetctlError


class Kind(StrEnum):
    EMBEDDED = "embedded"
    #: `supabase start`, or Supabase on machines of one's own.
    SELF_HOSTED = "self-hosted"
    HOSTED = "hosted"


@dataclass(frozen=True)
class ControlPlane:
    """Secrets stay out of `repr`. None: it is not known here, and what needs it is not checked."""

    api_url: str
    kind: Kind
    migrations: Path
    key: str = field(repr=False)
    publishable_key: str | None = None
    db_url: str | None = field(default=None, repr=False)
    #: The private JWK with which `device-token` signs.
    signing_key: Mapping[str, Any] | None = field(default=None, repr=False)

    def settings_page(self, name: str) -> str:
        """Where a person finds something in the project's own dashboard."""
        return f"Open the project's dashboard, {name}"


def kind_of(api_url: str, *, is_embedded: bool) -> Kind:
    if is_embedded:
        return Kind.EMBEDDED
    hosted = (urlsplit(api_url).hostname or "").endswith((".supabase.co", ".supabase.in"))
    return Kind.HOSTED if hosted else Kind.SELF_HOSTED


def read_signing_key(path: Path) -> dict[str, Any]:
    """The JWK in a file, as `supabase gen signing-key` prints it. Raises `signing_key_invalid`."""
    try:
        jwk = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise _invalid(path, getattr(error, "strerror", None) or "it is not JSON") from error
    if isinstance(jwk, list) and len(jwk) == 1:
        (jwk,) = jwk
    if isinstance(jwk, dict) and jwk.get("kty") == "oct" and jwk.get("k"):
        # The JWT secret of a project of one's own; nobody publishes it.
        return jwk
    if not isinstance(jwk, dict) or jwk.get("kty") != "EC" or jwk.get("crv") != "P-256":
        raise _invalid(path, "it is not an EC key on P-256")
    if not jwk.get("kid") or not jwk.get("d"):
        raise _invalid(path, "it has no kid, or no private part")
    return jwk


def _invalid(path: Path, why: str) -> FleetctlError:
    return FleetctlError(
        "signing_key_invalid",
        f"{path} is not the signing key of device tokens: {why}.",
        hint="Make one: supabase gen signing-key --algorithm ES256",
        exit_code=2,
    )
