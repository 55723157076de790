"""The engine as the daemon sees it: a child process that can be killed, never imported.

One JSON request on its standard input, which stays open: newer directives may follow.
One `Progress` a line on its standard output, the last line `{"done": EngineStatus}` or `{"error": …}`. Exit
code 0: it ran to an end (a rollback is one). 75: somebody else converges. Anything else: it could not come to
rest, and its journal lets the next start go on.
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
from typing import Any

from loguru import logger
from pydantic import ValidationError as PydanticValidationError

from fleet_agent.config import DeviceConfig
from fleet_agent.errors import EXIT_LOCKED, FleetError, Kind, StateError
from fleet_agent.host import emergency_ssh as emergency
from fleet_agent.model import Directive, EngineStatus, Progress
from fleet_agent.paths import Paths
from fleet_agent.support.clock import Heard

ENGINE_COMMAND = (sys.executable, "-m", "fleet_agent.engine")
#: How an engine ends that came to its end; any other way something of it may be left.
EXITS = (0, 1, 2, EXIT_LOCKED)
#: A large image over a slow link says nothing for a while; a hung child must not say nothing for ever.
SILENCE_LIMIT_S = 45 * 60.0
#: To look costs a second or two, even where Docker takes its time.
STATUS_LIMIT_S = 120.0
#: How long a child may take to end after it was asked to.
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


OnProgress = Callable[[Progress], Awaitable[None]]


async def _ignore(_progress: Progress) -> None:
    return None


@dataclass
class Worker:
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
        asked: bool = False,
        on_progress: OnProgress = _ignore,
    ) -> EngineStatus:
        """Run one request to its end. Raises StateError: `locked`, `interrupted`, or as the engine named."""
        request = {
            "verb": verb.value,
            "directive": directive.model_dump(mode="json") if directive is not None else None,
            "config": self.settings(),
            "reason": reason,
            "operator_requested": asked,
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
            limit_s = (
                min(self.silence_limit_s, STATUS_LIMIT_S) if verb == Verb.STATUS else self.silence_limit_s
            )
            done = await self._follow(child, on_progress, limit_s)
            code = await self._ended(child, verb)
        finally:
            await self._end(child)
            if child.returncode not in EXITS:
                await asyncio.to_thread(_end_leftovers, self.settings())
            self._child = None
        return _outcome(verb, code, done)

    @property
    def busy(self) -> bool:
        """Whether an engine is at work; it is not waited for without limits."""
        return self._child is not None

    async def supersede(self, directive: Directive) -> None:
        """Tell the engine at work what the control plane asks for by now; it may still give up."""
        child = self._child
        if child is None or child.stdin is None:
            return
        with contextlib.suppress(ConnectionError, BrokenPipeError):
            child.stdin.write(json.dumps({"directive": directive.model_dump(mode="json")}).encode() + b"\n")
            await child.stdin.drain()

    async def stop(self) -> None:
        """Ask a running child to end; kill it when it does not. Its journal lets the next start finish."""
        if self._child is not None:
            await self._end(self._child)

    async def _follow(
        self, child: asyncio.subprocess.Process, on_progress: OnProgress, limit_s: float
    ) -> dict[str, Any] | None:
        assert child.stdout is not None  # noqa: S101 - PIPE above
        done: dict[str, Any] | None = None
        while True:
            try:
                async with asyncio.timeout(limit_s):
                    line = await child.stdout.readline()
            except TimeoutError as error:
                raise StateError(
                    Kind.INTERRUPTED,
                    f"The engine said nothing for {limit_s:.0f} s and was stopped.",
                    hint="The next check-in finishes what it began.",
                    retryable=True,
                ) from error
            if not line:
                return done
            try:
                said = json.loads(line)
                if isinstance(said, dict) and ("done" in said or "error" in said):
                    done = said
                else:
                    await on_progress(Progress.model_validate(said))
            except (ValueError, PydanticValidationError):
                logger.warning("the engine said something unreadable: {line}", line=line[:200])

    async def _ended(self, child: asyncio.subprocess.Process, verb: Verb) -> int:
        """The exit code of a child that closed its output, or StateError where it stays although done."""
        try:
            async with asyncio.timeout(self.stop_grace_s):
                return await child.wait()
        except TimeoutError as error:
            raise StateError(
                Kind.INTERRUPTED,
                f"The engine, asked to {verb}, stopped talking and did not end; it was stopped.",
                hint="The next check-in finishes what it began.",
                retryable=True,
            ) from error

    async def _end(self, child: asyncio.subprocess.Process) -> None:
        if child.returncode is not None:
            return
        with contextlib.suppress(ProcessLookupError):
            child.terminate()
        try:
            async with asyncio.timeout(self.stop_grace_s):
                await child.wait()
        except TimeoutError:
            logger.warning("the engine did not end when asked and is killed")
            with contextlib.suppress(ProcessLookupError):
                child.kill()
            try:
                async with asyncio.timeout(self.stop_grace_s):
                    await child.wait()
            except TimeoutError:
                # Stuck in the kernel (a dead disk). It holds the lock for as long as it lives; we go on.
                logger.error("the engine, process {pid}, cannot even be killed", pid=child.pid)


def engine_settings(paths: Paths, config: DeviceConfig) -> dict[str, object]:
    """The part of the device's configuration that the engine works by."""
    access = emergency.in_effect()
    return {
        "root": str(paths.root),
        "runtime": config.runtime,
        "project": config.project,
        "git_url": config.git_url,
        "allowed_signers": str(config.allowed_signers) if config.allowed_signers is not None else None,
        "verify_signatures": config.verify_signatures,
        "min_free_bytes": config.min_free_bytes,
        # What is installed, not what the file says by now: this is shown to people.
        "emergency_access": access.model_dump(mode="json") if access is not None else None,
    }


def _outcome(verb: Verb, code: int, done: dict[str, Any] | None) -> EngineStatus:
    if code == EXIT_LOCKED:
        named = done.get("error") if done is not None else None
        if named is not None:
            # It names the holder.
            raise _named(named)
        raise StateError(
            Kind.LOCKED,
            "Another process is updating this device.",
            hint="Wait for it, or see `fleet-agent status`.",
            retryable=True,
        )
    if done is not None and "error" in done:
        raise _named(done["error"])
    if done is None or code != 0:
        raise StateError(
            Kind.INTERRUPTED,
            f"The engine died while asked to {verb} (exit code {code}).",
            hint="The next check-in finishes what it began; its log says why.",
            retryable=True,
        )
    try:
        return EngineStatus.model_validate(done["done"])
    except PydanticValidationError as error:
        raise StateError(Kind.INTERNAL, "The engine's answer could not be read.") from error


def _end_leftovers(settings: dict[str, object]) -> None:
    """End what a killed engine left running; whoever converges by now has done so already."""
    from fleet_agent.engine.lock import converging
    from fleet_agent.support import orphans as leftovers

    paths = Paths(Path(str(settings["root"])))
    try:
        with (
            converging(paths.lock, "ending what a killed update left"),
            leftovers.none_beside(paths.children),
        ):
            pass
    except StateError as error:
        logger.warning("what the engine may have left running is not ended: {error}", error=error)


def _named(problem: Any) -> FleetError:
    """The engine's own refusal, like a rollback with nothing to roll back to."""
    if not isinstance(problem, dict):
        return StateError(Kind.INTERNAL, str(problem))
    kind = problem.get("kind")
    return StateError(
        Kind(kind) if kind in set(Kind) else Kind.INTERNAL,
        str(problem.get("message") or "The engine refused."),
        hint=str(problem.get("hint") or ""),
        retryable=bool(problem.get("retryable", False)),
    )
