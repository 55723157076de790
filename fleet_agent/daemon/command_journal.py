"""Which commands were begun here and how they were answered, on disk, so that none is carried out twice.

A command is recorded before it is begun, and its answer before it is sent. So whenever the daemon dies, the
next one knows which command may have partly completed: it answers `interrupted`, and does not repeat it.
An entry is removed once the control plane no longer offers its command, so most of the time there is no file.
"""

from __future__ import annotations

from collections.abc import Iterable
from datetime import datetime
from pathlib import Path
from typing import Any, Literal
from uuid import UUID

from loguru import logger
from pydantic import Field
from pydantic import ValidationError as PydanticValidationError

from fleet_agent.errors import Kind, StateError
from fleet_agent.model import Command, Frozen
from fleet_agent.support import atomic_files
from fleet_agent.support.clock import Clock


class CommandResult(Frozen):
    """`device_commands.state` and `.result`; a failure carries `kind`, `message` and `hint`."""

    state: Literal["succeeded", "failed"]
    result: dict[str, Any]


class _Entry(Frozen):
    begun_at: datetime
    answer: CommandResult | None = None


class _File(Frozen):
    commands: dict[UUID, _Entry] = Field(default_factory=dict)


class CommandJournal:
    def __init__(self, file: Path, clock: Clock) -> None:
        self._file = file
        self._clock = clock
        self._commands, self._in_doubt = _read(file)

    def knows(self, command_id: UUID) -> bool:
        """Whether this command must not be begun: it was begun before, or that is not known."""
        return self._in_doubt or command_id in self._commands

    def answer(self, command_id: UUID) -> CommandResult:
        """The answer to a command for which `knows` is true."""
        entry = self._commands.get(command_id)
        if entry is None:
            return _interrupted("This device's record of commands is corrupt")
        return entry.answer or _interrupted(
            f"The agent stopped during this command, which began at {entry.begun_at:%Y-%m-%d %H:%M:%S} UTC"
        )

    def begin(self, command: Command) -> None:
        """Record durably that `command` begins. Raises StateError; then it must not begin."""
        self._write({**self._commands, command.id: _Entry(begun_at=self._clock.now())})

    def note(self, command_id: UUID, answer: CommandResult) -> None:
        """Keep `answer` until it has been sent; on a full disk only in memory, with a warning.

        A command that was never begun is not recorded.
        """
        if not self.knows(command_id):
            return
        entry = self._commands.get(command_id) or _Entry(begun_at=self._clock.now())
        commands = {**self._commands, command_id: entry.model_copy(update={"answer": answer})}
        if commands != self._commands:
            self._write_if_possible(commands)

    def keep_only(self, offered: Iterable[UUID]) -> None:
        """Drop the commands that the control plane no longer offers: it has their answers."""
        ids = set(offered)
        commands = {command_id: entry for command_id, entry in self._commands.items() if command_id in ids}
        if self._in_doubt or commands != self._commands:
            self._in_doubt = False
            self._write_if_possible(commands)

    def _write(self, commands: dict[UUID, _Entry]) -> None:
        if commands:
            atomic_files.write_atomic(self._file, _File(commands=commands).model_dump_json().encode())
        else:
            atomic_files.remove(self._file)
        self._commands = commands

    def _write_if_possible(self, commands: dict[UUID, _Entry]) -> None:
        try:
            self._write(commands)
        except StateError as error:
            self._commands = commands
            logger.warning("the record of commands could not be written to disk: {error}", error=error)


def _read(file: Path) -> tuple[dict[UUID, _Entry], bool]:
    """The entries, and whether there may have been others."""
    try:
        return _File.model_validate_json(file.read_bytes()).commands, False
    except FileNotFoundError:
        return {}, False
    except (OSError, PydanticValidationError):
        logger.error("{file} is corrupt: the commands offered now are not carried out", file=file)
        return {}, True


def _interrupted(what: str) -> CommandResult:
    return CommandResult(
        state="failed",
        result={
            "kind": Kind.INTERRUPTED.value,
            "message": f"{what}. The command may have partly completed, so it is not retried.",
            "hint": "Check the device, and send the command again if it is still needed.",
        },
    )
