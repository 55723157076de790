"""The three links. Their order of change lets a lost journal be rebuilt from them.

`app_current` is what is to run, `app_prev` what to go back to, and `app_next` exists exactly while a staged
release is neither committed nor given up.
"""

from __future__ import annotations

from dataclasses import dataclass

from fleet_agent.engine.core import Engine
from fleet_agent.engine.journal import Deployed
from fleet_agent.engine.state_files import points_at
from fleet_agent.paths import Paths


@dataclass(frozen=True)
class Links:
    """The commits that the links name."""

    current: str | None
    previous: str | None
    next: str | None


def read(paths: Paths) -> Links:
    found = [points_at(link) for link in (paths.current, paths.previous, paths.next)]
    return Links(
        *(path.name if path is not None and path.parent == paths.releases else None for path in found)
    )


def restore(engine: Engine) -> None:
    """Point the links at what ran before the attempt; `app_next` stays until that has proved itself."""
    journal = engine.journal
    _set(engine, engine.attempt.origin or journal.current, journal.previous)


def clear_staged(engine: Engine) -> None:
    """Remove `app_next`: nothing is staged any more."""
    engine.files.remove(engine.paths.next)


def sync(engine: Engine) -> None:
    """Make the links agree with the journal, at rest."""
    _set(engine, engine.journal.current, engine.journal.previous)
    clear_staged(engine)


def _set(engine: Engine, current: Deployed | None, previous: Deployed | None) -> None:
    for link, deployed in ((engine.paths.current, current), (engine.paths.previous, previous)):
        if deployed is None:
            engine.files.remove(link)
        else:
            engine.files.link(link, engine.paths.release(deployed.release.commit_sha))
