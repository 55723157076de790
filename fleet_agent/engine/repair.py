"""Bring back what should be on the disk and is not: somebody cleaned up by hand, or the disk is failing.

Only for releases that were complete here once, before they are started again. Cheap if nothing is missing.
"""

from __future__ import annotations

from loguru import logger

from fleet_agent.engine import project, running, stack_builder
from fleet_agent.engine.core import Engine
from fleet_agent.engine.journal import Deployed
from fleet_agent.engine.stack_store import StackRecord
from fleet_agent.errors import ContainerError, FleetError, Kind, StateError


def restore_folder(engine: Engine, deployed: Deployed) -> None:
    """Export the release's folder again if it is gone. Best effort: what runs does not need it."""
    if engine.role_folder(deployed).is_dir():
        return
    logger.warning("the folder of {version} is gone; exporting it again", version=deployed.release.version)
    try:
        engine.source.export(deployed.release, deployed.role)
    except FleetError as error:
        logger.error("cannot export it: {error}", error=error.message)


def restore_stack(engine: Engine, deployed: Deployed) -> StackRecord:
    """Bring back everything that starting needs. Raises FleetError if that fails."""
    restore_folder(engine, deployed)
    lost: set[str] = set()
    try:
        record = engine.stacks.load(deployed)
        lost = {place.name for place in engine.stacks.missing(deployed.key)}
        if not lost and project.is_ours(engine, deployed.key):
            _images(engine, record)
            return record
        if lost:
            logger.warning("files that {version} mounts are gone", version=deployed.release.version)
    except StateError as error:
        logger.warning("{error} Rebuilding it.", error=error.message)
    # Not to the same place: a container that still has the old one must be replaced.
    record = stack_builder.rebuild(engine, deployed, avoid=lost)
    _images(engine, record)
    return record


def start(engine: Engine, record: StackRecord) -> None:
    """Start it. If that fails, an image may be damaged deep inside: those are replaced, then once more.

    Only then: finding it takes time, and going back should not. Raises ContainerError.
    """
    what = f"start {record.deployed.release.version}"
    try:
        running.start(engine, record.deployed, what, after_failure=True)
    except ContainerError as error:
        if error.kind is Kind.DOCKER_UNAVAILABLE or not _images(engine, record, thoroughly=True):
            raise
        running.start(engine, record.deployed, what, after_failure=True)


def _images(engine: Engine, record: StackRecord, *, thoroughly: bool = False) -> int:
    """Pull again what is gone, if possible, and return how many; starting reports what is missing."""
    pulled = 0
    for image in engine.runtime.missing_images(record.images, thoroughly=thoroughly):
        try:
            engine.runtime.pull(image, engine.report_progress)
            pulled += 1
        except FleetError as error:
            logger.error("{error}", error=error.message)
    return pulled
