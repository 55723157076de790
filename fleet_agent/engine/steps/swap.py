"""Point the links at the new release. In this order: `app_next` exists while nothing is decided yet."""

from __future__ import annotations

from fleet_agent.engine.core import Engine
from fleet_agent.engine.phases import Phase


def run(engine: Engine) -> None:
    attempt, paths = engine.attempt, engine.paths
    target = paths.release(attempt.target.release.commit_sha)
    engine.files.link(paths.next, target)
    before = attempt.origin or engine.journal.current
    if before is not None and before != attempt.target:
        engine.files.link(paths.previous, paths.release(before.release.commit_sha))
    engine.files.link(paths.current, target)
    engine.move(Phase.STARTING)
