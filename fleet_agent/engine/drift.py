"""What differs from the committed release: somebody changed something by hand."""

from __future__ import annotations

from fleet_agent.engine import links
from fleet_agent.engine.core import Engine
from fleet_agent.errors import ReleaseError


def find_drift(engine: Engine) -> list[str]:
    """One phrase for each difference; changes nothing. Raises FleetError if it cannot be found out."""
    current = engine.journal.current
    if current is None:
        return []
    record = engine.stacks.load(current)
    found = []
    try:
        engine.source.check(current.release, current.role)
    except ReleaseError as error:
        found.append(f"release files: {error.message}")
    if links.read(engine.paths).current != current.release.commit_sha:
        found.append("the link app_current does not point to the committed release")
    seen = {container.service: container for container in engine.runtime.services(engine.config.project)}
    for service in record.services:
        if service not in seen:
            found.append(f"{service} has no container")
        elif seen[service].state not in ("running", "restarting"):
            found.append(f"{service} is {seen[service].state}")
        elif seen[service].image not in record.images:
            found.append(f"{service} runs {seen[service].image}, which is not in the release")
    found += [f"{service} is not part of the release" for service in sorted(set(seen) - set(record.services))]
    return found
