"""Bring every image here while the old release still runs, so that nothing stops because one is missing."""

from __future__ import annotations

from functools import partial

from fleet_agent.engine import disk_space, prefetch, retention, safe_mode
from fleet_agent.engine.core import Engine
from fleet_agent.engine.journal import AttemptKind
from fleet_agent.engine.phases import Phase
from fleet_agent.errors import ContainerError, FleetError, Kind, ValidationError
from fleet_agent.support import retry


def run(engine: Engine) -> None:
    record = engine.stacks.load(engine.attempt.target)
    retention.cleaning_up_once(engine, lambda: _pull(engine, record.images))
    _refuse_foreign(engine, record.images)
    # The first release has no older safe-mode page to fall back on.
    safe_mode.prepare(engine, engine.attempt.target, unless_there=True)
    if engine.attempt.kind is AttemptKind.PREFETCH:
        prefetch.succeed(engine)
    else:
        engine.move(Phase.SWAPPING)


def _refuse_foreign(engine: Engine, images: tuple[str, ...]) -> None:
    """Docker would start such a container, and its program could not be executed."""
    foreign = engine.patiently("look at the images", lambda: engine.runtime.foreign_images(images))
    for image, platform in foreign.items():
        raise ValidationError(
            Kind.PLATFORM_MISMATCH,
            f"{image} is for the platform {platform}, which this device cannot run.",
            hint="Build the image for several platforms, or keep the role from this device.",
        )


def _pull(engine: Engine, images: tuple[str, ...]) -> None:
    runtime = engine.runtime
    for image in engine.patiently("look for images", lambda: runtime.missing_images(images, thoroughly=True)):
        disk_space.need_space(engine)
        retry.transfer(
            retry.PULL,
            partial(runtime.pull, image, engine.report_progress),
            sleep=engine.clock.sleep,
            worth_it=_is_worth_retrying,
        )
    missing = runtime.missing_images(images)
    if missing:
        raise ContainerError(
            Kind.IMAGE_MISSING,
            f"{missing[0]} is still not on this device after it was pulled.",
            retryable=True,
        )


def _is_worth_retrying(error: BaseException) -> bool:
    return retry.is_worth_it(error) and not (isinstance(error, FleetError) and error.kind is Kind.DISK_FULL)
