"""Bring the release here. What is left over from older ones goes first where space is short."""

from __future__ import annotations

from loguru import logger

from fleet_agent.engine import disk_space, retention
from fleet_agent.engine.core import Engine
from fleet_agent.engine.phases import Phase
from fleet_agent.errors import FleetError, Kind
from fleet_agent.model import Progress


def run(engine: Engine) -> None:
    try:
        fetched = _fetch(engine)
    except FleetError as error:
        if error.kind is not Kind.DISK_FULL:
            raise
        logger.warning("{error} Cleaning up, then once more.", error=error.message)
        retention.clean(engine)
        fetched = _fetch(engine)
    attempt = engine.attempt
    total = attempt.bytes_fetched + fetched
    engine.move(Phase.VERIFYING, attempt=attempt.model_copy(update={"bytes_fetched": total}))


def _fetch(engine: Engine) -> int:
    disk_space.need_space(engine)
    target = engine.attempt.target

    def report(progress: Progress) -> None:
        engine.say(progress.detail, progress.percent)

    return engine.source.fetch(target.release, target.role, report)
