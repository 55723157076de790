"""Another Compose project or runtime is another device: its services would start beside the old ones."""

from __future__ import annotations

from loguru import logger

from fleet_agent.containers import factory
from fleet_agent.engine.core import Engine
from fleet_agent.errors import StateError, config_invalid


def refuse_another(engine: Engine) -> None:
    """Raises ConfigError (`config_invalid`) while anything is left of a project or runtime of before."""
    _refuse_another_runtime(engine)
    project = engine.config.project
    for other in sorted(_before(engine) - {project}):
        left = [*engine.runtime.belongings(other), *engine.runtime.belongings(f"{other}-safe")]
        if left:
            raise config_invalid(
                f"The project {project}",
                f"this device still has {_listed(left)} of the project {other}, and {project} would "
                "start empty",
                hint=f'Set "project" back to {other}. To change it for good: stop the agent, save the data '
                f"of the volumes, remove all of {other} (docker compose --project-name {other} down; "
                "docker volume rm ...), and start the agent again.",
            )
        logger.warning("the project is now {now}; nothing of {other} is left", now=project, other=other)


def _refuse_another_runtime(engine: Engine) -> None:
    before, now = engine.journal.runtime, engine.runtime.name
    if before is None or before == now:
        return
    old = factory.make("docker" if before == "docker" else "simulated", engine.paths)
    projects = sorted({engine.config.project, *_before(engine)})
    left = [one for name in projects for which in (name, f"{name}-safe") for one in old.belongings(which)]
    if left:
        way = f"remove {engine.paths.state / 'simulated.json'}"
        if before == "docker":
            down = "; ".join(f"docker compose --project-name {name} down" for name in projects)
            way = f"save the data of the volumes, remove what Docker has ({down}; docker volume rm ...)"
        raise config_invalid(
            f"The runtime {now}",
            f"this device still has {_listed(left)} in the runtime {before}, and {now} would start another",
            hint=f'Set "runtime" back to {before}. To change it for good: stop the agent, {way}, '
            "and start the agent again.",
        )
    logger.warning("the runtime is now {now}; nothing is left in {before}", now=now, before=before)


def is_ours(engine: Engine, key: str) -> bool:
    """Whether a stack was resolved for this project: its volumes and networks have the project's name."""
    return engine.stacks.compose(key).get("name") in (None, engine.config.project)


def _before(engine: Engine) -> set[str]:
    """Projects that releases of this device were resolved for, and that of the journal."""
    journal, attempt = engine.journal, engine.journal.attempt
    found = {journal.project} if journal.project else set()
    deployed = [journal.current, journal.previous, *([attempt.target, attempt.origin] if attempt else [])]
    for one in deployed:
        try:
            if one is not None and (name := engine.stacks.compose(one.key).get("name")):
                found.add(str(name))
        except StateError:
            continue
    return found


def _listed(left: list[str]) -> str:
    return left[0] if len(left) == 1 else f"{', '.join(left[:-1])} and {left[-1]}"
