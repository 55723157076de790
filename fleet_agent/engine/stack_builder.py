"""From an exported release to the stack that runs here: its compose file, its images, its health checks."""

from __future__ import annotations

import socket
from collections.abc import Callable, Mapping, Set
from dataclasses import dataclass
from typing import Any

from fleet_agent.containers import compose_file, content_store, secret_files
from fleet_agent.engine import release_rules
from fleet_agent.engine.core import Engine
from fleet_agent.engine.journal import Deployed
from fleet_agent.engine.release_rules import Rules
from fleet_agent.engine.stack_store import StackRecord
from fleet_agent.errors import ValidationError
from fleet_agent.roles.role import Role
from fleet_agent.roles.schema import completed
from fleet_agent.roles.variables import read_env, refuse
from fleet_agent.support.atomic_files import kind_of


@dataclass(frozen=True)
class Draft:
    """A release resolved with this device's values; nothing of it is kept yet."""

    deployed: Deployed
    role: Role
    rules: Rules
    environment: Mapping[str, str]
    compose: dict[str, Any]
    images: tuple[str, ...]


def resolve(engine: Engine, deployed: Deployed) -> Draft:
    """Read the role, fill in today's .env and what the agent provides. Raises FleetError."""
    role = Role.load(engine.role_folder(deployed))
    values = read_env(engine.paths.env_file)
    refuse(role.problems(values))
    environment = role.environment(values, provided(engine, deployed))
    rules = release_rules.rules(engine, deployed, role.folder, role.access, role.given_paths(values))
    rules.read_source(engine.paths.release(deployed.release.commit_sha), environment)
    compose = engine.patiently(
        "resolve the compose file",
        lambda: engine.runtime.config(role.folder, environment, engine.config.project),
    )
    rules.judge(compose)
    return Draft(deployed, role, rules, environment, compose, tuple(compose_file.images(compose)))


def keep(engine: Engine, draft: Draft, *, avoid: Set[str] = frozenset()) -> StackRecord:
    """Copy what it mounts and write its record: from here on it starts without Git and without the .env.

    Nothing is put into the places named in `avoid`: a container may still use what was there.
    """
    compose = copy_content(engine, draft.compose, draft.deployed, draft.environment, avoid=avoid)
    health = draft.role.health.model_copy(update={"checks": draft.role.checks(draft.environment)})
    record = StackRecord(
        deployed=draft.deployed,
        images=draft.images,
        services=tuple(sorted(compose_file.services(compose))),
        replicas={
            name: number
            for name, service in compose_file.services(compose).items()
            if (number := compose_file.replicas(service)) != 1
        },
        one_shots=tuple(sorted(compose_file.awaited(compose) | completed(health))),
        health=health,
    )
    engine.stacks.save(record, compose)
    return record


def rebuild(engine: Engine, deployed: Deployed, *, avoid: Set[str] = frozenset()) -> StackRecord:
    """Make the stack of a release again that was complete here before, with today's .env."""
    return keep(engine, resolve(engine, deployed), avoid=avoid)


def copy_content(
    engine: Engine,
    compose: dict[str, Any],
    deployed: Deployed,
    environment: Mapping[str, str],
    *,
    avoid: Set[str] = frozenset(),
) -> dict[str, Any]:
    """`compose` with what it mounts of the release in places of its own. Raises ValidationError."""

    def copied() -> dict[str, Any]:
        mounted = secret_files.as_mounts(compose, environment, engine.paths.secrets)
        release = engine.paths.release(deployed.release.commit_sha)
        addressed = content_store.address_content(mounted, release, engine.paths.content, avoid=avoid)
        return release_rules.covered(engine, addressed)

    return engine.effects.perform("copy content", lambda: _translated(copied))


def _translated(copy: Callable[[], dict[str, Any]]) -> dict[str, Any]:
    try:
        return copy()
    except OSError as error:
        raise ValidationError(
            kind_of(error),
            f"The release's files could not be copied: {error.strerror}.",
            retryable=True,
        ) from error


def provided(engine: Engine, deployed: Deployed) -> dict[str, str]:
    """What the agent itself gives every role."""
    attempt = engine.journal.attempt
    release, assignment = (
        deployed.release,
        (attempt.assignment if attempt else None) or engine.journal.assignment,
    )
    return {
        "FLEET_RELEASE_VERSION": release.version,
        "FLEET_RELEASE_COMMIT": release.commit_sha,
        "FLEET_DEVICE_NAME": assignment.name if assignment else socket.gethostname(),
        "FLEET_DEVICE_ID": str(assignment.id) if assignment else "",
        "FLEET_ROLE": deployed.role,
    }
