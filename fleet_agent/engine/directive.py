"""What a directive means on this device, here and now: nothing, an attempt, or why it is not tried."""

from __future__ import annotations

from loguru import logger

from fleet_agent.engine import prefetch, repair, runner, safe_mode
from fleet_agent.engine.core import Engine
from fleet_agent.engine.journal import AttemptKind, Deployed
from fleet_agent.engine.phases import Phase
from fleet_agent.errors import Kind, StateError
from fleet_agent.model import Action, CommandKind, DeviceAssignment, Directive, Release

#: The kind of a safe mode that was requested, not caused by a failure.
REQUESTED = "requested"
#: Safe mode of these kinds ends by a command or with its cause, not by being offered the same release again.
_STAYS = (REQUESTED, Kind.DISK_FULL)


def follow(engine: Engine, directive: Directive, *, operator_requested: bool) -> None:
    """Do it, to the end. Raises FleetError if only another start can go on."""
    requested = operator_requested or any(
        command.kind is CommandKind.UPDATE_NOW for command in directive.commands
    )
    match directive.action:
        case Action.RUN | Action.HOLD:
            if directive.action is Action.RUN and directive.prefetch is not None:
                _prefetch(engine, directive.prefetch, directive.device, operator_requested=requested)
        case Action.SAFE_MODE:
            enter_safe_mode(engine, "The control plane asks for it.")
        case Action.ROLLBACK if directive.release is None:
            go_back(engine, "The control plane asks for it.")
        case _ if directive.release is None:
            logger.info("the directive says update but names no release: nothing to do")
        case _:
            _update(engine, directive, directive.release, operator_requested=requested)


def go_back(engine: Engine, reason: str) -> None:
    """To the previous release. Raises StateError (`nothing_to_roll_back`) if there is none."""
    previous = engine.journal.previous
    if previous is None:
        raise StateError(
            Kind.NOTHING_TO_ROLL_BACK,
            "There is no earlier release on this device to go back to.",
            hint="Pin the device to a release instead.",
        )
    repair.restore_stack(engine, previous)
    engine.begin(AttemptKind.GO_BACK, previous, first=Phase.SWAPPING, assignment=None, reason=reason)
    runner.work(engine)


def enter_safe_mode(engine: Engine, reason: str) -> None:
    """Unless the device is in safe mode already, with the release stopped; then it stays until told."""
    mode, sentence = engine.journal.safe_mode, f"Safe mode: {reason.rstrip('.')}."
    if mode is None or mode.release_runs:
        runner.enter_safe_mode(engine, sentence, REQUESTED)
    elif mode.next_try_at is not None:
        sentence = f"{sentence} Before: {mode.reason.removeprefix('Safe mode: ')}"
        stays = mode.model_copy(update={"reason": sentence, "kind": REQUESTED, "next_try_at": None})
        engine.save(safe_mode=stays, reason=sentence)
        safe_mode.bring_up(engine)


def _update(engine: Engine, directive: Directive, release: Release, *, operator_requested: bool) -> None:
    target = Deployed(release=release, role=directive.device.role)
    journal = engine.journal
    if journal.current is not None and journal.current.key == target.key and journal.safe_mode is None:
        if journal.current != target:
            # The same commit under another row or version: only what it is called changes.
            engine.save(current=target)
        return
    if not _may_try(engine, target, operator_requested=operator_requested):
        return
    engine.begin(
        AttemptKind.UPDATE,
        target,
        first=Phase.FETCHING,
        assignment=directive.device,
        rollout_id=directive.rollout_id,
        prefetch=prefetch.kept_for(engine.journal, target),
    )
    runner.work(engine)


def _prefetch(
    engine: Engine, release: Release, assignment: DeviceAssignment, *, operator_requested: bool
) -> None:
    target = Deployed(release=release, role=assignment.role)
    prefetch.rename(engine, target)
    if prefetch.is_here(engine.journal, target):
        return
    if operator_requested:
        engine.remember(engine.memory.without(target.key).without(target.prefetch_key))
    against = prefetch.objection(engine.memory, target, engine.env_fingerprint(), engine.clock.corrected())
    if against is not None:
        logger.info("{version} is not prefetched: {why}", version=release.version, why=against.message)
        return
    prefetch.begin(engine, target, assignment)
    runner.work(engine)


def _may_try(engine: Engine, target: Deployed, *, operator_requested: bool) -> bool:
    memory, version = engine.memory, target.release.version
    if operator_requested:
        engine.remember(memory.without(target.key))
        return True
    mode = engine.journal.safe_mode
    if mode is not None and mode.kind in _STAYS and engine.journal.current == target:
        logger.info("in safe mode; {version} ran before, so it is not a fix", version=version)
        return False
    bad = memory.known_bad(target.key, engine.env_fingerprint())
    if bad is not None:
        _explain(
            engine,
            f"{version} failed on this device and will not be retried automatically: {bad.message}",
            bad.kind,
        )
        return False
    trouble = memory.wait_for(target.key, engine.clock.corrected())
    if trouble is not None:
        _explain(
            engine,
            f"{version} will be retried at {trouble.not_before:%H:%M:%S} UTC: {trouble.message}",
            trouble.kind,
        )
        return False
    return True


def _explain(engine: Engine, reason: str, kind: str) -> None:
    """Report why nothing happens; in safe mode and after a rollback the older reason tells more."""
    logger.info("{reason}", reason=reason)
    if engine.journal.error_kind is None:
        engine.save(reason=reason, error_kind=kind, error=reason)
