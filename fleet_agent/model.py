"""The words that the parts of the agent share: what the control plane asks for, and the results.

Parsed from the network with pydantic (`parse_directive`), frozen, and trusted from then on.
"""

from __future__ import annotations

from datetime import UTC, datetime
from enum import StrEnum
from typing import Any
from uuid import UUID

from pydantic import AwareDatetime, BaseModel, ConfigDict, Field

#: No control plane's time is outside of these; arithmetic fails on dates near the ends of the calendar.
EARLIEST, LATEST = datetime(2020, 1, 1, tzinfo=UTC), datetime(2200, 1, 1, tzinfo=UTC)


#: In a release: which fleet it is for.
FLEET_FILE = "roles/common/fleet.json"


class Frozen(BaseModel):
    """A value: immutable; unknown keys from a newer control plane are ignored, wrong types are refused."""

    model_config = ConfigDict(frozen=True, extra="ignore")


class Action(StrEnum):
    """What `desired_state()` asks of a device."""

    RUN = "run"
    UPDATE = "update"
    ROLLBACK = "rollback"
    SAFE_MODE = "safe_mode"
    HOLD = "hold"


class ReportState(StrEnum):
    """`device_status.state`."""

    HEALTHY = "healthy"
    UPDATING = "updating"
    DEGRADED = "degraded"
    ROLLED_BACK = "rolled_back"
    ISOLATED = "isolated"
    SAFE_MODE = "safe_mode"


class Outcome(StrEnum):
    """`update_history.outcome`."""

    SUCCEEDED = "succeeded"
    FAILED = "failed"
    ROLLED_BACK = "rolled_back"
    SKIPPED = "skipped"


class CommandKind(StrEnum):
    """`device_commands.kind`."""

    UPDATE_NOW = "update_now"
    ROLLBACK = "rollback"
    ENTER_SAFE_MODE = "enter_safe_mode"
    LEAVE_SAFE_MODE = "leave_safe_mode"
    RESTART = "restart"
    TAIL_LOGS = "tail_logs"
    CHECK_DRIFT = "check_drift"


class Release(Frozen):
    id: UUID
    commit_sha: str = Field(pattern=r"^([0-9a-f]{40}|[0-9a-f]{64})$")
    version: str
    branch: str


class Gate(Frozen):
    """One policy test: `verdict` is `pass`, `wait` or `refuse`; `detail` is a sentence."""

    gate: str
    verdict: str
    detail: str = ""


class Command(Frozen):
    id: UUID
    kind: CommandKind
    args: dict[str, Any] = Field(default_factory=dict)


class DeviceAssignment(Frozen):
    """What the control plane assigned to this device."""

    id: UUID
    name: str
    role: str = Field(pattern=r"^[a-z0-9][a-z0-9-]{0,62}$")
    segment: str
    branch: str


class ServerConfig(Frozen):
    """Settings sent by the server; a value that the device's own file pins takes precedence."""

    labels: dict[str, str] = Field(default_factory=dict)


class Directive(Frozen):
    """The answer of `desired_state()`."""

    action: Action
    device: DeviceAssignment
    release: Release | None = None
    #: With `run`: what may be fetched now, and is applied only once the action is `update`.
    prefetch: Release | None = None
    rollout_id: UUID | None = None
    gates: tuple[Gate, ...] = ()
    commands: tuple[Command, ...] = ()
    config: ServerConfig = ServerConfig()
    next_poll_s: int = Field(ge=1, le=7 * 86400)
    server_time: AwareDatetime = Field(ge=EARLIEST, le=LATEST)


class Attempt(Frozen):
    """One try to move this device to one release: becomes one row of `update_history`.

    `id` and `started_at` are set once, when the attempt starts, so uploading it twice is harmless.
    Times are UTC, durations milliseconds, sizes bytes.
    """

    id: UUID
    release_id: UUID | None
    rollout_id: UUID | None
    from_commit: str | None
    to_commit: str
    outcome: Outcome
    failed_phase: str | None = None
    error_kind: str | None = None
    error: str | None = None
    evidence: dict[str, Any] = Field(default_factory=dict)
    started_at: datetime
    finished_at: datetime
    phase_durations_ms: dict[str, int] = Field(default_factory=dict)
    bytes_fetched: int = 0
    agent_version: str
    #: Who signed the release, as this device verified it.
    signer: str | None = None


class ServiceState(Frozen):
    """One container, as it is shown to people."""

    service: str
    image: str
    state: str
    health: str | None = None
    restarts: int = 0
    exit_code: int | None = None
    started_at: datetime | None = None


class PrefetchStatus(Frozen):
    """What came of prefetching a release. Not `ready` and `again`: the engine tries once more if asked to.

    `error` is why it is not ready, None where nothing stood in the way.
    """

    release: Release
    role: str
    ready: bool
    again: bool = False
    error_kind: str | None = None
    error: str | None = None


class EngineStatus(Frozen):
    """What the update engine knows, read from its journal and the container runtime."""

    state: ReportState
    phase: str
    reason: str = ""
    role: str | None = None
    current: Release | None = None
    previous: Release | None = None
    target: Release | None = None
    prefetch: PrefetchStatus | None = None
    services: tuple[ServiceState, ...] = ()
    error_kind: str | None = None
    error: str | None = None
    #: In safe mode: when the device tries by itself to bring back what was well before.
    next_try_at: AwareDatetime | None = None


class Progress(Frozen):
    """One line of the engine process's standard output while it works.

    `prefetching`: what runs is not going to be touched, whatever the phase.
    """

    phase: str
    prefetching: bool = False
    detail: str = ""
    percent: float | None = None
    target: Release | None = None
    #: The attempt in hand; None for a prefetch, which makes no row.
    attempt_id: UUID | None = None


class FleetFile(Frozen):
    """`roles/common/fleet.json`: the fleet that the releases of a repository are for."""

    fleet_id: UUID
