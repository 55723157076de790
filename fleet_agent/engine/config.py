"""What the engine must know about its device."""

from __future__ import annotations

from pathlib import Path
from typing import Literal
from uuid import UUID

from pydantic import Field

from fleet_agent.config import RescueAccess
from fleet_agent.model import Frozen
from fleet_agent.paths import Paths
from fleet_agent.support.sizes import MIB


class EngineConfig(Frozen):
    """Sizes in bytes, times in seconds."""

    root: Path
    git_url: str
    runtime: Literal["docker", "simulated", "auto"] = "auto"
    project: str = Field(default="fleet", pattern=r"^[a-z0-9][a-z0-9_-]{0,62}$")
    allowed_signers: Path | None = None
    verify_signatures: bool = True
    #: The fleet whose releases run here; None: that of the first release that was verified.
    fleet_id: UUID | None = None
    refuse_older_releases: bool = False
    min_free_bytes: int = Field(default=256 * MIB, ge=0)
    #: Less than this free, after cleaning up, and the device is in safe mode until space is back.
    critical_free_bytes: int = Field(default=16 * MIB, ge=0)
    #: The Compose program; looked for if it is not given.
    compose: Path | None = None
    #: Memory that must be available when a release is validated.
    min_memory_bytes: int = Field(default=24 * MIB, ge=0)
    #: How long Docker may be away in the middle of an update before that counts as a failure.
    docker_patience_s: float = Field(default=120, ge=0)
    #: What systemd opens while this device is in safe mode; None: rescue access is off.
    rescue_access: RescueAccess | None = None
    #: Failed attempts in a row, or failed tries to start the committed release again, that lead to safe mode.
    safe_mode_after: int = Field(default=3, ge=1)

    @property
    def paths(self) -> Paths:
        return Paths(self.root)

    @property
    def safe_project(self) -> str:
        """The Compose project of the safe-mode stack: its own, so that it can run beside a release."""
        return f"{self.project}-safe"
