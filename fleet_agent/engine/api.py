"""What the rest of the agent asks of the engine. Importing it is cheap; the heavy parts load when they work.

All but `status`, `logs` and `drift` hold the converge lock and raise StateError (`locked`) where somebody
else does. An update that fails is no error: the status says what came of it. FleetError is raised where the
engine could not come to rest (Docker away in the middle, disk unwritable): the next start goes on from there.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING

from loguru import logger

from fleet_agent.engine import failure_memory as memories
from fleet_agent.engine import journal as journals
from fleet_agent.engine.config import EngineConfig
from fleet_agent.engine.dependencies import Seams
from fleet_agent.engine.journal import AttemptKind, Deployed, Journal
from fleet_agent.engine.lock import converging
from fleet_agent.engine.phases import RESTING, UNTOUCHED, Phase
from fleet_agent.errors import ContainerError, FleetError, Kind, StateError
from fleet_agent.host.emergency_ssh import sentence
from fleet_agent.model import (
    Action,
    CommandKind,
    DevicePlace,
    Directive,
    EngineStatus,
    PrefetchStatus,
    Progress,
    Release,
    ReportState,
    ServiceState,
)
from fleet_agent.support import orphans as leftovers

if TYPE_CHECKING:
    from fleet_agent.containers.base import LogLine
    from fleet_agent.engine.core import Engine

__all__ = [
    "EngineConfig",
    "converge",
    "drift",
    "enter_safe_mode",
    "leave_safe_mode",
    "logs",
    "recover",
    "restart",
    "rollback",
    "status",
]

#: Safe mode for these ends by an order or with its cause, not by being offered the same release again.
_KEPT = ("asked", Kind.DISK_FULL)

Report = Callable[[Progress], None]


def _silent(_: Progress) -> None:
    return None


def converge(
    config: EngineConfig,
    directive: Directive,
    report: Report = _silent,
    *,
    asked: bool = False,
    seams: Seams | None = None,
) -> EngineStatus:
    """Do what the control plane asks, after finishing what was under way.

    `asked` (an operator's command, or an `update_now` in the directive) tries again what failed here before.
    """
    from fleet_agent.engine import runner as drive

    with _engine(config, seams, report, f"converging to {directive.action.value}") as engine:
        drive.finish(engine)
        for _ in range(5):
            _follow(engine, directive, asked=asked)
            newest = engine.seams.newest()
            if newest is None or newest == directive:
                break
            # It arrived while the last one was worked on; nobody has asked for it by an order.
            directive, asked = newest, False
        return _status(engine.journal, engine, config)


def recover(config: EngineConfig, report: Report = _silent, *, seams: Seams | None = None) -> EngineStatus:
    """Finish what was under way when the engine died, and see that the committed release runs."""
    from fleet_agent.engine import runner as drive

    with _engine(config, seams, report, "recovering") as engine:
        drive.finish(engine)
        return _status(engine.journal, engine, config)


def rollback(
    config: EngineConfig, report: Report = _silent, *, reason: str = "", seams: Seams | None = None
) -> EngineStatus:
    """Go back to the previous release; the one left is not taken again unasked.

    Raises StateError (`nothing_to_roll_back`) where there is no previous one.
    """
    from fleet_agent.engine import runner as drive

    with _engine(config, seams, report, "rolling back") as engine:
        drive.finish(engine)
        _go_back(engine, reason or "Asked to go back.")
        return _status(engine.journal, engine, config)


def restart(config: EngineConfig, report: Report = _silent, *, seams: Seams | None = None) -> EngineStatus:
    """Stop and start every service of the committed release. Raises StateError where there is none."""
    from fleet_agent.engine import health_watch as watch
    from fleet_agent.engine import runner as drive

    with _engine(config, seams, report, "restarting the services") as engine:
        drive.finish(engine)
        current = engine.journal.current
        if current is None or engine.journal.phase is not Phase.STEADY:
            raise StateError(
                Kind.NOTHING_TO_ROLL_BACK, "No release runs here, so there is nothing to restart."
            )
        engine.runtime.restart(engine.stack(current))
        try:
            watch.until_proven(engine, current, since=engine.seams.clock.now(), briefly=True)
        except FleetError as error:
            engine.save(
                state=ReportState.DEGRADED, error_kind=error.kind, error=error.message, reason=error.message
            )
        return _status(engine.journal, engine, config)


def enter_safe_mode(
    config: EngineConfig, report: Report = _silent, *, reason: str = "", seams: Seams | None = None
) -> EngineStatus:
    """Stop the release and show the safe-mode page until `leave_safe_mode` or an update that works."""
    from fleet_agent.engine import runner as drive

    with _engine(config, seams, report, "entering safe mode") as engine:
        drive.finish(engine)
        _enter_safe_mode(engine, reason or "An operator asked for it.")
        return _status(engine.journal, engine, config)


def leave_safe_mode(
    config: EngineConfig, report: Report = _silent, *, seams: Seams | None = None
) -> EngineStatus:
    """Start what was committed last and prove it healthy; safe mode stays where it is not."""
    from fleet_agent.engine import runner as drive

    with _engine(config, seams, report, "leaving safe mode") as engine:
        drive.finish(engine)
        mode, current = engine.journal.safe_mode, engine.journal.current
        if mode is None:
            return _status(engine.journal, engine, config)
        if current is None:
            raise StateError(
                Kind.NOTHING_TO_ROLL_BACK,
                "No release has ever worked here, so there is nothing to start.",
                hint="Offer the device a release that works.",
            )
        engine.begin(
            AttemptKind.REVIVE, current, first=Phase.SWAPPING, place=None, reason="Leaving safe mode."
        )
        drive.work(engine)
        return _status(engine.journal, engine, config)


def status(config: EngineConfig, *, containers: bool = False) -> EngineStatus:
    """What the journal says; with `containers` also what the runtime says. Changes nothing, needs no lock."""
    found = journals.load(config.paths.journal, set_aside=False) or Journal()
    if not containers:
        return _status(found, None, config)
    from fleet_agent.containers import factory as choose

    runtime = choose.make(choose.choose(config.runtime, found.runtime), config.paths, compose=config.compose)
    try:
        seen = runtime.services(config.project) + runtime.services(config.safe_project)
    except ContainerError as error:
        return _status(found, None, config).model_copy(
            update={"error_kind": error.kind, "error": error.message}
        )
    return _status(found, None, config).model_copy(update={"services": tuple(seen)})


def logs(config: EngineConfig, *, lines: int = 50) -> list[LogLine]:
    """The last lines of each container, secrets taken out. Raises ContainerError."""
    from dataclasses import replace

    engine = _look(config)
    found = engine.runtime.logs(config.project, lines=lines)
    return [replace(line, text=engine.redact(line.text)) for line in found]


def drift(config: EngineConfig) -> list[str]:
    """What differs from the committed release, one phrase each; empty means nothing. Raises FleetError."""
    from fleet_agent.engine import drift as drifting

    return drifting.find(_look(config))


def _follow(engine: Engine, directive: Directive, *, asked: bool) -> None:
    from fleet_agent.engine import prefetch
    from fleet_agent.engine import runner as drive

    asked = asked or any(command.kind is CommandKind.UPDATE_NOW for command in directive.commands)
    match directive.action:
        case Action.RUN | Action.HOLD:
            if directive.action is Action.RUN and directive.prefetch is not None:
                _prefetch(engine, directive.prefetch, directive.device, asked=asked)
            return
        case Action.SAFE_MODE:
            if engine.journal.safe_mode is None or engine.journal.safe_mode.release_runs:
                _enter_safe_mode(engine, "The control plane asks for it.")
            return
        case Action.ROLLBACK if directive.release is None:
            _go_back(engine, "The control plane asks for it.")
            return
    if directive.release is None:
        logger.info("asked to update and no release is named: nothing to do")
        return
    target = Deployed(release=directive.release, role=directive.device.role)
    journal = engine.journal
    if journal.current is not None and journal.current.key == target.key and journal.safe_mode is None:
        if journal.current != target:
            # The same commit under another row or version: take the words over, touch nothing.
            engine.save(current=target)
        return
    if not _may_try(engine, target, asked=asked):
        return
    engine.begin(
        AttemptKind.UPDATE,
        target,
        first=Phase.FETCHING,
        place=directive.device,
        rollout_id=directive.rollout_id,
        prefetch=prefetch.kept_for(engine.journal, target),
    )
    drive.work(engine)


def _prefetch(engine: Engine, release: Release, place: DevicePlace, *, asked: bool) -> None:
    from fleet_agent.engine import prefetch
    from fleet_agent.engine import runner as drive

    target = Deployed(release=release, role=place.role)
    prefetch.take_over(engine, target)
    if prefetch.is_here(engine.journal, target):
        return
    if asked:
        engine.remember(engine.memory.without(target.key).without(target.prefetch_key))
    against = prefetch.objection(
        engine.memory, target, engine.env_fingerprint(), engine.seams.clock.corrected()
    )
    if against is not None:
        logger.info("{version} is not prefetched: {why}", version=release.version, why=against.message)
        return
    prefetch.begin(engine, target, place)
    drive.work(engine)


def _may_try(engine: Engine, target: Deployed, *, asked: bool) -> bool:
    memory, version = engine.memory, target.release.version
    if asked:
        engine.remember(memory.without(target.key))
        return True
    mode = engine.journal.safe_mode
    if mode is not None and mode.kind in _KEPT and engine.journal.current == target:
        logger.info("in safe mode, and {version} is no fix: it ran before", version=version)
        return False
    bad = memory.known_bad(target.key, engine.env_fingerprint())
    if bad is not None:
        _remark(
            engine, f"{version} failed here before and is not tried again unasked: {bad.message}", bad.kind
        )
        return False
    trouble = memory.wait_for(target.key, engine.seams.clock.corrected())
    if trouble is not None:
        _remark(
            engine,
            f"{version} is tried again at {trouble.not_before:%H:%M:%S} UTC: {trouble.message}",
            trouble.kind,
        )
        return False
    return True


def _remark(engine: Engine, reason: str, kind: str) -> None:
    """Why nothing happens; in safe mode and after a rollback the older reason says more."""
    logger.info("{reason}", reason=reason)
    if engine.journal.error_kind is None:
        engine.save(reason=reason, error_kind=kind, error=reason)


def _go_back(engine: Engine, reason: str) -> None:
    from fleet_agent.engine import runner as drive

    previous = engine.journal.previous
    if previous is None:
        raise StateError(
            Kind.NOTHING_TO_ROLL_BACK,
            "There is no earlier release on this device to go back to.",
            hint="Pin the device to a release instead.",
        )
    engine.stacks.load(previous)
    engine.begin(AttemptKind.GO_BACK, previous, first=Phase.SWAPPING, place=None, reason=reason)
    drive.work(engine)


def _enter_safe_mode(engine: Engine, reason: str) -> None:
    from fleet_agent.engine import runner as drive

    if engine.journal.safe_mode is None or engine.journal.safe_mode.release_runs:
        drive.enter_safe_mode(engine, f"Safe mode: {reason.rstrip('.')}.", "asked")


@contextmanager
def _engine(config: EngineConfig, seams: Seams | None, report: Report, what: str) -> Iterator[Engine]:
    from fleet_agent.engine import recovery
    from fleet_agent.engine.core import Engine
    from fleet_agent.engine.stack_store import Stacks
    from fleet_agent.engine.state_files import Files

    seams = seams or Seams()
    with converging(config.paths.lock, what), leftovers.none_beside(config.paths.children):
        stacks = Stacks(config.paths, Files(seams.effects, config.paths.state / "reserve"))
        journal = recovery.load(config.paths, stacks, seams.clock.corrected())
        yield Engine(config, seams, report, journal)


def _look(config: EngineConfig) -> Engine:
    """An engine that only looks: without the lock, so nothing may be written through it."""
    from fleet_agent.engine.core import Engine

    journal = journals.load(config.paths.journal, set_aside=False) or Journal()
    return Engine(config, Seams(), _silent, journal)


def _status(journal: Journal, engine: Engine | None, config: EngineConfig) -> EngineStatus:
    services: tuple[ServiceState, ...] = ()
    if engine is not None:
        try:
            services = engine.runtime.services(engine.config.project)
        except ContainerError as error:
            logger.debug("no services in the status: {error}", error=error.message)
    untouched = journal.phase in RESTING or _is_prefetching(journal)
    return EngineStatus(
        state=journal.state if untouched else ReportState.UPDATING,
        phase=journal.phase,
        # Before the swap the reason is still that of the rest the update began in.
        reason="" if journal.phase in UNTOUCHED else _reason(journal, config),
        role=journal.current.role if journal.current else None,
        current=journal.current.release if journal.current else None,
        previous=journal.previous.release if journal.previous else None,
        target=journal.attempt.target.release if journal.attempt else None,
        prefetch=_prefetch_status(journal, config),
        services=tuple(services),
        error_kind=journal.error_kind,
        error=journal.error,
    )


def _is_prefetching(journal: Journal) -> bool:
    return journal.attempt is not None and journal.attempt.kind is AttemptKind.PREFETCH


def _prefetch_status(journal: Journal, config: EngineConfig) -> PrefetchStatus | None:
    found = journal.prefetch
    if found is None:
        return None
    again = False
    if not found.ready:
        memory, env = memories.load(config.paths.known_bad), memories.fingerprint(config.paths.env_file)
        bad = (memory.known_bad(key, env) for key in (found.target.key, found.target.prefetch_key))
        again = not any(bad)
    return PrefetchStatus(
        release=found.target.release,
        role=found.target.role,
        ready=found.ready,
        again=again,
        error_kind=found.error_kind,
        error=found.error,
    )


def _reason(journal: Journal, config: EngineConfig) -> str:
    """In safe mode also how to get in, for who sees the device from afar."""
    if journal.safe_mode is None or config.emergency_access is None:
        return journal.reason
    return f"{journal.reason} Meanwhile {sentence(config.emergency_access)}."
