"""The engine's state as it is reported: from the journal, and from the containers if they can be seen."""

from __future__ import annotations

from typing import TYPE_CHECKING

from loguru import logger

from fleet_agent.engine import failure_memory
from fleet_agent.engine.config import EngineConfig
from fleet_agent.engine.journal import AttemptKind, Journal
from fleet_agent.engine.phases import RESTING, UNTOUCHED
from fleet_agent.errors import ContainerError
from fleet_agent.model import EngineStatus, PrefetchStatus, ReportState, ServiceState

if TYPE_CHECKING:
    from fleet_agent.engine.core import Engine


def of_engine(engine: Engine) -> EngineStatus:
    """With the services, unless Docker does not answer."""
    services: tuple[ServiceState, ...] = ()
    try:
        services = engine.runtime.services(engine.config.project)
    except ContainerError as error:
        logger.debug("no services in the status: {error}", error=error.message)
    return of_journal(engine.journal, engine.config, services)


def of_journal(
    journal: Journal, config: EngineConfig, services: tuple[ServiceState, ...] = ()
) -> EngineStatus:
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
        services=services,
        error_kind=journal.error_kind,
        error=journal.error,
        next_try_at=journal.safe_mode.next_try_at if journal.safe_mode else None,
    )


def _is_prefetching(journal: Journal) -> bool:
    return journal.attempt is not None and journal.attempt.kind is AttemptKind.PREFETCH


def _prefetch_status(journal: Journal, config: EngineConfig) -> PrefetchStatus | None:
    found = journal.prefetch
    if found is None:
        return None
    again = False
    if not found.ready:
        memory = failure_memory.load(config.paths.known_bad)
        env = failure_memory.fingerprint(config.paths.env_file)
        again = not any(memory.known_bad(key, env) for key in (found.target.key, found.target.prefetch_key))
    return PrefetchStatus(
        release=found.target.release,
        role=found.target.role,
        ready=found.ready,
        again=again,
        error_kind=found.error_kind,
        error=found.error,
    )


def _reason(journal: Journal, config: EngineConfig) -> str:
    """In safe mode also what comes next and how to get in, for somebody who sees the device from afar."""
    reason, mode = journal.reason, journal.safe_mode
    if mode is not None and mode.next_try_at is not None and journal.current is not None:
        reason += f" {journal.current.release.version} will be tried again at {mode.next_try_at:%H:%M} UTC."
    if mode is not None and config.rescue_access is not None:
        reason += f" Meanwhile {config.rescue_access.describe()}."
    return reason
