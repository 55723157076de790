"""The secrets of one data folder: random, made once, readable by their owner alone."""

from __future__ import annotations

import base64
import hashlib
import json
import secrets
from dataclasses import asdict, dataclass, fields

from fleetctl.errors import FleetctlError
from fleetctl.stack.layout import DataFolder

# What Supabase mixes into the checksum of a self-hosted project's keys.
_KEY_REFERENCE = "supabase-self-hosted"


@dataclass(frozen=True, repr=False)
class Keys:
    """API keys, the HS256 secret of all tokens, and the passwords of the database's login roles.

    `repr` is left out on purpose: a traceback must not show them.
    """

    publishable_key: str
    secret_key: str
    jwt_secret: str
    supabase_admin_password: str
    postgres_password: str
    authenticator_password: str
    supabase_auth_admin_password: str

    @classmethod
    def new(cls) -> Keys:
        return cls(
            publishable_key=_api_key("publishable"),
            secret_key=_api_key("secret"),
            # As text, its UTF-8 bytes are the HMAC key; 48 random bytes is more than HS256 can use.
            jwt_secret=secrets.token_urlsafe(48),
            supabase_admin_password=secrets.token_urlsafe(24),
            postgres_password=secrets.token_urlsafe(24),
            authenticator_password=secrets.token_urlsafe(24),
            supabase_auth_admin_password=secrets.token_urlsafe(24),
        )

    @classmethod
    def load(cls, folder: DataFolder) -> Keys:
        """Read the folder's keys; raises FleetctlError `keys_missing` or `keys_unreadable`."""
        try:
            text = folder.keys.read_text()
        except FileNotFoundError as error:
            raise FleetctlError(
                "keys_missing",
                f"{folder.root} contains no keys: no stack was ever started there.",
                hint=f"Start one: fleetctl up --data {folder.root}",
            ) from error
        except OSError as error:
            raise _unreadable(folder, error.strerror or str(error)) from error
        try:
            return cls(**json.loads(text))
        except (TypeError, ValueError) as error:
            raise _unreadable(folder, "it is damaged or was written by another version") from error

    @classmethod
    def load_or_create(cls, folder: DataFolder) -> Keys:
        """The folder's keys, created (mode 0600) if there are none.

        A database without its keys is refused (`keys_lost`): new keys would not open it.
        """
        if folder.keys.exists():
            return cls.load(folder)
        if folder.postgres.exists():
            raise FleetctlError(
                "keys_lost",
                f"{folder.postgres} contains a database, but its {folder.keys.name} is missing.",
                hint=f"Restore {folder.keys} from a backup, or start over: fleetctl reset",
            )
        # Loaded by the first start alone.
        from fleet_agent.support.atomic_files import write_atomic

        keys = cls.new()
        write_atomic(folder.keys, (json.dumps(asdict(keys), indent=2) + "\n").encode(), mode=0o600)
        return keys

    def secrets(self) -> tuple[str, ...]:
        """Every value that must not appear in a log."""
        public = ("publishable_key",)
        return tuple(getattr(self, field.name) for field in fields(self) if field.name not in public)


def _api_key(kind: str) -> str:
    """`sb_<kind>_<22 characters>_<checksum>`, as Supabase makes them: tools check the shape."""
    body = f"sb_{kind}_{_base64url(secrets.token_bytes(17))[:22]}"
    checksum = _base64url(hashlib.sha256(f"{_KEY_REFERENCE}|{body}".encode()).digest())[:8]
    return f"{body}_{checksum}"


def _base64url(data: bytes) -> str:
    return base64.urlsafe_b64encode(data).decode().rstrip("=")


def _unreadable(folder: DataFolder, why: str) -> FleetctlError:
    return FleetctlError(
        "keys_unreadable", f"{folder.keys} cannot be read: {why}.", hint="Restore it from a backup."
    )
