"""Check what runs, round by round, and let the judge decide."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from datetime import datetime

from loguru import logger

from fleet_agent.containers.base import Container
from fleet_agent.engine import running
from fleet_agent.engine.core import Engine
from fleet_agent.engine.journal import Deployed
from fleet_agent.engine.redaction import redact_evidence
from fleet_agent.engine.stack_store import StackRecord
from fleet_agent.errors import ContainerError, HealthError
from fleet_agent.health import checks, judge
from fleet_agent.health.base import CheckContext, CheckOutcome, CheckResult, HealthCheck
from fleet_agent.health.container import ContainerRuns
from fleet_agent.health.judge import CheckRound, Healthy, Seen, Unhealthy
from fleet_agent.support.words import counted

#: Seconds between rounds when a release that was well before is looked at again.
BRIEF_INTERVAL_S = 0.25


def until_proven(engine: Engine, deployed: Deployed, *, since: datetime, briefly: bool = False) -> str:
    """Watch until it is proven healthy; return the proof. Raises HealthError with the evidence.

    `since` is when what is judged began. `briefly` is for what proved itself before: as many rounds, but
    closer together, and no minimum time, so that a rollback is over soon.

    If Docker itself was away meanwhile, what it stopped is started again: that is not the release's fault.
    """
    record = engine.stacks.load(deployed)
    rules = record.health
    if briefly:
        interval_s = min(rules.interval_s, BRIEF_INTERVAL_S)
        rules = rules.model_copy(update={"watch_s": 0.0, "interval_s": interval_s})
    watcher = _Watcher(engine, record, since)
    clock = engine.clock
    started, seen, away = clock.monotonic(), Seen(), False
    while True:
        at_s = clock.monotonic() - started
        results = watcher.look()
        # After the look: what a Docker that ended in between has stopped is not judged.
        restarted = engine.runtime.restarted()
        if results is not None and (restarted or away):
            _start_again(engine, deployed)
            now = CheckRound(at_s, None)
        else:
            now = CheckRound(at_s, results)
        away = results is None
        before, seen = seen, judge.observe(rules, seen, now)
        _tell(before, seen)
        match judge.judge(rules, seen, at_s):
            case Healthy(proof):
                return proof
            case Unhealthy(reason, kind, evidence):
                raise HealthError(kind, reason, evidence=evidence)
        engine.report_progress(
            now.worst.detail
            if now.worst
            else f"{seen.successes} of {counted(rules.successes, 'round')} passed",
            min(99.0, 100 * at_s / max(rules.watch_s, rules.successes * rules.interval_s, 0.1)),
        )
        spent = clock.monotonic() - started - at_s
        clock.sleep(max(0.0, min(rules.interval_s - spent, rules.deadline_s - at_s - spent)))


def _tell(before: Seen, seen: Seen) -> None:
    """Log the first failing check, and the first that counts: within the grace a service may still start."""
    now = seen.last
    if now is None or now.worst is None:
        return
    if before.first_failure_s is None and seen.first_failure_s is not None:
        logger.info("first failing check after {at:.1f} s: {why}", at=now.at_s, why=now.worst.detail)
    fatal = now.outcome is CheckOutcome.FATAL and now.at_s >= seen.lenient_until_s
    if fatal or (before.spent == 0 and seen.spent > 0):
        logger.info("first failure counted after {at:.1f} s", at=now.at_s)


def _start_again(engine: Engine, deployed: Deployed) -> None:
    logger.warning(
        "Docker was away; restarting what it stopped of {version}", version=deployed.release.version
    )
    running.start(engine, deployed, "restart what it stopped", after_failure=True)


def once(engine: Engine, record: StackRecord) -> CheckRound:
    """One round now, of a release that was committed long ago."""
    watcher = _Watcher(engine, record, engine.clock.now())
    return CheckRound(0.0, watcher.look())


class _Watcher:
    def __init__(self, engine: Engine, record: StackRecord, since: datetime) -> None:
        self._engine, self._record, self._since = engine, record, since
        self._checks: list[HealthCheck] = checks.make(
            record.health.checks, reachable=engine.runtime.reachable
        )
        self._restarts: dict[str, int] = {}

    def look(self) -> tuple[CheckResult, ...] | None:
        """All checks of one round, or None if Docker did not answer."""
        try:
            context = self._context()
            results = [self._cleaned(check.look(context)) for check in self._checks]
            if _only_others_fail(self._checks, results):
                # A container can end while other checks run; then that is the reason.
                context = self._context()
                results = [
                    self._cleaned(check.look(context)) if isinstance(check, ContainerRuns) else result
                    for check, result in zip(self._checks, results, strict=True)
                ]
            return tuple(results)
        except ContainerError as error:
            logger.warning("cannot see the containers: {error}", error=error.message)
            return None

    def _context(self) -> CheckContext:
        engine = self._engine
        containers = engine.runtime.services(engine.config.project)
        self._note_restarts(containers)
        return CheckContext(
            containers=containers,
            expected=self._record.services,
            replicas=self._record.replicas,
            one_shots=frozenset(self._record.one_shots),
            runtime=engine.runtime,
            project=engine.config.project,
            since=self._since,
            now=engine.clock.now(),
            monotonic=engine.clock.monotonic,
            restarts_before=self._restarts,
            redact=engine.redact,
        )

    def _cleaned(self, result: CheckResult) -> CheckResult:
        """Without secrets, including those in a URL or a command: it goes into reports, rows and logs."""
        if result.outcome is CheckOutcome.PASS:
            return result
        redact = self._engine.redact
        return replace(
            result,
            check=redact(result.check),
            detail=redact(result.detail),
            evidence=redact_evidence(result.evidence, redact),
        )

    def _note_restarts(self, containers: Sequence[Container]) -> None:
        """Restarts of an older container before the update do not count; a new one has none."""
        for container in containers:
            ours = container.created_at is not None and container.created_at >= self._since
            self._restarts.setdefault(container.id, 0 if ours else container.restarts)


def _only_others_fail(looked: Sequence[HealthCheck], results: Sequence[CheckResult]) -> bool:
    """Whether something failed, and every container ran when it was looked at."""
    ran = all(
        r.outcome is CheckOutcome.PASS
        for c, r in zip(looked, results, strict=True)
        if isinstance(c, ContainerRuns)
    )
    return ran and any(result.outcome is CheckOutcome.FAIL for result in results)
