"""The engine's memory, in one file that is either the old version or the new one.

A journal that cannot be read is set aside and rebuilt from the links, which are changed only in an order that
allows it: `app_next` exists exactly while a staged release is neither committed nor given up.
"""

from __future__ import annotations

from datetime import UTC, datetime
from enum import StrEnum
from pathlib import Path
from typing import Any
from uuid import UUID, uuid4

from loguru import logger
from pydantic import Field
from pydantic import ValidationError as PydanticValidationError

from fleet_agent.engine.failure_memory import PASSING, SOON_OVER
from fleet_agent.engine.phases import UNTOUCHED, Phase
from fleet_agent.model import DeviceAssignment, Frozen, Outcome, Release, ReportState


class Deployed(Frozen):
    """A release in a role: what runs, ran or is to run here."""

    release: Release
    role: str

    @property
    def key(self) -> str:
        """Names its stack on disk. A role change at the same commit is another deployment."""
        return f"{self.release.commit_sha}.{self.role}"

    @property
    def prefetch_key(self) -> str:
        """What is remembered about prefetching it: apart, so that the update is tried all the same."""
        return f"{self.key}.prefetch"


class AttemptKind(StrEnum):
    """Why the device changes what it runs."""

    UPDATE = "update"
    #: Bring a release here and stop before the swap: recorded only if it shows the release to be bad.
    PREFETCH = "prefetch"
    #: An operator sends it back to the previous release, which is still complete here.
    GO_BACK = "go_back"
    #: Out of safe mode, to what was committed last.
    EXIT_SAFE_MODE = "exit_safe_mode"
    #: The same without anybody: what was well before is tried again. Recorded only if it works.
    COME_BACK = "come_back"


class Failure(Frozen):
    """Why an attempt failed. `evidence` is small and holds no secret."""

    phase: Phase
    kind: str
    message: str
    retryable: bool = False
    evidence: dict[str, Any] = Field(default_factory=dict)

    @property
    def passes(self) -> bool:
        """Whether it may pass by itself and cannot be the release's own fault."""
        return self.retryable and (self.phase in UNTOUCHED or self.kind in PASSING | SOON_OVER)


class AttemptInHand(Frozen):
    """An attempt. `id` and `started_at` are fixed at its first moment: recording it twice is harmless."""

    id: UUID
    kind: AttemptKind = AttemptKind.UPDATE
    target: Deployed
    origin: Deployed | None = None
    assignment: DeviceAssignment | None = None
    rollout_id: UUID | None = None
    started_at: datetime
    finished_at: datetime | None = None
    outcome: Outcome | None = None
    failure: Failure | None = None
    #: How often the engine died while it had this attempt in hand.
    interruptions: int = 0
    durations_ms: dict[str, int] = Field(default_factory=dict)
    bytes_fetched: int = 0
    #: Bytes that came ahead of it, when the release was prefetched; None if it was not.
    prefetched_bytes: int | None = None
    #: Who signed it, as verified here.
    signer: str | None = None
    #: When its commit was made, as the commit says.
    committed_at: datetime | None = None
    #: What the probation rested on, for people; empty until it has ended.
    proof: str = ""
    #: Why it was requested; empty for an update.
    reason: str = ""

    @property
    def memory_key(self) -> str:
        """Under which what it teaches is remembered."""
        return self.target.prefetch_key if self.kind is AttemptKind.PREFETCH else self.target.key


class SafeMode(Frozen):
    """Why the device is in safe mode, and whether what was committed last keeps running beside it.

    `next_try_at` is when the device tries by itself to bring back what was well before; None: never.
    """

    reason: str
    kind: str
    release_runs: bool = False
    since: datetime
    tries: int = 0
    next_try_at: datetime | None = None


class PrefetchRecord(Frozen):
    """The release that was requested ahead of its update; with `ready`, all of it is here and validated.

    `at` is when that was so, or when it was requested. `error` tells why it could not be made ready.
    """

    target: Deployed
    at: datetime
    ready: bool = False
    bytes_fetched: int = 0
    error_kind: str | None = None
    error: str | None = None


class PendingRelease(Frozen):
    """The release of an attempt that ended and is not given up for good; `since` is when it ended."""

    target: Deployed
    since: datetime


class Journal(Frozen):
    """The engine's memory between two starts."""

    version: int = 1
    phase: Phase = Phase.STEADY
    state: ReportState = ReportState.HEALTHY
    reason: str = ""
    error_kind: str | None = None
    error: str | None = None
    current: Deployed | None = None
    previous: Deployed | None = None
    attempt: AttemptInHand | None = None
    prefetch: PrefetchRecord | None = None
    #: What of it is here stays: its next try would have to bring it again.
    pending: PendingRelease | None = None
    #: The device's assignment, as the control plane gave it last.
    assignment: DeviceAssignment | None = None
    safe_mode: SafeMode | None = None
    #: `docker` or `simulated`, chosen once: a device whose Docker is down must not start to simulate.
    runtime: str | None = None
    #: The Compose project of the last attempt.
    project: str | None = None
    #: Attempts that failed one after the other; a success resets it.
    failures_in_a_row: int = 0
    #: What of the running release is not as it should be, and stayed so with other containers.
    unrepaired: tuple[str, ...] = ()
    #: Times the running release had to be started again without proving healthy in between.
    restarts_in_a_row: int = 0


def load(file: Path, *, set_aside: bool = True) -> Journal | None:
    """Read the journal; None if there is none or it is unreadable (then it is set aside, not lost)."""
    try:
        raw = file.read_bytes()
    except FileNotFoundError:
        return None
    except OSError as error:
        logger.error("the journal {file} cannot be read: {error}", file=file, error=error)
        return None
    try:
        return Journal.model_validate_json(raw)
    except PydanticValidationError as error:
        if not set_aside:
            return None
        aside = file.with_name(f"journal.unreadable-{datetime.now(UTC):%Y%m%dT%H%M%S}.json")
        logger.error(
            "the journal cannot be read and is set aside as {aside}: {problem}",
            aside=aside.name,
            problem=error.errors(include_url=False, include_input=False)[0]["msg"],
        )
        file.replace(aside)
        return None


def new_attempt(target: Deployed, origin: Deployed | None, now: datetime) -> AttemptInHand:
    """A stand-in for an attempt of which only the links are left."""
    return AttemptInHand(id=uuid4(), target=target, origin=origin, started_at=now)
