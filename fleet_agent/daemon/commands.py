"""Commands of operators (`device_commands`): what each does on this device, and its answer.

Each is carried out at most once (`command_journal`). The check-in itself carries out `update_now` and answers
it after the update.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass
from typing import Protocol
from uuid import UUID

from loguru import logger

from fleet_agent.control_plane.client import ControlPlane
from fleet_agent.daemon.command_journal import CommandJournal, CommandResult
from fleet_agent.daemon.engine_process import EngineProcess, Verb
from fleet_agent.errors import ControlPlaneError, FleetError, Kind, StateError, interrupted
from fleet_agent.log import Ring, redact
from fleet_agent.model import Command, CommandKind, Directive, EngineStatus, ReportState

_UNWELL = (ReportState.DEGRADED, ReportState.SAFE_MODE)
REASON_LIMIT = 200
LOG_LINES_DEFAULT = 50
LOG_LINES_LIMIT = 200
LOG_LINE_LIMIT = 500


class Work(Protocol):
    def __call__(self, verb: Verb, *, reason: str = "") -> Awaitable[EngineStatus]: ...


@dataclass(frozen=True)
class CommandContext:
    """What commands are carried out with."""

    work: Work
    engine: EngineProcess
    ring: Ring


@dataclass(frozen=True)
class CommandRunner:
    """Carries out each command at most once, and answers it until the answer gets through."""

    journal: CommandJournal
    plane: Callable[[], ControlPlane]
    context: CommandContext
    note_progress: Callable[[], None]

    async def carry_out_all(self, directive: Directive) -> list[Command] | None:
        """Carry out all commands but `update_now`; returns those of that kind that are new, for `begin`.

        None when a command changed what runs here.
        """
        updates = []
        changed = False
        for unknown in self.plane().unknown_commands:
            await self.answer(unknown, NOT_SUPPORTED)
        for command in directive.commands:
            if self.journal.knows(command.id):
                await self.answer(command.id, self.journal.answer(command.id))
            elif command.kind == CommandKind.UPDATE_NOW:
                updates.append(command)
            elif await self.begin([command]):
                logger.info("carrying out {kind}", kind=command.kind.value)
                result, acted = await carry_out(command, self.context)
                changed = changed or acted
                await self.answer(command.id, result)
        self.journal.keep_only(command.id for command in directive.commands)
        return None if changed else updates

    async def begin(self, commands: Sequence[Command]) -> list[Command]:
        """Those that are recorded as begun: one that cannot be recorded could be carried out twice."""
        begun = []
        for command in commands:
            try:
                self.journal.begin(command)
                begun.append(command)
            except StateError as error:
                await self.answer(command.id, failed(error))
        return begun

    async def answer(self, command_id: UUID, result: CommandResult) -> None:
        self.journal.note(command_id, result)
        try:
            await self.plane().answer(command_id, result.state, result.result)
            self.note_progress()
        except ControlPlaneError as error:
            logger.warning("the answer to a command could not be sent yet: {error}", error=error)


async def carry_out(command: Command, context: CommandContext) -> tuple[CommandResult, bool]:
    """Carry out one command; returns its answer, and whether it changed what runs here."""
    try:
        return await _HANDLERS[command.kind](command, context)
    except FleetError as error:
        logger.warning("{command} failed: {error}", command=command.kind.value, error=error)
        return failed(error), False


def failed(error: FleetError) -> CommandResult:
    return CommandResult(
        state="failed",
        result={"kind": error.kind.value, "message": redact(error.message), "hint": redact(error.hint)},
    )


def outcome_of_update(
    status: EngineStatus | None, trouble: FleetError | None, converged: bool
) -> CommandResult:
    """The answer to `update_now`."""
    if trouble is not None:
        return failed(trouble)
    if status is None:
        return failed(interrupted("converge", "did not report its status"))
    release = status.current.version if status.current is not None else None
    if converged:
        return CommandResult(state="succeeded", result={"release": release, "state": status.state.value})
    return CommandResult(
        state="failed",
        result={
            "kind": status.error_kind or Kind.INTERNAL.value,
            "message": redact(status.error or status.reason or "The update did not complete."),
            "release": release,
        },
    )


async def _roll_back(_command: Command, context: CommandContext) -> tuple[CommandResult, bool]:
    status = await context.work(Verb.ROLLBACK, reason="Requested by an operator.")
    return _reached(status, status.state not in _UNWELL), True


async def _restart(_command: Command, context: CommandContext) -> tuple[CommandResult, bool]:
    status = await context.work(Verb.RESTART)
    return _reached(status, status.state not in _UNWELL), True


def _reached(status: EngineStatus, reached: bool) -> CommandResult:
    """The answer to a command that moves the device, from where it then is."""
    release = status.current.version if status.current is not None else None
    if not reached:
        return CommandResult(
            state="failed",
            result={
                "kind": status.error_kind or Kind.UNHEALTHY.value,
                "message": redact(status.error or status.reason),
                "release": release,
            },
        )
    return CommandResult(state="succeeded", result={"release": release, "state": status.state.value})


async def _tail_logs(command: Command, context: CommandContext) -> tuple[CommandResult, bool]:
    asked = command.args.get("lines", LOG_LINES_DEFAULT)
    lines = min(asked, LOG_LINES_LIMIT) if isinstance(asked, int) and asked > 0 else LOG_LINES_DEFAULT
    service = command.args.get("service")
    wanted = [
        {**line.model_dump(), "text": redact(line.text)[:LOG_LINE_LIMIT]}
        for line in await context.engine.logs(lines)
        if service is None or line.service == service
    ]
    shown = {"lines": wanted[-lines:], "agent": context.ring.entries()}
    return CommandResult(state="succeeded", result=shown), False


async def _check_drift(_command: Command, context: CommandContext) -> tuple[CommandResult, bool]:
    changed = list(await context.engine.drift())
    return CommandResult(state="succeeded", result={"drifted": bool(changed), "changed": changed}), False


async def _enter_safe_mode(command: Command, context: CommandContext) -> tuple[CommandResult, bool]:
    reason = str(command.args.get("reason") or "Requested by an operator.")[:REASON_LIMIT]
    status = await context.work(Verb.ENTER_SAFE_MODE, reason=reason)
    return _reached(status, status.state == ReportState.SAFE_MODE), True


async def _leave_safe_mode(_command: Command, context: CommandContext) -> tuple[CommandResult, bool]:
    status = await context.work(Verb.LEAVE_SAFE_MODE)
    return _reached(status, status.state != ReportState.SAFE_MODE), True


#: The answer to a kind of command that only a newer agent knows.
NOT_SUPPORTED = CommandResult(
    state="failed",
    result={
        "kind": Kind.NOT_SUPPORTED.value,
        "message": "This agent version does not support that command.",
        "hint": "Update the agent.",
    },
)


_HANDLERS: dict[CommandKind, Callable[[Command, CommandContext], Awaitable[tuple[CommandResult, bool]]]] = {
    CommandKind.ROLLBACK: _roll_back,
    CommandKind.RESTART: _restart,
    CommandKind.TAIL_LOGS: _tail_logs,
    CommandKind.CHECK_DRIFT: _check_drift,
    CommandKind.ENTER_SAFE_MODE: _enter_safe_mode,
    CommandKind.LEAVE_SAFE_MODE: _leave_safe_mode,
}
