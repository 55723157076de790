"""The engine in hand: its journal, its seams, and the one function that changes phase."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from datetime import datetime, timedelta
from functools import cached_property
from pathlib import Path
from random import Random
from typing import Any, TypeVar
from uuid import UUID, uuid4

from loguru import logger

from fleet_agent.attempts.outbox import Outbox
from fleet_agent.containers import factory as choose
from fleet_agent.containers.base import Runtime, Stack
from fleet_agent.engine import failure_memory as memories
from fleet_agent.engine.config import EngineConfig
from fleet_agent.engine.dependencies import Seams
from fleet_agent.engine.failure_memory import MENDED_BY_ENV, PASSING, BadRelease, Memory
from fleet_agent.engine.git_source import GitSource, Source
from fleet_agent.engine.journal import AttemptInHand, AttemptKind, Deployed, Failure, Journal
from fleet_agent.engine.phases import RESTING, Phase, check_move
from fleet_agent.engine.stack_store import Stacks
from fleet_agent.engine.state_files import Files
from fleet_agent.engine.traced_runtime import Traced
from fleet_agent.errors import ContainerError, FleetError, Kind, StateError
from fleet_agent.model import DevicePlace, Progress
from fleet_agent.roles.role import Role, read_env
from fleet_agent.support import retry

T = TypeVar("T")
Report = Callable[[Progress], None]


class Engine:
    """Everything a step needs. Only for whoever holds the converge lock."""

    def __init__(self, config: EngineConfig, seams: Seams, report: Report, journal: Journal) -> None:
        self.config = config
        self.seams = seams
        self.paths = config.paths
        self.journal = journal
        self.files = Files(seams.effects, self.paths.state / "reserve")
        self.stacks = Stacks(self.paths, self.files)
        self.outbox = Outbox(self.paths.outbox)
        self.random = Random()  # noqa: S311  spreads retries, hides nothing
        #: True until the first phase after a start is done: what was under way may be half done.
        self.resumed = journal.phase not in RESTING
        self._report = report
        self._entered = self._started = seams.clock.monotonic()
        self._began_here = False
        self._memory: Memory | None = None

    # Phases

    def move(self, to: Phase, **changes: object) -> None:
        """Change phase: checked against the table, written durably, then logged and reported."""
        was = self.journal.phase
        check_move(was, to)
        attempt = changes.pop("attempt", self.journal.attempt)
        now = self.seams.clock.monotonic()
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
        self.say("")

    def save(self, **changes: object) -> None:
        """Write the journal durably with `changes`; what is in memory changes only once it is on disk."""
        changed = self.journal.model_copy(update=changes)
        self.files.write(self.paths.journal, changed.model_dump_json(indent=1).encode())
        self.journal = changed

    def say(self, detail: str, percent: float | None = None) -> None:
        """Tell the daemon how far this is."""
        attempt = self.journal.attempt
        self._report(
            Progress(
                phase=self.journal.phase,
                prefetching=attempt is not None and attempt.kind is AttemptKind.PREFETCH,
                detail=detail,
                percent=percent,
                target=attempt.target.release if attempt else None,
            )
        )

    # The attempt in hand

    @property
    def attempt(self) -> AttemptInHand:
        """Raises StateError (`internal`) where there is none: a bug."""
        if self.journal.attempt is None:
            raise StateError(Kind.INTERNAL, f"The engine is {self.journal.phase} without an attempt.")
        return self.journal.attempt

    def begin(
        self,
        kind: AttemptKind,
        target: Deployed,
        *,
        first: Phase,
        place: DevicePlace | None,
        rollout_id: UUID | None = None,
        reason: str = "",
        **changes: object,
    ) -> None:
        """Start an attempt. Its id and start are fixed here and kept twice: a lost journal loses none."""
        running = self.journal.safe_mode is None or self.journal.safe_mode.release_runs
        attempt = AttemptInHand(
            id=uuid4(),
            kind=kind,
            target=target,
            origin=self.journal.current if running else None,
            place=place or self.journal.place,
            rollout_id=rollout_id,
            started_at=self.seams.clock.corrected(),
            prefetched_bytes=self._prefetched_bytes(target),
            reason=reason,
        )
        self._started, self._began_here = self.seams.clock.monotonic(), True
        self.files.keep_reserve()
        if kind is not AttemptKind.PREFETCH:
            # A prefetch makes no row, so there is none to lose.
            self.files.write(self.attempt_file, attempt.model_dump_json().encode())
        self.move(
            first,
            attempt=attempt,
            place=attempt.place,
            reason=reason or self.journal.reason,
            runtime=self.runtime.name,
            **changes,
        )

    @property
    def attempt_began(self) -> datetime:
        """When the attempt started by the machine's own clock, which is also Docker's."""
        clock = self.seams.clock
        return clock.now() - (clock.corrected() - self.attempt.started_at)

    def _prefetched_bytes(self, target: Deployed) -> int | None:
        prefetch = self.journal.prefetch
        ready = prefetch is not None and prefetch.ready and prefetch.target.key == target.key
        return prefetch.bytes_fetched if prefetch is not None and ready else None

    def with_failure(self, error: FleetError) -> AttemptInHand:
        """The attempt with its first failure noted; what goes wrong on the way back does not hide it."""
        if self.attempt.failure is not None:
            return self.attempt
        failure = Failure(
            phase=self.journal.phase,
            kind=error.kind,
            message=self.redact(error.message),
            retryable=error.retryable or error.kind in PASSING,
            evidence=redacted(error.evidence, self.redact),
        )
        return self.attempt.model_copy(update={"failure": failure})

    def _finished(self, attempt: AttemptInHand) -> datetime:
        """By the monotonic clock where it ran all along: the wall clock may have jumped, even back."""
        if self._began_here:
            return attempt.started_at + timedelta(seconds=self.seams.clock.monotonic() - self._started)
        worked = timedelta(milliseconds=sum(attempt.durations_ms.values()))
        return max(self.seams.clock.corrected(), attempt.started_at + worked)

    # What is around

    @property
    def attempt_file(self) -> Path:
        """A second copy of the attempt in hand; see `rebuild`."""
        return self.paths.state / "attempt.json"

    @cached_property
    def runtime(self) -> Runtime:
        if self.seams.runtime is not None:
            return Traced(self.seams.runtime, self.seams.effects, self.cleaned)
        choice = choose.choose(self.config.runtime, self.journal.runtime)
        made = choose.make(choice, self.paths, compose=self.config.compose)
        return Traced(made, self.seams.effects, self.cleaned)

    @cached_property
    def source(self) -> Source:
        return self.seams.source or GitSource(self.config, self.seams.effects)

    @cached_property
    def memory_file(self) -> Path:
        return self.paths.known_bad

    @property
    def memory(self) -> Memory:
        if self._memory is None:
            self._memory = memories.load(self.memory_file)
        return self._memory

    def remember(self, memory: Memory) -> None:
        if memory != self.memory:
            self.files.write(self.memory_file, memory.model_dump_json(indent=1).encode())
            self._memory = memory

    def bad_release(self, kind: str, message: str) -> BadRelease:
        """What is remembered of a release that failed here, with the .env where that may be the cause."""
        env = self.env_fingerprint() if kind in MENDED_BY_ENV else None
        return BadRelease(kind=kind, message=message, at=self.seams.clock.corrected(), env=env)

    def stack(self, deployed: Deployed) -> Stack:
        return self.stacks.stack(deployed, self.config.project)

    def env_fingerprint(self) -> str:
        """Changes when the device's .env does."""
        return memories.fingerprint(self.paths.env_file)

    def redact(self, text: str) -> str:
        """`text` without the .env's secrets; where the role cannot say which they are, without any value.

        What is no text (a file's name need not be) is replaced, too: a journal could not hold it.
        """
        text = text.encode(errors="replace").decode()
        try:
            values = read_env(self.paths.env_file)
        except FleetError:
            return text
        attempt = self.journal.attempt
        # Both may be speaking, and what is a secret to one need not be declared by the other.
        speaking = [attempt.target, attempt.origin] if attempt else [self.journal.current]
        try:
            for deployed in speaking:
                if deployed is not None:
                    text = Role.load(self.role_folder(deployed)).redact(values, text)
        except FleetError:
            return _without_any(values, text)
        return text if any(speaking) else _without_any(values, text)

    def cleaned(self, error: FleetError) -> FleetError:
        """`error` itself, with the .env's secrets taken out: what a release says reaches rows and logs."""
        error.message = self.redact(error.message)
        error.args = (error.message,)
        error.evidence = redacted(error.evidence, self.redact)
        return error

    def role_folder(self, deployed: Deployed) -> Path:
        return self.paths.release(deployed.release.commit_sha) / "roles" / deployed.role

    def patiently(self, what: str, action: Callable[[], T]) -> T:
        """Do something with Docker; where Docker itself is away, wait for it as long as configured."""
        started, tries = self.seams.clock.monotonic(), 0
        while True:
            try:
                return action()
            except ContainerError as error:
                waited = self.seams.clock.monotonic() - started
                if error.kind is not Kind.DOCKER_UNAVAILABLE or waited >= self.config.docker_patience_s:
                    raise
                tries += 1
                ceiling = min(retry.DOCKER_CAP_S, retry.DOCKER_BASE_S * 2 ** min(tries, 16))
                wait = self.random.uniform(retry.DOCKER_FLOOR_S, ceiling)
                logger.warning(
                    "{what}: {error} Again in {wait:.1f} s.", what=what, error=error.message, wait=wait
                )
                self.say(f"waiting for Docker to {what}")
                self.seams.clock.sleep(wait)


def _without_any(values: Mapping[str, str], text: str) -> str:
    for value in sorted(values.values(), key=len, reverse=True):
        if len(value) >= 8:
            text = text.replace(value, "***")
    return text


def redacted(evidence: Any, redact: Callable[[str], str]) -> Any:
    """Evidence is small JSON; every text in it is cleaned."""
    match evidence:
        case str():
            return redact(evidence)
        case dict():
            return {str(key): redacted(value, redact) for key, value in evidence.items()}
        case list() | tuple():
            return [redacted(value, redact) for value in evidence]
        case _:
            return evidence
