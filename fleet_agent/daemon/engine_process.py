"""The engine as the daemon sees it: a child process that can be killed, never imported.

One JSON request on its standard input, which stays open: newer directives may follow.
One `Progress` a line on its standard output, the last line `{"done": EngineStatus}` or `{"error": …}`. Exit
code 0: it finished (also with a rollback). 75: another process is updating the device. Anything else: it
could not finish; the next start continues from its journal.
"""

from __future__ import annotations

import asyncio
import contextlib
import json
import os
import sys
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass, field
from enum import StrEnum
from pathlib import Path
from typing import Any, TypeVar

from loguru import logger
from pydantic import ValidationError as PydanticValidationError

from fleet_agent.config import DeviceConfig
from fleet_agent.errors import EXIT_LOCKED, FleetError, Kind, StateError, internal, interrupted, locked
from fleet_agent.host import rescue_ssh
from fleet_agent.model import Directive, EngineStatus, Frozen, Progress
from fleet_agent.paths import Paths
from fleet_agent.support.clock import Heard

ENGINE_COMMAND = (sys.executable, "-m", "fleet_agent.engine")
#: Exit codes of an engine that was not killed; after any other, programs of it may still run.
EXITS = (0, 1, 2, EXIT_LOCKED)
#: A large image over a slow link brings no progress for a while; a hung child must not block forever.
SILENCE_LIMIT_S = 45 * 60.0
#: Reading the status takes a second or two, even if Docker is slow.
LOOK_LIMIT_S = 120.0
#: How long a child may take to stop after SIGTERM.
STOP_GRACE_S = 15.0
#: One line: a status with many containers is long.
_LINE_LIMIT = 4 * 1024 * 1024


class Verb(StrEnum):
    CONVERGE = "converge"
    RECOVER = "recover"
    ROLLBACK = "rollback"
    RESTART = "restart"
    ENTER_SAFE_MODE = "enter_safe_mode"
    LEAVE_SAFE_MODE = "leave_safe_mode"
    STATUS = "status"
    LOGS = "logs"
    DRIFT = "drift"


#: These change nothing and need no lock.
_LOOKS = (Verb.STATUS, Verb.LOGS, Verb.DRIFT)


class LogLine(Frozen):
    """One line that a container wrote."""

    service: str
    text: str
    at: str | None = None


class _Logs(Frozen):
    lines: tuple[LogLine, ...]


class _Drift(Frozen):
    changed: tuple[str, ...]


Shape = TypeVar("Shape", bound=Frozen)
OnProgress = Callable[[Progress], Awaitable[None]]


async def _ignore(_progress: Progress) -> None:
    return None


@dataclass
class EngineProcess:
    """Starts the engine, at most one at a time (the daemon has one loop)."""

    settings: Callable[[], dict[str, object]]
    heard: Callable[[], Heard | None] = lambda: None
    command: Sequence[str] = ENGINE_COMMAND
    silence_limit_s: float = SILENCE_LIMIT_S
    stop_grace_s: float = STOP_GRACE_S
    _child: asyncio.subprocess.Process | None = field(default=None, repr=False)

    async def run(
        self,
        verb: Verb,
        *,
        directive: Directive | None = None,
        reason: str = "",
        operator_requested: bool = False,
        on_progress: OnProgress = _ignore,
    ) -> EngineStatus:
        """Run one request to its end. Raises StateError: `locked`, `interrupted`, or as the engine named."""
        details: dict[str, object] = {
            "directive": directive.model_dump(mode="json") if directive is not None else None,
            "reason": reason,
            "operator_requested": operator_requested,
        }
        return _parsed(EngineStatus, await self._request(verb, details, on_progress))

    async def logs(self, lines: int) -> tuple[LogLine, ...]:
        """The last lines of each container. Raises FleetError."""
        return _parsed(_Logs, await self._request(Verb.LOGS, {"lines": lines})).lines

    async def drift(self) -> tuple[str, ...]:
        """What differs from the committed release, one phrase each. Raises FleetError."""
        return _parsed(_Drift, await self._request(Verb.DRIFT, {})).changed

    async def _request(
        self, verb: Verb, details: dict[str, object], on_progress: OnProgress = _ignore
    ) -> Any:
        """Start the engine for one request, follow it to its end, and return what it says then."""
        request = {
            **details,
            "verb": verb.value,
            "config": self.settings(),
            "heard": heard.model_dump(mode="json") if (heard := self.heard()) is not None else None,
            "parent": os.getpid(),
        }
        child = await asyncio.create_subprocess_exec(
            *self.command,
            stdin=asyncio.subprocess.PIPE,
            stdout=asyncio.subprocess.PIPE,
            limit=_LINE_LIMIT,
        )
        self._child = child
        try:
            assert child.stdin is not None  # noqa: S101 - PIPE above
            with contextlib.suppress(ConnectionError, BrokenPipeError):
                child.stdin.write(json.dumps(request).encode() + b"\n")
                await child.stdin.drain()
            limit_s = min(self.silence_limit_s, LOOK_LIMIT_S) if verb in _LOOKS else self.silence_limit_s
            done = await self._follow(child, verb, on_progress, limit_s)
            code = await self._ended(child, verb)
        finally:
            await self._end(child)
            if child.returncode not in EXITS:
                await asyncio.to_thread(_end_leftovers, self.settings())
            self._child = None
        return _done(verb, code, done)

    @property
    def busy(self) -> bool:
        """Whether an engine is at work. It has limits of its own."""
        return self._child is not None

    async def supersede(self, directive: Directive) -> None:
        """Tell the engine at work what the control plane now asks for; it may still give up."""
        child = self._child
        if child is None or child.stdin is None:
            return
        with contextlib.suppress(ConnectionError, BrokenPipeError):
            child.stdin.write(json.dumps({"directive": directive.model_dump(mode="json")}).encode() + b"\n")
            await child.stdin.drain()

    async def stop(self) -> None:
        """Ask a running child to stop; kill it if it does not. The next start finishes from its journal."""
        if self._child is not None:
            await self._end(self._child)

    async def _follow(
        self, child: asyncio.subprocess.Process, verb: Verb, on_progress: OnProgress, limit_s: float
    ) -> dict[str, Any] | None:
        assert child.stdout is not None  # noqa: S101 - PIPE above
        done: dict[str, Any] | None = None
        while True:
            try:
                async with asyncio.timeout(limit_s):
                    line = await child.stdout.readline()
            except TimeoutError as error:
                raise interrupted(verb, f"made no progress for {limit_s:.0f} s and was stopped") from error
            if not line:
                return done
            try:
                said = json.loads(line)
                if isinstance(said, dict) and ("done" in said or "error" in said):
                    done = said
                else:
                    await on_progress(Progress.model_validate(said))
            except (ValueError, PydanticValidationError):
                logger.warning("the engine wrote a line that cannot be read: {line}", line=line[:200])

    async def _ended(self, child: asyncio.subprocess.Process, verb: Verb) -> int:
        """The exit code of a child that closed its output, or StateError if it stays after its last line."""
        try:
            async with asyncio.timeout(self.stop_grace_s):
                return await child.wait()
        except TimeoutError as error:
            raise interrupted(verb, "stopped responding and was killed") from error

    async def _end(self, child: asyncio.subprocess.Process) -> None:
        if child.returncode is not None:
            return
        with contextlib.suppress(ProcessLookupError):
            child.terminate()
        try:
            async with asyncio.timeout(self.stop_grace_s):
                await child.wait()
        except TimeoutError:
            logger.warning("the engine did not stop when asked and is being killed")
            with contextlib.suppress(ProcessLookupError):
                child.kill()
            try:
                async with asyncio.timeout(self.stop_grace_s):
                    await child.wait()
            except TimeoutError:
                # Stuck in the kernel (a dead disk). It keeps the lock for as long as it lives; we continue.
                logger.error("the engine (process {pid}) cannot be killed", pid=child.pid)


def engine_settings(paths: Paths, config: DeviceConfig) -> dict[str, object]:
    """The part of the device's configuration that the engine uses."""
    access = rescue_ssh.in_effect()
    return {
        "root": str(paths.root),
        "runtime": config.runtime,
        "project": config.project,
        "git_url": config.git_url,
        "allowed_signers": str(config.allowed_signers) if config.allowed_signers is not None else None,
        "verify_signatures": config.verify_signatures,
        "fleet_id": str(config.fleet_id) if config.fleet_id is not None else None,
        "refuse_older_releases": config.refuse_older_releases,
        "min_free_bytes": config.min_free_bytes,
        # What is installed, not what the file now says: this is shown to people.
        "rescue_access": access.model_dump(mode="json") if access is not None else None,
    }


def _done(verb: Verb, code: int, done: dict[str, Any] | None) -> Any:
    if code == EXIT_LOCKED:
        named = done.get("error") if done is not None else None
        if named is not None:
            # It names the holder.
            raise _named(named)
        raise locked("its name is not known")
    if done is not None and "error" in done:
        raise _named(done["error"])
    if done is None or code != 0:
        raise interrupted(verb, f"died (exit code {code})")
    return done["done"]


def _parsed(shape: type[Shape], done: Any) -> Shape:
    try:
        return shape.model_validate(done)
    except PydanticValidationError as error:
        raise internal("the engine's answer cannot be read") from error


def _end_leftovers(settings: dict[str, object]) -> None:
    """End what a killed engine left running; a process that updates the device now has done so already."""
    from fleet_agent.engine.lock import converging
    from fleet_agent.support import orphans

    paths = Paths(Path(str(settings["root"])))
    try:
        with (
            converging(paths.lock, "ending what a killed update left"),
            orphans.none_beside(paths.children),
        ):
            pass
    except StateError as error:
        logger.warning("programs that the engine left running may still run: {error}", error=error)


def _named(problem: Any) -> FleetError:
    """The engine's own refusal, like a rollback with nothing to roll back to."""
    if not isinstance(problem, dict):
        return internal(str(problem))
    kind = problem.get("kind")
    return StateError(
        Kind(kind) if kind in set(Kind) else Kind.INTERNAL,
        str(problem.get("message") or "The engine refused without a message."),
        hint=str(problem.get("hint") or ""),
        retryable=bool(problem.get("retryable", False)),
    )
