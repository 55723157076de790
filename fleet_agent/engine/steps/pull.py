"""Bring every image here while the old release still runs: nothing stops for want of one."""

from __future__ import annotations

from loguru import logger
from tenacity import Retrying, retry_if_exception, stop_after_attempt, wait_random_exponential

from fleet_agent.engine import retention, safe
from fleet_agent.engine.core import Engine
from fleet_agent.engine.phases import Phase
from fleet_agent.errors import ContainerError, FleetError, Kind

#: Tries of one image within an attempt; the attempt itself is repeated later.
TRIES = 3


def run(engine: Engine) -> None:
    record = engine.stacks.load(engine.attempt.target)
    try:
        _pull(engine, record.images)
    except FleetError as error:
        if error.kind is not Kind.DISK_FULL:
            raise
        logger.warning("{error} Cleaning up, then once more.", error=error.message)
        retention.clean(engine)
        _pull(engine, record.images)
    # The first release has no older safe mode to fall back on.
    safe.prepare(engine, engine.attempt.target, unless_there=True)
    engine.move(Phase.SWAPPING)


def _pull(engine: Engine, images: tuple[str, ...]) -> None:
    runtime = engine.runtime
    for image in engine.patiently("look for images", lambda: runtime.missing_images(images, thoroughly=True)):
        retention.need_space(engine)
        for attempt in Retrying(
            retry=retry_if_exception(_worth_retrying),
            wait=wait_random_exponential(multiplier=1, max=20),
            stop=stop_after_attempt(TRIES),
            sleep=engine.seams.clock.sleep,
            before_sleep=lambda state: logger.info(
                "pulling failed, try {attempt} of {tries}: {error}",
                attempt=state.attempt_number,
                tries=TRIES,
                error=state.outcome.exception() if state.outcome else None,
            ),
            reraise=True,
        ):
            with attempt:
                runtime.pull(image, engine.say)
    missing = runtime.missing_images(images)
    if missing:
        raise ContainerError(
            Kind.IMAGE_MISSING, f"{missing[0]} is still not on this device after pulling it.", retryable=True
        )


def _worth_retrying(error: BaseException) -> bool:
    return isinstance(error, FleetError) and error.retryable and error.kind is not Kind.DISK_FULL
