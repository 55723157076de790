"""The loop: gather, decide, act, record, report. All in one task; wakes only move the due time.

This is the process: turns, signals, the watchdog, the configuration. `check_in` has what a turn does,
`schedule` when the next one is due. An update's failures are handled by the engine (a child process), a
request's by its retry policy, and the rest by the next turn, after a random, growing delay.
"""

from __future__ import annotations

import asyncio
import contextlib
import signal
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from typing import Literal

from loguru import logger

from fleet_agent.attempts.history import History
from fleet_agent.attempts.outbox import Outbox
from fleet_agent.config import ConfigFile, DeviceConfig
from fleet_agent.control_plane.connection import Connection
from fleet_agent.control_plane.identity import Identity
from fleet_agent.daemon.check_in import CheckIn, CheckInDependencies
from fleet_agent.daemon.command_journal import CommandJournal
from fleet_agent.daemon.docker_watch import DockerWatch, docker_address
from fleet_agent.daemon.engine_process import ENGINE_COMMAND, EngineProcess, engine_settings
from fleet_agent.daemon.isolation import Isolation
from fleet_agent.daemon.reachability import Reachability
from fleet_agent.daemon.schedule import Outcome, Schedule
from fleet_agent.daemon.status_report import Reporter
from fleet_agent.host import process_memory
from fleet_agent.host.sd_notify import Notifier
from fleet_agent.log import Log
from fleet_agent.paths import Paths
from fleet_agent.support import retry
from fleet_agent.support.clock import Clock

#: How often a waiting loop checks the configuration file and feeds the watchdog.
LOOK_S = 15.0
#: A check-in without progress for this long hangs, unless the engine is at work (which has its own limits).
#: Longer than the longest call with all its tries.
STALL_S = 600.0


@dataclass
class Daemon:
    """One device's agent. `run` is the daemon, `once` a single check-in."""

    paths: Paths
    config_file: ConfigFile
    identity: Identity
    log: Log
    engine_command: Sequence[str] = ENGINE_COMMAND
    uniform: Callable[[float, float], float] = retry.uniform
    notifier: Notifier = field(default_factory=Notifier)
    look_s: float = LOOK_S
    stall_s: float = STALL_S

    def __post_init__(self) -> None:
        self.clock = Clock(self.paths.clock_floor)
        self.schedule = Schedule(self.clock, self.uniform)
        self.engine = EngineProcess(self._engine_settings, lambda: self.clock.heard, self.engine_command)
        self._dependencies = CheckInDependencies(
            config_file=self.config_file,
            clock=self.clock,
            outbox=Outbox(self.paths.outbox),
            history=History(self.paths.history),
            command_journal=CommandJournal(self.paths.command_journal, self.clock),
            engine=self.engine,
            reporter=Reporter(self.paths.root, self.clock, self.log.ring),
            reachability=Reachability(
                Isolation(self.paths.isolated, self.clock), self.schedule, self.clock, self.notifier
            ),
            notifier=self.notifier,
            ring=self.log.ring,
            connection=self._connect(),
        )
        self.turn = CheckIn(self._dependencies, self.schedule)
        self._stop = asyncio.Event()
        self._reload_asked = False

    @property
    def config(self) -> DeviceConfig:
        return self.config_file.current

    @property
    def connection(self) -> Connection:
        return self._dependencies.connection

    @property
    def _stopping(self) -> bool:
        return self._stop.is_set()

    async def run(self) -> None:
        """Run until SIGTERM or SIGINT."""
        with self._signals():
            logger.info(
                "agent for device {device} started; control plane {url}",
                device=self.identity.device_id, url=self.config.api_url,
            )  # fmt: skip
            self.notifier.ready()
            watching = asyncio.create_task(self._watch_docker())
            try:
                while not self._stopping:
                    await self._turn()
                    await self._wait()
            finally:
                self.notifier.stopping()
                watching.cancel()
                await self.engine.stop()
                await self.connection.close()
                logger.info("agent stopped")

    async def _watch_docker(self) -> None:
        if self.config.runtime != "simulated":
            await DockerWatch(self.turn.look_soon, docker_address()).run()

    async def once(self) -> Outcome:
        """Check in once, as the timer and `fleet-agent once` do."""
        try:
            return await self.check_in("once")
        finally:
            await self.engine.stop()
            await self.connection.close()

    async def check_in(self, why: str) -> Outcome:
        return await self.turn.run(why)

    def stop(self) -> None:
        """Stop after the current step; the next start finishes an interrupted update."""
        self._stop.set()
        self.schedule.stir()

    @contextlib.contextmanager
    def _signals(self) -> Iterator[None]:
        loop = asyncio.get_running_loop()
        handled = {
            signal.SIGTERM: self.stop,
            signal.SIGINT: self.stop,
            # systemctl reload: read the configuration now, or right after the current check-in.
            signal.SIGHUP: self._reload,
        }
        for number, handler in handled.items():
            loop.add_signal_handler(number, handler)
        try:
            yield
        finally:
            for number in handled:
                loop.remove_signal_handler(number)

    # One turn

    async def _turn(self) -> None:
        """One check-in, and when the next one is due."""
        task = asyncio.create_task(self.check_in(self.schedule.take()))
        stopped = asyncio.create_task(self._stop.wait())
        given_up = False
        try:
            given_up = not await self._watched(task, stopped)
            if not task.done():
                task.cancel()
                await self.engine.stop()
            outcome = await task
        except asyncio.CancelledError:
            if self._stopping:
                return
            if not given_up:
                raise
            outcome = Outcome.NOT_CONVERGED
        except Exception as error:
            # The one broad `except`: a bug must not end the loop; the next turn tries again.
            logger.opt(exception=error).error("check-in failed: {error}", error=error)
            outcome = Outcome.NOT_CONVERGED
        finally:
            stopped.cancel()
        self.schedule.count(outcome)
        self.schedule.poll_within(self._next_wait(outcome))
        process_memory.trim()

    async def _watched(self, task: asyncio.Task[Outcome], stopped: asyncio.Task[Literal[True]]) -> bool:
        """Wait for the check-in or the stop, feeding the watchdog; False if the check-in hangs.

        If it then cannot be canceled either, feeding stops and systemd kills the process.
        """
        look_s = self.notifier.feed_s(self.look_s)
        self.turn.note_progress()
        while not (task.done() or stopped.done()):
            if not self.engine.busy and self.turn.stalled_s() > self.stall_s:
                logger.error("the check-in made no progress for {n:g} s; giving up", n=self.stall_s)
                return False
            self.notifier.alive()
            await asyncio.wait({task, stopped}, timeout=look_s, return_when=asyncio.FIRST_COMPLETED)
        return True

    def _next_wait(self, outcome: Outcome) -> float:
        reachable = self.turn.reachability
        return self.schedule.wait_s(
            outcome,
            self.turn.interval_s(),
            isolated=reachable.is_isolated,
            pending=reachable.is_pending,
        )

    # Between two turns

    async def _wait(self) -> None:
        """Wait until the next check-in is due, checking the configuration and the subscription meanwhile."""
        look_s = self.notifier.feed_s(self.look_s)
        while not self._stopping:
            await self._follow_configuration()
            self._start_listening()
            if self.schedule.left_s <= 0:
                return
            self.notifier.alive()
            await self.schedule.rest(look_s)

    def _start_listening(self) -> None:
        """Subscribe after the first answer; the segment is not known earlier."""
        directive = self.turn.directive
        if not self.config.wake or directive is None:
            return
        if self.turn.reachability.is_isolated:
            self.connection.rest()
        else:
            self.connection.listen(directive.device.segment)

    # The configuration

    def _reload(self) -> None:
        self._reload_asked = True
        self.schedule.stir()

    async def _follow_configuration(self) -> None:
        """Apply the configuration file if it changed and is valid."""
        asked, self._reload_asked = self._reload_asked, False
        if not asked:
            await self._use_what_changed()
            return
        self.notifier.reloading()
        try:
            await self._use_what_changed()
        finally:
            self.notifier.ready()
        logger.info("the configuration was read again on SIGHUP")

    async def _use_what_changed(self) -> None:
        before, error = self.config, self.config_file.config_error
        if not self.config_file.reload_if_changed():
            if self.config_file.config_error is not error:
                self.schedule.hasten(0.0, "the configuration changed")
            return
        self.log.set_level(self.config.log_level)
        if before.rescue_access != self.config.rescue_access:
            logger.warning("rescue_access changed: run `fleet-agent install` to apply it")
        if not self.connection.serves(self.config):
            await self.connection.close()
            self._dependencies.connection = self._connect()
        self.schedule.hasten(0.0, "the configuration changed")

    def _connect(self) -> Connection:
        return Connection(self.config, self.identity, self.clock, self.schedule.hasten)

    def _engine_settings(self) -> dict[str, object]:
        return engine_settings(self.paths, self.config)
