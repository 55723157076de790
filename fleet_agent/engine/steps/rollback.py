"""Swap back, start what ran before, prove it healthy. If that fails, too: safe mode."""

from __future__ import annotations

from loguru import logger

from fleet_agent.engine import failure_policy, health_watch, links, repair
from fleet_agent.engine.core import Engine
from fleet_agent.engine.journal import Deployed
from fleet_agent.errors import FleetError, HealthError, Kind, StateError
from fleet_agent.model import Outcome, ReportState


def run(engine: Engine) -> None:
    origin = engine.attempt.origin
    links.restore(engine)
    if origin is None:
        failure_policy.into_safe_mode(engine, "there is no earlier release to go back to")
        return
    try:
        _start(engine, origin)
        # Not the whole watch again: it was healthy for a long time before.
        proof = health_watch.until_proven(engine, origin, since=engine.clock.now(), briefly=True)
    except FleetError as error:
        if error.kind is Kind.DOCKER_UNAVAILABLE or isinstance(error, StateError):
            # Nothing is known, so nothing is decided: the next start continues from here.
            raise
        logger.error("the previous release did not come back: {error}", error=error.message)
        failure_policy.into_safe_mode(engine, f"the previous release did not come back: {error.message}")
        return
    links.clear_staged(engine)
    logger.info("{version} is running again: {proof}", version=origin.release.version, proof=proof)
    failure_policy.record(engine, Outcome.ROLLED_BACK, ReportState.ROLLED_BACK)


def _start(engine: Engine, origin: Deployed) -> None:
    try:
        record = engine.patiently(
            "look for the previous release", lambda: repair.restore_stack(engine, origin)
        )
    except StateError as error:
        raise HealthError(Kind.STATE_CORRUPT, error.message) from error
    repair.start(engine, record)
