"""What differs from the committed release: somebody changed something by hand."""

from __future__ import annotations

from fleet_agent.containers.content_store import changed_content
from fleet_agent.engine import links, running
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
    found += [
        f"the files that {service} mounts at {target} were changed on this device"
        for service, target in changed_content(engine.stacks.compose(current.key), engine.paths.content)
    ]
    for difference in running.compare(engine, record):
        # A container that Docker starts again after a crash was not changed by anybody.
        if not difference.phrase.endswith(" is restarting"):
            found.append(difference.phrase)
    return found
