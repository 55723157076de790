"""What stays on the disk: releases that run, ran before, are in hand, prefetched or to be tried again.

All others go.
"""

from __future__ import annotations

from collections.abc import Callable
from datetime import timedelta
from pathlib import Path
from typing import TypeVar

from loguru import logger

from fleet_agent.containers.content_store import names_of
from fleet_agent.engine import safe_mode
from fleet_agent.engine.core import Engine
from fleet_agent.engine.journal import AttemptInHand, AttemptKind, Deployed, PendingRelease
from fleet_agent.errors import ContainerError, FleetError, Kind, StateError
from fleet_agent.model import Outcome

T = TypeVar("T")
#: What is never applied is not kept forever. Longer than the month that may lie between two windows.
KEPT_FOR = timedelta(days=40)


def pending(engine: Engine, attempt: AttemptInHand) -> PendingRelease | None:
    """What stays for another try when `attempt` is recorded: its release, unless it is given up for good.

    One that found the disk full gives up its room.
    """
    failure, before = attempt.failure, engine.journal.pending
    if attempt.kind not in (AttemptKind.UPDATE, AttemptKind.PREFETCH):
        return before
    ended = attempt.outcome is Outcome.SUCCEEDED or failure is None
    if ended or failure is None or failure.kind == Kind.DISK_FULL:
        return None
    if failure.passes or failure.kind in (Kind.INTERRUPTED, Kind.SUPERSEDED):
        return PendingRelease(target=attempt.target, since=engine.clock.corrected())
    return None


def drop_pending(engine: Engine) -> None:
    """Keep nothing for another try: there is too little space, or it was asked for too long ago."""
    if engine.journal.pending is not None:
        engine.save(pending=None)


def clean(engine: Engine) -> None:
    """Remove what nothing refers to any more. Best effort: what cannot be removed now goes another time."""
    deployed = _kept(engine)
    keys = {one.key for one in deployed}
    # First: on a disk that is full to the last byte, only what an unfinished fetch or export left can go.
    engine.source.prune({one.release.commit_sha for one in deployed})
    try:
        _images(engine, keys)
        for key in engine.stacks.names():
            if key not in keys:
                engine.stacks.remove(key)
        _mounts(engine, keys)
    except (FleetError, OSError) as error:
        logger.warning("clean-up was interrupted: {error}", error=error)


def cleaning_up_once(engine: Engine, action: Callable[[], T]) -> T:
    """Do it; if the disk is full, clean up and do it once more. Raises what `action` raises."""
    try:
        return action()
    except FleetError as error:
        if error.kind is not Kind.DISK_FULL:
            raise
        logger.warning("{error} Cleaning up, then retrying once.", error=error.message)
    if (one := engine.journal.pending) is not None and one.target != engine.attempt.target:
        drop_pending(engine)
    clean(engine)
    return action()


def finish_cleaning(engine: Engine) -> None:
    """Finish a clean-up that was interrupted: the next one may be months away.

    Looks at three folders; fetched commits without a release folder wait for the next update.
    """
    waits, now = engine.journal.pending, engine.clock.corrected()
    if waits is not None and not waits.since <= now <= waits.since + KEPT_FOR:
        drop_pending(engine)
    deployed = _kept(engine)
    commits, keys = {one.release.commit_sha for one in deployed}, {one.key for one in deployed}
    if _names(engine.paths.releases) - commits or set(engine.stacks.names()) - keys or _unused(engine, keys):
        logger.info("an earlier clean-up was interrupted; cleaning up again")
        clean(engine)


def _kept(engine: Engine) -> list[Deployed]:
    """What runs, ran before, is prefetched or to be tried again, and is in hand or was before it."""
    journal, attempt = engine.journal, engine.journal.attempt
    kept = [journal.current, journal.previous]
    if journal.prefetch is not None and journal.prefetch.ready:
        kept.append(journal.prefetch.target)
    if journal.pending is not None:
        kept.append(journal.pending.target)
    if attempt is not None:
        kept += [attempt.target, attempt.origin]
    return [one for one in kept if one is not None]


def _only_before(engine: Engine) -> set[str]:
    """The key of the previous release, unless it is kept for something else, too."""
    previous = engine.journal.previous
    if previous is None:
        return set()
    kept = [one.key for one in _kept(engine)]
    return {previous.key} if kept.count(previous.key) == 1 else set()


def _names(folder: Path) -> set[str]:
    return {path.name for path in folder.iterdir()} if folder.is_dir() else set()


def _images(engine: Engine, keys: set[str]) -> None:
    """Only images that our own releases brought and that no kept release uses."""
    used: set[str] = safe_mode.images(engine).union(*(engine.stacks.images(key) for key in keys))
    gone: set[str] = set().union(
        *(engine.stacks.images(key) for key in engine.stacks.names() if key not in keys)
    )
    for image in sorted(gone - used):
        if engine.runtime.remove_image(image):
            logger.info("removed the image {image}, which no kept release uses", image=image)


def _mounts(engine: Engine, keys: set[str]) -> None:
    for place in sorted(_unused(engine, keys)):
        if place.name.startswith("."):
            engine.files.discard_tree(place)
        else:
            # By one rename first: half of a service's own copy would later be taken for all of it.
            engine.files.remove_tree(place)


def _unused(engine: Engine, keys: set[str]) -> set[Path]:
    """Places that neither a kept release nor any container mounts; none if that is not known.

    A secret's file goes with its containers: should the release before come back, it is written again.
    """
    there = {store / name for store in engine.stacks.stores for name in _names(store)}
    if not there:
        return set()
    try:
        before = _only_before(engine)
        mounted = {place for key in keys - before for place in engine.stacks.mounted(key)}
        mounted |= {
            place
            for key in keys & before
            for place in engine.stacks.mounted(key)
            if place.parent != engine.paths.secrets
        }
        unused = there - safe_mode.mounted(engine) - mounted
        return unused - _mounted_now(engine) if unused else set()
    except (StateError, ContainerError) as error:
        logger.warning("not removing any content: {error}", error=error.message)
        return set()


def _mounted_now(engine: Engine) -> set[Path]:
    """Places that containers mount, whatever release they are of."""
    config = engine.config
    seen = engine.runtime.services(config.project) + engine.runtime.services(config.safe_project)
    sources = {source for container in seen for source in container.mounts.values()}
    return {store / name for store in engine.stacks.stores for name in names_of(sources, store)}
