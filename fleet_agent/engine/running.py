"""Start what should run, and have all of it run as it should: number, names, networks, mounts, ports."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import replace

from loguru import logger

from fleet_agent.containers.base import ComposeStack, Container
from fleet_agent.containers.comparison import Difference, differences
from fleet_agent.engine.core import Engine
from fleet_agent.engine.journal import Deployed
from fleet_agent.engine.stack_store import StackRecord
from fleet_agent.errors import ContainerError, Kind
from fleet_agent.roles.schema import ContainerCheck

#: The name of a volume that nobody named.
_ANONYMOUS = re.compile(r"[0-9a-f]{64}")
#: Recreating containers takes Compose as well.
_NOT_BY_RECREATING = (Kind.DOCKER_UNAVAILABLE, Kind.COMPOSE_KILLED, Kind.COMPOSE_HUNG)


def start(engine: Engine, deployed: Deployed, what: str, *, after_failure: bool) -> None:
    """Run Compose; if that leaves containers that are not as they should be, recreate them.

    With `after_failure`, or if Compose was killed here, also if it fails: what a killed one left can keep it
    from starting anything.
    Raises ContainerError. A difference that stays is only logged: the checks decide whether the release is
    healthy.
    """
    was_killed = False

    def up() -> None:
        nonlocal was_killed
        try:
            engine.runtime.up(without_done(engine, deployed))
        except ContainerError as error:
            was_killed = was_killed or error.kind is Kind.COMPOSE_KILLED
            raise

    try:
        engine.patiently(what, up)
    except ContainerError as error:
        may_recreate = after_failure or was_killed
        impossible = not may_recreate or error.kind in _NOT_BY_RECREATING
        if impossible or not _recreate(engine, deployed, what):
            raise
        engine.patiently(what, up)
    else:
        if _recreate(engine, deployed, what):
            # Services that share the network of a recreated one follow it.
            engine.patiently(what, up)
            for left in wrong(engine, deployed):
                logger.warning("{phrase}, and recreating it did not help", phrase=left.phrase)
    _note_hashes(engine, deployed)


def compare(engine: Engine, record: StackRecord) -> list[Difference]:
    """All that differs from the stack of `record`, with the configuration that it was started with.

    A container that does not run is no difference if its service is not watched, or has done its work.
    """
    found = _differences(engine, record.deployed, record.hashes)
    if not found:
        return found
    done = _done(engine, record, record.hashes)
    found = [difference for difference in found if difference.service not in done]
    if not any(difference.is_state for difference in found):
        return found
    looked_at = [check for check in record.health.checks if isinstance(check, ContainerCheck)]
    watched = {name for check in looked_at for name in check.services or record.services}
    one_shot = {name for check in looked_at for name in check.completed} | set(record.one_shots)
    seen = engine.runtime.services(engine.config.project)
    failed = {container.service for container in seen if container.exit_code not in (None, 0)}
    quiet = (one_shot - failed) | (set(record.services) - watched if looked_at else set())
    return [difference for difference in found if not (difference.is_state and difference.service in quiet)]


def wrong(engine: Engine, deployed: Deployed) -> list[Difference]:
    """The differences that only recreating the service can repair."""
    found = [difference for difference in _differences(engine, deployed, {}) if difference.recreate]
    done = without_done(engine, deployed).done if found else ()
    return [difference for difference in found if difference.service not in done]


def without_done(engine: Engine, deployed: Deployed) -> ComposeStack:
    """Its stack for Compose, which would run again what has done its work with this configuration."""
    record, stack = engine.stacks.load(deployed), engine.stack(deployed)
    if not _ended_well(engine, record):
        return stack
    return replace(stack, done=tuple(sorted(_done(engine, record, engine.runtime.hashes(stack)))))


def _done(engine: Engine, record: StackRecord, hashes: Mapping[str, str]) -> set[str]:
    """One-shot services that ended well and have the configuration of `hashes`.

    Whatever else is wrong with their containers, running them again is worse.
    """
    ended = _ended_well(engine, record)
    return {name for name, found in ended.items() if found == {hashes.get(name)}}


def _ended_well(engine: Engine, record: StackRecord) -> dict[str, set[str]]:
    """One-shot services of which every container exited with code 0, and the configuration of these."""
    if not record.one_shots:
        return {}
    found: dict[str, list[Container]] = {}
    for container in engine.runtime.services(engine.config.project):
        if container.service in record.one_shots:
            found.setdefault(container.service, []).append(container)
    return {
        name: {one.config_hash for one in ours}
        for name, ours in found.items()
        if all(one.state == "exited" and one.exit_code == 0 for one in ours)
        and len(ours) == record.replicas.get(name, 1)
    }


def _differences(engine: Engine, deployed: Deployed, hashes: dict[str, str]) -> list[Difference]:
    project, runtime = engine.config.project, engine.runtime
    compose = engine.stacks.compose(deployed.key)
    return differences(compose, project, runtime.services(project), runtime.networks(), hashes=hashes)


def _recreate(engine: Engine, deployed: Deployed, what: str) -> bool:
    """Replace the containers that are wrong. Returns whether there were any.

    Other replicas of their services are left alone, so `up` has to follow.
    """
    found = engine.patiently(what, lambda: wrong(engine, deployed))
    for difference in found:
        logger.warning("{phrase}: recreating it", phrase=difference.phrase)
    services, containers = _to_replace(found, engine.runtime.services(engine.config.project))
    if containers:
        engine.patiently(what, lambda: engine.runtime.remove(containers))
    if services:
        engine.patiently(what, lambda: engine.runtime.recreate(engine.stack(deployed), services))
    return bool(services or containers)


def _to_replace(found: list[Difference], seen: Sequence[Container]) -> tuple[list[str], list[str]]:
    """Services that Compose recreates whole, and the ids of single replicas that `up` can make again.

    Only Compose hands an anonymous volume on from a container to the next.
    """
    wrong_ones = {difference.container for difference in found}
    services, containers = [], []
    for service in sorted({difference.service for difference in found}):
        ours = [container for container in seen if container.service == service]
        wrong_here = [container for container in ours if container.id in wrong_ones]
        anonymous = any(_ANONYMOUS.fullmatch(what) for one in wrong_here for what in one.mounts.values())
        if anonymous or len(wrong_here) == len(ours):
            services.append(service)
        else:
            containers += [container.id for container in wrong_here]
    return services, containers


def _note_hashes(engine: Engine, deployed: Deployed) -> None:
    """Compose has just compared each configuration itself: what runs now is what should run."""
    record = engine.stacks.load(deployed)
    hashes = {c.service: c.config_hash for c in engine.runtime.services(engine.config.project)}
    if record.hashes != hashes:
        engine.stacks.note(record.model_copy(update={"hashes": hashes}))
