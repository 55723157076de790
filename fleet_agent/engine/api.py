"""What the rest of the agent asks of the engine. Importing it is cheap; the heavy parts load when they work.

All but `status`, `logs` and `drift` hold the converge lock, and raise StateError (`locked`) if another
process does. An update that fails is not an error: the status says what came of it. FleetError is raised if
the engine could not come to rest (Docker away in the middle, disk unwritable): the next start goes on from
there.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING

from fleet_agent.engine import journal as journals
from fleet_agent.engine import status as statuses
from fleet_agent.engine.config import EngineConfig
from fleet_agent.engine.dependencies import Dependencies
from fleet_agent.engine.journal import AttemptKind, Journal
from fleet_agent.engine.lock import converging
from fleet_agent.engine.phases import Phase
from fleet_agent.errors import ContainerError, FleetError, Kind, StateError
from fleet_agent.model import Directive, EngineStatus, Progress, ReportState
from fleet_agent.support import orphans

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

#: Directives that one run follows, if newer ones keep arriving: then the next check-in goes on.
_NEWER_LIMIT = 5

Report = Callable[[Progress], None]


def _no_report(_: Progress) -> None:
    return None


def converge(
    config: EngineConfig,
    directive: Directive,
    report: Report = _no_report,
    *,
    operator_requested: bool = False,
    dependencies: Dependencies | None = None,
) -> EngineStatus:
    """Do what the control plane asks, after finishing what was under way.

    `operator_requested` (or an `update_now` in the directive) tries again what failed here before.
    """
    with _at_rest(config, dependencies, report, f"converging to {directive.action.value}") as engine:
        from fleet_agent.engine import directive as directives

        for _ in range(_NEWER_LIMIT):
            directives.follow(engine, directive, operator_requested=operator_requested)
            newest = engine.dependencies.newest()
            if newest is None or newest == directive:
                break
            # It arrived while the last one was worked on, so no operator's command is behind it.
            directive, operator_requested = newest, False
        return statuses.of_engine(engine)


def recover(
    config: EngineConfig, report: Report = _no_report, *, dependencies: Dependencies | None = None
) -> EngineStatus:
    """Finish what was under way when the engine died, and see that the committed release runs."""
    with _at_rest(config, dependencies, report, "recovering") as engine:
        return statuses.of_engine(engine)


def rollback(
    config: EngineConfig,
    report: Report = _no_report,
    *,
    reason: str = "",
    dependencies: Dependencies | None = None,
) -> EngineStatus:
    """Go back to the previous release; the one left is not installed again automatically.

    Raises StateError (`nothing_to_roll_back`) if there is no previous release.
    """
    with _at_rest(config, dependencies, report, "rolling back") as engine:
        from fleet_agent.engine import directive as directives

        directives.go_back(engine, reason or "A rollback was requested.")
        return statuses.of_engine(engine)


def restart(
    config: EngineConfig, report: Report = _no_report, *, dependencies: Dependencies | None = None
) -> EngineStatus:
    """Stop and start every service of the committed release. Raises StateError if there is none."""
    with _at_rest(config, dependencies, report, "restarting the services") as engine:
        from fleet_agent.engine import health_watch, running

        current = engine.journal.current
        if current is None or engine.journal.phase is not Phase.STEADY:
            raise StateError(
                Kind.NOTHING_TO_RESTART,
                "No release is running on this device, so there is nothing to restart.",
                hint="In safe mode, send leave_safe_mode; otherwise roll out a release.",
            )
        engine.patiently(
            "restart the services",
            lambda: engine.runtime.restart(running.without_done(engine, current)),
        )
        try:
            health_watch.until_proven(engine, current, since=engine.clock.now(), briefly=True)
        except FleetError as error:
            engine.save(
                state=ReportState.DEGRADED, error_kind=error.kind, error=error.message, reason=error.message
            )
        return statuses.of_engine(engine)


def enter_safe_mode(
    config: EngineConfig,
    report: Report = _no_report,
    *,
    reason: str = "",
    dependencies: Dependencies | None = None,
) -> EngineStatus:
    """Stop the release and show the safe-mode page until `leave_safe_mode` or an update that works."""
    with _at_rest(config, dependencies, report, "entering safe mode") as engine:
        from fleet_agent.engine import directive as directives

        directives.enter_safe_mode(engine, reason or "An operator requested it.")
        return statuses.of_engine(engine)


def leave_safe_mode(
    config: EngineConfig, report: Report = _no_report, *, dependencies: Dependencies | None = None
) -> EngineStatus:
    """Start what was committed last and prove it healthy; if it is not, safe mode stays."""
    with _at_rest(config, dependencies, report, "leaving safe mode") as engine:
        from fleet_agent.engine import runner

        mode, current = engine.journal.safe_mode, engine.journal.current
        if mode is None:
            return statuses.of_engine(engine)
        if current is None:
            raise StateError(
                Kind.NOTHING_TO_ROLL_BACK,
                "No release has ever worked on this device, so there is nothing to start.",
                hint="Roll out a working release.",
            )
        engine.begin(
            AttemptKind.EXIT_SAFE_MODE,
            current,
            first=Phase.SWAPPING,
            assignment=None,
            reason="Leaving safe mode.",
        )
        runner.work(engine)
        return statuses.of_engine(engine)


def status(config: EngineConfig, *, containers: bool = False) -> EngineStatus:
    """What the journal says; with `containers` also what the runtime reports. Only looks, needs no lock."""
    found = journals.load(config.paths.journal, set_aside=False) or Journal()
    said = statuses.of_journal(found, config)
    if not containers:
        return said
    from fleet_agent.containers import factory

    runtime = factory.make(
        factory.choose(config.runtime, found.runtime), config.paths, compose=config.compose
    )
    try:
        seen = runtime.services(config.project) + runtime.services(config.safe_project)
    except ContainerError as error:
        return said.model_copy(update={"error_kind": error.kind, "error": error.message})
    return said.model_copy(update={"services": tuple(seen)})


def logs(config: EngineConfig, *, lines: int = 50) -> list[LogLine]:
    """The last lines of each container, without secrets. Raises ContainerError."""
    from dataclasses import replace

    engine = _looking(config)
    found = engine.runtime.logs(config.project, lines=lines)
    return [replace(line, text=engine.redact(line.text)) for line in found]


def drift(config: EngineConfig) -> list[str]:
    """What differs from the committed release, one phrase each; empty means nothing. Raises FleetError."""
    from fleet_agent.engine.drift import find_drift

    return find_drift(_looking(config))


@contextmanager
def _at_rest(
    config: EngineConfig, dependencies: Dependencies | None, report: Report, what: str
) -> Iterator[Engine]:
    """The engine with the lock held, once what the last run left is finished and the release runs."""
    from fleet_agent.engine import project, recovery, runner, upkeep
    from fleet_agent.engine.core import Engine
    from fleet_agent.engine.stack_store import StackStore
    from fleet_agent.engine.state_files import StateFiles

    dependencies = dependencies or Dependencies()
    with converging(config.paths.lock, what), orphans.none_beside(config.paths.children):
        stacks = StackStore(config.paths, StateFiles(dependencies.effects, config.paths.state / "reserve"))
        journal = recovery.load(config.paths, stacks, dependencies.clock.corrected())
        engine = Engine(config, dependencies, report, journal)
        project.refuse_another(engine)
        recovery.resume(engine)
        runner.work(engine)
        upkeep.keep_running(engine)
        yield engine


def _looking(config: EngineConfig) -> Engine:
    """An engine that only looks: without the lock, so nothing may be written through it."""
    from fleet_agent.engine.core import Engine

    journal = journals.load(config.paths.journal, set_aside=False) or Journal()
    return Engine(config, Dependencies(), _no_report, journal)
