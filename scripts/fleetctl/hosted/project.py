"""What is known about the project, and the folder in which its files are kept."""

from __future__ import annotations

import re
from dataclasses import dataclass, field
from pathlib import Path
from urllib.parse import urlsplit

from fleet_agent.support.atomic_files import write_atomic
from fleetctl.doctor import ControlPlane, Kind, read_signing_key
from fleetctl.errors import FleetctlError
from fleetctl.stack.layout import Project

_REF = re.compile(r"[a-z]{20}")


@dataclass
class HostedProject:
    """`ref` is what stands before `.supabase.co`. The keys become known on the way."""

    ref: str
    folder: Path
    checkout: Project
    db_url: str = field(repr=False)
    email: str
    api_url: str = ""
    publishable_key: str | None = None
    secret_key: str | None = field(default=None, repr=False)

    def __post_init__(self) -> None:
        """Raises FleetctlError `project_ref_malformed`, `project_mismatch`."""
        if not _REF.fullmatch(self.ref):
            raise FleetctlError(
                "project_ref_malformed",
                f"{self.ref} is not the reference of a project.",
                hint="It is the 20 letters before .supabase.co in the project's address.",
                exit_code=2,
            )
        self.api_url = self.api_url or f"https://{self.ref}.supabase.co"
        parts = urlsplit(self.db_url)
        hosted = (parts.hostname or "").endswith((".supabase.co", ".supabase.com"))
        if hosted and self.ref not in f"{parts.username}@{parts.hostname}":
            raise FleetctlError(
                "project_mismatch",
                f"The database URL is not that of the project {self.ref}.",
                hint="Copy it from the project's dashboard, under Connect.",
                exit_code=2,
            )

    @property
    def signing_key(self) -> Path:
        """A secret: with it, one can make tokens of every device."""
        return self.folder / "signing-key.json"

    @property
    def dashboard(self) -> Path:
        return self.folder / "dashboard"

    def keep_private(self, path: Path, text: str) -> None:
        self.folder.mkdir(parents=True, exist_ok=True, mode=0o700)
        write_atomic(path, text.encode(), mode=0o600)

    def control_plane(self) -> ControlPlane:
        return ControlPlane(
            api_url=self.api_url,
            kind=Kind.HOSTED,
            migrations=self.checkout.migrations,
            key=self.secret_key or "",
            publishable_key=self.publishable_key,
            db_url=self.db_url,
            signing_key=read_signing_key(self.signing_key) if self.signing_key.exists() else None,
        )
