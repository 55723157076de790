"""Bring back what should be on the disk and is not: somebody cleaned up by hand, or the disk is ageing.

Only for releases that were whole here once, before they are started again. Cheap where nothing is missing.
"""

from __future__ import annotations

from loguru import logger

from fleet_agent.engine.core import Engine
from fleet_agent.engine.journal import Deployed
from fleet_agent.engine.stacks import StackRecord
from fleet_agent.errors import FleetError, StateError


def folder(engine: Engine, deployed: Deployed) -> None:
    """Export the release's folder again where it is gone. Best effort: what runs does not need it."""
    if engine.role_folder(deployed).is_dir():
        return
    logger.warning("the folder of {version} is gone; exporting it again", version=deployed.release.version)
    try:
        engine.source.export(deployed.release, deployed.role)
    except FleetError as error:
        logger.error("it cannot be brought back without Git: {error}", error=error.message)


def stack(engine: Engine, deployed: Deployed) -> StackRecord:
    """Have everything that starting needs. Raises FleetError where it cannot be had."""
    folder(engine, deployed)
    try:
        record = engine.stacks.load(deployed)
        if all((engine.stacks.content / name).is_dir() for name in engine.stacks.content_of(deployed.key)):
            _images(engine, record)
            return record
        logger.warning("files that {version} mounts are gone", version=deployed.release.version)
    except StateError as error:
        logger.warning("{error} Making it again.", error=error.message)
    record = _again(engine, deployed)
    _images(engine, record)
    return record


def _again(engine: Engine, deployed: Deployed) -> StackRecord:
    from fleet_agent.engine.steps.validate import resolve_stack

    return resolve_stack(engine, deployed)


def _images(engine: Engine, record: StackRecord) -> None:
    """An image that is gone is pulled again where that is possible; starting says what is still missing."""
    for image in engine.runtime.missing_images(record.images):
        try:
            engine.runtime.pull(image, engine.say)
        except FleetError as error:
            logger.error("{error}", error=error.message)
