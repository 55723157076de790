"""Refuse what nobody this device trusts has signed; then unpack it, whole or not at all."""

from __future__ import annotations

from loguru import logger

from fleet_agent.engine import retention
from fleet_agent.engine.core import Engine
from fleet_agent.engine.phases import Phase
from fleet_agent.errors import FleetError, Kind


def run(engine: Engine) -> None:
    target = engine.attempt.target
    signer = engine.source.verify(target.release)
    logger.info("{version} is signed by {signer}", version=target.release.version, signer=signer)
    try:
        engine.source.export(target.release, target.role)
    except FleetError as error:
        if error.kind is not Kind.DISK_FULL:
            raise
        logger.warning("{error} Cleaning up, then once more.", error=error.message)
        retention.clean(engine)
        engine.source.export(target.release, target.role)
    engine.move(Phase.VALIDATING)
