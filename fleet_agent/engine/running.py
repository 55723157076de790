"""Start what should run, and have all of it run as it should: number, names, networks, mounts, ports."""

from __future__ import annotations

from loguru import logger

from fleet_agent.containers.comparison import Difference, differences
from fleet_agent.engine.core import Engine
from fleet_agent.engine.journal import Deployed
from fleet_agent.engine.stack_store import StackRecord
from fleet_agent.errors import ContainerError, Kind
from fleet_agent.roles.schema import ContainerCheck


def start(engine: Engine, deployed: Deployed, what: str, *, after_failure: bool) -> None:
    """Run Compose; if that leaves containers that are not as they should be, recreate them.

    With `after_failure`, or if Compose was killed here, also if it fails: what a killed one left can keep it
    from starting anything.
    Raises ContainerError. A difference that stays is only logged: the checks decide whether the release is
    healthy.
    """
    stack, was_killed = engine.stack(deployed), False

    def up() -> None:
        nonlocal was_killed
        try:
            engine.runtime.up(stack)
        except ContainerError as error:
            was_killed = was_killed or error.kind is Kind.COMPOSE_KILLED
            raise

    try:
        engine.patiently(what, up)
    except ContainerError as error:
        may_recreate = after_failure or was_killed
        impossible = not may_recreate or error.kind in (Kind.DOCKER_UNAVAILABLE, Kind.COMPOSE_KILLED)
        if impossible or not _recreate(engine, deployed, what):
            raise
        engine.patiently(what, lambda: engine.runtime.up(stack))
    else:
        if _recreate(engine, deployed, what):
            # Services that share the network of a recreated one follow it.
            engine.patiently(what, lambda: engine.runtime.up(stack))
            for left in wrong(engine, deployed):
                logger.warning("{phrase}, and recreating it did not help", phrase=left.phrase)
    _note_hashes(engine, deployed)


def compare(engine: Engine, record: StackRecord) -> list[Difference]:
    """All that differs from the stack of `record`, with the configuration that it was started with.

    A container that does not run is no difference if its service is not watched, or has done its work.
    """
    found = _differences(engine, record.deployed, record.hashes)
    if not any(difference.is_state for difference in found):
        return found
    looked_at = [check for check in record.health.checks if isinstance(check, ContainerCheck)]
    watched = {name for check in looked_at for name in check.services or record.services}
    one_shot = {name for check in looked_at for name in check.completed}
    seen = engine.runtime.services(engine.config.project)
    failed = {container.service for container in seen if container.exit_code not in (None, 0)}
    quiet = (one_shot - failed) | (set(record.services) - watched if looked_at else set())
    return [difference for difference in found if not (difference.is_state and difference.service in quiet)]


def wrong(engine: Engine, deployed: Deployed) -> list[Difference]:
    """The differences that only recreating the service can repair."""
    return [found for found in _differences(engine, deployed, {}) if found.recreate]


def _differences(engine: Engine, deployed: Deployed, hashes: dict[str, str]) -> list[Difference]:
    project, runtime = engine.config.project, engine.runtime
    compose = engine.stacks.compose(deployed.key)
    return differences(compose, project, runtime.services(project), runtime.networks(), hashes=hashes)


def _recreate(engine: Engine, deployed: Deployed, what: str) -> bool:
    """Recreate the services of which a container is wrong. Returns whether there were any."""
    found = engine.patiently(what, lambda: wrong(engine, deployed))
    for difference in found:
        logger.warning("{phrase}: recreating it", phrase=difference.phrase)
    services = sorted({difference.service for difference in found})
    if services:
        engine.patiently(what, lambda: engine.runtime.recreate(engine.stack(deployed), services))
    return bool(services)


def _note_hashes(engine: Engine, deployed: Deployed) -> None:
    """Compose has just compared each configuration itself: what runs now is what should run."""
    record = engine.stacks.load(deployed)
    hashes = {c.service: c.config_hash for c in engine.runtime.services(engine.config.project)}
    if record.hashes != hashes:
        engine.stacks.note(record.model_copy(update={"hashes": hashes}))
