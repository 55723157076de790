"""The engine: its journal, what it depends on, and the one function that changes phase."""

from __future__ import annotations

from collections.abc import Callable
from datetime import datetime, timedelta
from functools import cached_property
from pathlib import Path
from random import Random
from typing import TypeVar
from uuid import UUID, uuid4

from loguru import logger

from fleet_agent.attempts.outbox import Outbox
from fleet_agent.containers import factory
from fleet_agent.containers.base import ComposeStack, Runtime
from fleet_agent.engine import failure_memory, redaction
from fleet_agent.engine.config import EngineConfig
from fleet_agent.engine.dependencies import Dependencies, Source
from fleet_agent.engine.failure_memory import FIXED_BY_ENV, PASSING, SOON_OVER, BadRelease, Memory
from fleet_agent.engine.git_source import GitSource
from fleet_agent.engine.instrumented_runtime import InstrumentedRuntime
from fleet_agent.engine.journal import AttemptInHand, AttemptKind, Deployed, Failure, Journal
from fleet_agent.engine.phases import RESTING, Phase, check_move
from fleet_agent.engine.stack_store import StackStore
from fleet_agent.engine.state_files import StateFiles
from fleet_agent.errors import FleetError, Kind, internal
from fleet_agent.model import DeviceAssignment, Progress
from fleet_agent.support import retry

T = TypeVar("T")
Report = Callable[[Progress], None]


class Engine:
    """Everything a step needs. Only for whoever holds the converge lock."""

    def __init__(
        self, config: EngineConfig, dependencies: Dependencies, report: Report, journal: Journal
    ) -> None:
        self.config = config
        self.dependencies = dependencies
        self.clock, self.effects = dependencies.clock, dependencies.effects
        self.paths = config.paths
        self.journal = journal
        self.files = StateFiles(self.effects, self.paths.state / "reserve")
        self.stacks = StackStore(self.paths, self.files)
        self.outbox = Outbox(self.paths.outbox)
        self.random = Random()  # noqa: S311  spreads retries, hides nothing
        #: True until the first phase after a start is done: what was under way may be half done.
        self.resumed = journal.phase not in RESTING
        self._report = report
        self._entered = self._started = self.clock.monotonic()
        self._began_here = False
        self._memory: Memory | None = None

    # Phases

    def move(self, to: Phase, **changes: object) -> None:
        """Change phase: checked against the table, written durably, then logged and reported."""
        was = self.journal.phase
        check_move(was, to)
        attempt = changes.pop("attempt", self.journal.attempt)
        now = self.clock.monotonic()
        if isinstance(attempt, AttemptInHand) and was not in RESTING:
            spent = attempt.durations_ms.get(was, 0) + round((now - self._entered) * 1000)
            attempt = attempt.model_copy(update={"durations_ms": {**attempt.durations_ms, was.value: spent}})
            if to is Phase.RECORDING and attempt.finished_at is None:
                attempt = attempt.model_copy(update={"finished_at": self._finished(attempt)})
        self.save(phase=to, attempt=attempt, **changes)
        self._entered, self.resumed = now, False
        logger.info(
            "{was} → {to}{why}", was=was, to=to, why=f": {self.journal.reason}" if self.journal.reason else ""
        )
        self.report_progress("")

    def save(self, **changes: object) -> None:
        """Write the journal durably with `changes`; memory changes only once they are on disk."""
        changed = self.journal.model_copy(update=changes)
        self.files.write(self.paths.journal, changed.model_dump_json(indent=1).encode())
        self.journal = changed

    def report_progress(self, detail: str, percent: float | None = None) -> None:
        """Tell the daemon how far this is."""
        attempt = self.journal.attempt
        prefetching = attempt is not None and attempt.kind is AttemptKind.PREFETCH
        self._report(
            Progress(
                phase=self.journal.phase,
                prefetching=prefetching,
                detail=detail,
                percent=percent,
                target=attempt.target.release if attempt else None,
                attempt_id=attempt.id if attempt and not prefetching else None,
            )
        )

    # The attempt in hand

    @property
    def attempt(self) -> AttemptInHand:
        """Raises StateError (`internal`) if there is none: a bug."""
        if self.journal.attempt is None:
            raise internal(f"phase {self.journal.phase} has no attempt")
        return self.journal.attempt

    def begin(
        self,
        kind: AttemptKind,
        target: Deployed,
        *,
        first: Phase,
        assignment: DeviceAssignment | None,
        rollout_id: UUID | None = None,
        reason: str = "",
        **changes: object,
    ) -> None:
        """Start an attempt. Its id and start are fixed here and stored twice, in case the journal is lost."""
        running = self.journal.safe_mode is None or self.journal.safe_mode.release_runs
        attempt = AttemptInHand(
            id=uuid4(),
            kind=kind,
            target=target,
            origin=self.journal.current if running else None,
            assignment=assignment or self.journal.assignment,
            rollout_id=rollout_id,
            started_at=self.clock.corrected(),
            prefetched_bytes=self._prefetched_bytes(target),
            reason=reason,
        )
        self._started, self._began_here = self.clock.monotonic(), True
        self.files.keep_reserve()
        if kind is not AttemptKind.PREFETCH:
            # A prefetch makes no row, so there is none to lose.
            self.files.write(self.attempt_file, attempt.model_dump_json().encode())
        self.move(
            first,
            attempt=attempt,
            assignment=attempt.assignment,
            reason=reason or self.journal.reason,
            runtime=self.runtime.name,
            project=self.config.project,
            **changes,
        )

    @property
    def attempt_began(self) -> datetime:
        """When the attempt started by the machine's own clock, which is also Docker's."""
        clock = self.clock
        return clock.now() - (clock.corrected() - self.attempt.started_at)

    def _prefetched_bytes(self, target: Deployed) -> int | None:
        prefetch = self.journal.prefetch
        ready = prefetch is not None and prefetch.ready and prefetch.target.key == target.key
        return prefetch.bytes_fetched if prefetch is not None and ready else None

    def with_failure(self, error: FleetError) -> AttemptInHand:
        """The attempt with its first failure; what goes wrong on the way back does not hide it."""
        if self.attempt.failure is not None:
            return self.attempt
        # What the Git host says is not the release's doing: only what was verified can be bad.
        before_verified = self.journal.phase is Phase.FETCHING
        failure = Failure(
            phase=self.journal.phase,
            kind=error.kind,
            message=self.redact(error.message),
            retryable=error.retryable or error.kind in PASSING or before_verified,
            evidence=redaction.redact_evidence(error.evidence, self.redact),
        )
        return self.attempt.model_copy(update={"failure": failure})

    def _finished(self, attempt: AttemptInHand) -> datetime:
        """By the monotonic clock if it ran here all along: the wall clock may have jumped, even back."""
        if self._began_here:
            return attempt.started_at + timedelta(seconds=self.clock.monotonic() - self._started)
        worked = timedelta(milliseconds=sum(attempt.durations_ms.values()))
        return max(self.clock.corrected(), attempt.started_at + worked)

    # What is around

    @property
    def attempt_file(self) -> Path:
        """A second copy of the attempt in hand; see `rebuild`."""
        return self.paths.state / "attempt.json"

    @cached_property
    def runtime(self) -> Runtime:
        if self.dependencies.runtime is not None:
            return InstrumentedRuntime(self.dependencies.runtime, self.effects, self.cleaned)
        choice = factory.choose(self.config.runtime, self.journal.runtime)
        made = factory.make(choice, self.paths, compose=self.config.compose)
        return InstrumentedRuntime(made, self.effects, self.cleaned)

    @cached_property
    def source(self) -> Source:
        return self.dependencies.source or GitSource(self.config, self.effects)

    @cached_property
    def memory_file(self) -> Path:
        return self.paths.known_bad

    @property
    def memory(self) -> Memory:
        if self._memory is None:
            self._memory = failure_memory.load(self.memory_file)
        return self._memory

    def remember(self, memory: Memory) -> None:
        if memory != self.memory:
            self.files.write(self.memory_file, memory.model_dump_json(indent=1).encode())
            self._memory = memory

    def bad_release(self, kind: str, message: str) -> BadRelease:
        """What is remembered of a release that failed here, with the .env if that may be the cause."""
        env = self.env_fingerprint() if kind in FIXED_BY_ENV else None
        return BadRelease(kind=kind, message=message, at=self.clock.corrected(), env=env)

    def stack(self, deployed: Deployed) -> ComposeStack:
        return self.stacks.stack(deployed, self.config.project)

    def env_fingerprint(self) -> str:
        """Changes when the device's .env does."""
        return failure_memory.fingerprint(self.paths.env_file)

    def redact(self, text: str) -> str:
        """`text` without the .env's secrets."""
        attempt = self.journal.attempt
        # Both may be in it, and a secret of one need not be declared by the other.
        running = [attempt.target, attempt.origin] if attempt else [self.journal.current]
        folders = [self.role_folder(deployed) for deployed in running if deployed is not None]
        return redaction.redact(text, self.paths.env_file, folders)

    def cleaned(self, error: FleetError) -> FleetError:
        """`error` itself, without the .env's secrets: what a release prints reaches rows and logs."""
        error.message = self.redact(error.message)
        error.args = (error.message,)
        error.evidence = redaction.redact_evidence(error.evidence, self.redact)
        return error

    def role_folder(self, deployed: Deployed) -> Path:
        return self.paths.release(deployed.release.commit_sha) / "roles" / deployed.role

    def patiently(self, what: str, action: Callable[[], T]) -> T:
        """Do something with another program; if Docker itself is away, wait for it as long as configured.

        What is mostly over soon (Compose or Git was killed, Docker still holds a port) is tried a few times
        more.
        """
        started, tries, again = self.clock.monotonic(), 0, 0
        while True:
            try:
                return action()
            except FleetError as error:
                waited = self.clock.monotonic() - started
                if error.kind is Kind.DOCKER_UNAVAILABLE and waited < self.config.docker_patience_s:
                    tries += 1
                    ceiling = min(retry.DOCKER_CAP_S, retry.DOCKER_BASE_S * 2 ** min(tries, 16))
                    wait = self.random.uniform(retry.DOCKER_FLOOR_S, ceiling)
                    detail = f"waiting for Docker to {what}"
                elif error.retryable and error.kind in SOON_OVER and again < retry.COMPOSE_TRIES:
                    again += 1
                    ceiling = min(retry.COMPOSE_CAP_S, retry.COMPOSE_BASE_S * 2 ** (again - 1))
                    wait = self.random.uniform(ceiling / 2, ceiling)
                    detail = f"{error.message} Trying again to {what}"
                else:
                    raise
                logger.warning(
                    "{what}: {error} Retrying in {wait:.1f} s.", what=what, error=error.message, wait=wait
                )
                self.report_progress(detail)
                self.clock.sleep(wait)
