"""The loop: gather, decide, act, record, report. All in one task; wakes only move the due time.

Failures are handled where they belong: an update's by the engine (a child process), a request's by its retry
policy, and what is left by the next turn of this loop, after a spread, growing wait.
"""

from __future__ import annotations

import asyncio
import contextlib
import ctypes
import gc
import signal
from collections.abc import AsyncIterator, Callable, Iterator, Sequence
from dataclasses import dataclass, field
from enum import IntEnum
from typing import TYPE_CHECKING, Literal
from uuid import UUID

from loguru import logger

from fleet_agent import decide, orders, retry
from fleet_agent.config import ConfigFile, DeviceConfig
from fleet_agent.control.client import HISTORY_BATCH, ControlPlane
from fleet_agent.control.clock import Clock
from fleet_agent.control.failures import is_an_answer, refuses_this_device
from fleet_agent.control.reporter import Reporter
from fleet_agent.errors import ControlPlaneError, FleetError, Kind, StateError
from fleet_agent.identity import Identity
from fleet_agent.isolation import Isolation, Mark
from fleet_agent.model import Action, Attempt, CommandKind, Directive, EngineStatus
from fleet_agent.notify import Notifier
from fleet_agent.outbox import Outbox
from fleet_agent.paths import Paths
from fleet_agent.worker import ENGINE_COMMAND, Verb, Worker, engine_settings

if TYPE_CHECKING:
    from fleet_agent.control.wake import Subscription, Wake
    from fleet_agent.log import Log

#: How often the loop looks up while it waits: at the configuration file, and for the watchdog.
LOOK_S = 15.0
#: A check-in that gets nowhere for this long hangs, unless the engine is at work (which has its own limits).
#: Longer than the longest call with all its tries.
STALL_S = 600.0
#: A row of history that the control plane refuses for itself (not the device) is offered again after this.
REFUSED_ROW_S = 3600.0
#: A device that an operator must accept asks this often: no wake can reach it yet.
PENDING_POLL_S = 60.0
#: After joining its topics a device looks for what it missed, spread over this.
SUBSCRIBED_SPREAD_S = 2.0
#: Why the loop turns when nothing else made it.
POLL = "poll"
#: The containers are looked at for a report no more often than this: it costs a child process.
LOOK_AT_CONTAINERS_S = 300.0


class Outcome(IntEnum):
    """What one check-in came to; the value is the exit code of `fleet-agent once`."""

    CONVERGED = 0
    NOT_CONVERGED = 1
    UNREACHABLE = 3
    REFUSED = 4
    LOCKED = 75


@dataclass
class Due:
    """When the next check-in is due, on the monotonic clock, and why; only ever moved closer."""

    at: float
    why: str

    def no_later_than(self, at: float, why: str) -> bool:
        if at >= self.at:
            return False
        self.at, self.why = at, why
        return True


@dataclass
class Network:
    """What is rebuilt when the address or the key of the control plane changes."""

    plane: ControlPlane
    subscription: Subscription | None = None
    task: asyncio.Task[None] | None = None

    async def close(self) -> None:
        if self.task is not None:
            self.task.cancel()
            with contextlib.suppress(asyncio.CancelledError):
                await self.task
        await self.plane.close()


@dataclass
class Daemon:
    """One device's agent. `run` is the daemon, `once` a single convergence."""

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
        self.clock = Clock(self.paths.state / "clock_floor")
        self.outbox = Outbox(self.paths.outbox)
        self.worker = Worker(self._engine_settings, command=self.engine_command)
        self.network = Network(self._connect())
        self.reporter = Reporter(self.paths.root, self.clock, self.log.ring)
        self.isolation = Isolation(self.paths.isolated, self.clock)
        #: While isolated, the control plane is left alone until then (monotonic).
        self._ask_again_at = float("-inf")
        self.engine: EngineStatus | None = None
        self.directive: Directive | None = None
        self._due = Due(float("-inf"), "start")
        self._stir = asyncio.Event()
        self._stop = asyncio.Event()
        self._reload_asked = False
        self._got_further_at = self.clock.monotonic()
        self._trouble: FleetError | None = None
        self._woken_while_working = False
        self._failures = 0
        self._refusal: Kind | None = None
        self._refused_rows: dict[UUID, float] = {}
        self._looked_at_containers = float("-inf")
        #: Answers that did not get through yet: the order was carried out and must not be a second time.
        self._answers: dict[UUID, orders.Answer] = {}

    @property
    def config(self) -> DeviceConfig:
        return self.config_file.current

    @property
    def _stopping(self) -> bool:
        return self._stop.is_set()

    # The daemon

    async def run(self) -> None:
        """Run until SIGTERM or SIGINT."""
        with self._signals():
            logger.info(
                "agent of {device} starts, control plane {url}",
                device=self.identity.device_id, url=self.config.api_url,
            )  # fmt: skip
            self.notifier.ready()
            try:
                while not self._stopping:
                    await self._turn()
                    if not self._stopping:
                        await self._wait()
            finally:
                self.notifier.stopping()
                await self.worker.stop()
                await self.network.close()
                logger.info("agent stops")

    async def once(self) -> Outcome:
        """Converge a single time: what the timer and a hand-run `fleet-agent once` do."""
        try:
            return await self.check_in("once")
        finally:
            await self.worker.stop()
            await self.network.close()

    def stop(self) -> None:
        """End after the present step; a running update is interrupted and finished by the next start."""
        self._stop.set()
        self._stir.set()

    def _reload(self) -> None:
        self._reload_asked = True
        self._stir.set()

    async def _turn(self) -> None:
        """One check-in, and when the next one is due."""
        why, self._due = self._due.why, Due(float("inf"), POLL)
        task = asyncio.create_task(self.check_in(why))
        stopped = asyncio.create_task(self._stop.wait())
        given_up = False
        try:
            given_up = not await self._watched(task, stopped)
            if not task.done():
                task.cancel()
                await self.worker.stop()
            outcome = await task
        except asyncio.CancelledError:
            if self._stopping:
                return
            if not given_up:
                raise
            outcome = Outcome.NOT_CONVERGED
        except Exception as error:
            # The one broad net: a bug must not end the loop, the next turn tries again.
            logger.opt(exception=error).error("check-in failed: {error}", error=error)
            outcome = Outcome.NOT_CONVERGED
        finally:
            stopped.cancel()
        self._failures = 0 if outcome == Outcome.CONVERGED else self._failures + 1
        wait = self._next_wait(outcome)
        self._due.no_later_than(self.clock.monotonic() + wait, POLL)
        _give_back_memory()

    async def _watched(self, task: asyncio.Task[Outcome], stopped: asyncio.Task[Literal[True]]) -> bool:
        """Wait for the check-in or the stop, feeding the watchdog; False once the check-in hangs.

        Should it then not even let itself be cancelled, nobody feeds any more and systemd ends the process.
        """
        look_s = self.notifier.feed_s(self.look_s)
        self._get_further()
        while not (task.done() or stopped.done()):
            if not self.worker.busy and self.clock.monotonic() - self._got_further_at > self.stall_s:
                logger.error("the check-in got nowhere for {n:g} s and is given up", n=self.stall_s)
                return False
            self.notifier.alive()
            await asyncio.wait({task, stopped}, timeout=look_s, return_when=asyncio.FIRST_COMPLETED)
        return True

    def _get_further(self) -> None:
        """Note that the check-in does not hang: a step of it has ended."""
        self._got_further_at = self.clock.monotonic()

    def _next_wait(self, outcome: Outcome) -> float:
        interval = self._interval_s()
        if outcome == Outcome.CONVERGED:
            return decide.poll_wait_s(interval, self.uniform)
        if outcome == Outcome.REFUSED:
            if self._refusal == Kind.DEVICE_PENDING:
                interval = min(interval, PENDING_POLL_S)
            return decide.poll_wait_s(interval, self.uniform)
        if self.isolation.is_on:
            # What runs is looked after as often as ever; the control plane is not asked each time.
            return decide.poll_wait_s(interval, self.uniform)
        return decide.failure_wait_s(self._failures, interval, self.uniform)

    def _interval_s(self) -> float:
        asked = self.directive.poll_after_s if self.directive is not None else None
        return decide.poll_interval_s(self.config.poll_interval_s, asked)

    async def _wait(self) -> None:
        """Until the next check-in is due; looks up now and then at the configuration and the subscription."""
        look_s = self.notifier.feed_s(self.look_s)
        while not self._stopping:
            await self._follow_configuration()
            self._start_listening()
            left = self._due.at - self.clock.monotonic()
            if left <= 0:
                return
            self.notifier.alive()
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(min(left, look_s)):
                    await self._stir.wait()
            self._stir.clear()

    async def _follow_configuration(self) -> None:
        """Use the configuration as the file has it by now, if that can be used."""
        asked, self._reload_asked = self._reload_asked, False
        if not asked:
            await self._use_what_changed()
            return
        self.notifier.reloading()
        try:
            await self._use_what_changed()
        finally:
            self.notifier.ready()
        logger.info("the configuration was looked at, as asked by SIGHUP")

    async def _use_what_changed(self) -> None:
        before, problem = self.config, self.config_file.problem
        if not self.config_file.reload_if_changed():
            if self.config_file.problem is not problem:
                self._hasten(0.0, "the configuration changed")
            return
        self.log.set_level(self.config.log_level)
        if before.emergency_access != self.config.emergency_access:
            logger.warning("emergency access changes once `fleet-agent install` was run, and not before")
        if (before.api_url, before.publishable_key, before.wake) != (
            self.config.api_url, self.config.publishable_key, self.config.wake,
        ):  # fmt: skip
            await self.network.close()
            self.network = Network(self._connect())
        self._hasten(0.0, "the configuration changed")

    @contextlib.contextmanager
    def _signals(self) -> Iterator[None]:
        loop = asyncio.get_running_loop()
        handled = {
            signal.SIGTERM: self.stop,
            signal.SIGINT: self.stop,
            # systemctl reload: look at the configuration now, or right after the present check-in.
            signal.SIGHUP: self._reload,
        }
        for number, handler in handled.items():
            loop.add_signal_handler(number, handler)
        try:
            yield
        finally:
            for number in handled:
                loop.remove_signal_handler(number)

    # Waking

    def _start_listening(self) -> None:
        """Subscribe after the first answer: before it, the segment is unknown."""
        network = self.network
        if not self.config.wake or self.directive is None:
            return
        if self.isolation.is_on:
            joined = network.subscription is not None and network.subscription.joined
            if network.task is not None and not joined:
                network.task.cancel()
            return
        if network.subscription is None:
            from fleet_agent.control.wake import Subscription

            network.subscription = Subscription(
                url=self.config.api_url,
                key=self.config.publishable_key,
                device_id=str(self.identity.device_id),
                tokens=network.plane.tokens,
                clock=self.clock,
                tls=network.plane.tls,
                on_wake=self._on_wake,
                on_subscribed=lambda: self._hasten(SUBSCRIBED_SPREAD_S, "subscribed"),
            )
        network.subscription.move_to(self.directive.device.segment)
        if network.task is None or network.task.done():
            if network.task is not None and not network.task.cancelled():
                logger.error("the subscription died and is started again: {e}", e=network.task.exception())
            network.task = asyncio.create_task(network.subscription.run())

    def _on_wake(self, wake: Wake) -> None:
        logger.info("woken: {reason} (spread {spread:g} s)", reason=wake.reason, spread=wake.spread_s)
        self._hasten(wake.spread_s, f"woken: {wake.reason}")

    def _hasten(self, spread_s: float, why: str) -> None:
        """Check in within `spread_s` from now. During an update it is kept and honoured right after."""
        at = self.clock.monotonic() + decide.wake_wait_s(spread_s, self.uniform)
        if self._due.no_later_than(at, why):
            self._stir.set()

    # One check-in

    async def check_in(self, why: str) -> Outcome:
        logger.debug("check-in: {why}", why=why)
        self._trouble = await self._look_after_what_runs()
        if self.isolation.is_on and why == POLL and self.clock.monotonic() < self._ask_again_at:
            return Outcome.UNREACHABLE
        try:
            await self._ship()
            directive = self.directive = await self.network.plane.desired_state()
        except ControlPlaneError as error:
            return self._not_answered(error)
        except FleetError as error:
            self._trouble = self._trouble or error
            return self._not_done(error)
        await self._heard()
        self._get_further()
        asked = await self._carry_out(directive)
        if asked is None:
            # An order changed what runs here; what was asked before it is no longer the question.
            self._hasten(0.0, "an order was carried out")
            return await self._report_back(Outcome.CONVERGED)
        outcome = await self._act(directive, asked=bool(asked))
        for command in asked:
            done = outcome == Outcome.CONVERGED
            await self._answer(command.id, orders.outcome_of_update(self.engine, self._trouble, done))
        return await self._report_back(outcome)

    async def _look_after_what_runs(self) -> FleetError | None:
        """Finish what was interrupted, start what has stopped, see how it is; now and then, network or not.

        Returns what stood in the way: the device then checks in and reports, and changes nothing.
        """
        fresh = self.clock.monotonic() - self._looked_at_containers < LOOK_AT_CONTAINERS_S
        if self.engine is not None and not decide.is_unfinished(self.engine) and fresh:
            return None
        try:
            await self._work(Verb.RECOVER)
        except FleetError as error:
            return error
        return None

    async def _act(self, directive: Directive, *, asked: bool) -> Outcome:
        if self._trouble is not None:
            return self._not_done(self._trouble)
        if self.engine is None:
            return Outcome.NOT_CONVERGED
        step = decide.next_step(directive, self.engine, asked=asked)
        logger.debug("decided: {step}", step=step)
        try:
            match step:
                case decide.Stay(why):
                    self.reporter.waiting = why if directive.action in (Action.RUN, Action.HOLD) else ""
                    self.notifier.status(_in_short(self.engine, why))
                    return Outcome.CONVERGED
                case decide.Finish():
                    await self._work(Verb.RECOVER)
                case decide.Converge(target, why, asked):
                    logger.info("converging {why}", why=why)
                    async with self._passing_on_what_is_newer(target):
                        await self._work(Verb.CONVERGE, directive=target, asked=asked)
                    directive = self.directive or directive
        except FleetError as error:
            self._trouble = error
            return self._not_done(error)
        finally:
            self._get_further()
            with contextlib.suppress(ControlPlaneError, StateError):
                await self._ship()
        return self._arrived(directive)

    @contextlib.asynccontextmanager
    async def _passing_on_what_is_newer(self, directive: Directive) -> AsyncIterator[None]:
        """A wake during an update: ask again, and tell the engine if the answer differs.

        Whatever comes of that, the loop asks once more right after the update: there may be orders, too.
        """

        async def watch() -> None:
            while True:
                while (left := self._due.at - self.clock.monotonic()) > 0:
                    with contextlib.suppress(TimeoutError):
                        async with asyncio.timeout(min(left, LOOK_S)):
                            await self._stir.wait()
                    self._stir.clear()
                self._due = Due(float("inf"), POLL)
                self._woken_while_working = True
                try:
                    newer = await self.network.plane.desired_state()
                except FleetError as error:
                    logger.info("a wake during the update waits: {error}", error=error)
                    return
                if newer.release != directive.release or newer.action != directive.action:
                    logger.info("the control plane asks for something else by now")
                    await self.worker.supersede(newer)
                self.directive = newer

        watching = asyncio.create_task(watch())
        try:
            yield
        finally:
            watching.cancel()
            with contextlib.suppress(asyncio.CancelledError):
                await watching
            if self._woken_while_working:
                self._woken_while_working = False
                self._hasten(0.0, "woken during the update")

    def _arrived(self, directive: Directive) -> Outcome:
        engine = self.engine
        wanted = directive.release.commit_sha if directive.release is not None else None
        current = engine.current.commit_sha if engine is not None and engine.current is not None else None
        if engine is None or (directive.action in (Action.UPDATE, Action.ROLLBACK) and wanted != current):
            return Outcome.NOT_CONVERGED
        return Outcome.CONVERGED

    async def _work(
        self, verb: Verb, *, directive: Directive | None = None, reason: str = "", asked: bool = False
    ) -> EngineStatus:
        """Run the engine, telling the control plane about its phases. Raises StateError."""
        plane, before = self.network.plane, self.engine
        self.reporter.working_towards(directive.release if directive is not None else None)
        try:
            async with self.reporter.while_working(plane, self.engine, self._problem(), self.notifier) as say:
                self.engine = await self.worker.run(
                    verb, directive=directive, reason=reason, asked=asked, on_progress=say
                )
        except FleetError:
            # The journal knows more than we do now.
            self.engine = await self._status()
            self._looked_at_containers = float("-inf")
            raise
        finally:
            self._get_further()
        self._looked_at_containers = self.clock.monotonic()
        outcome = _in_short(self.engine, self.engine.reason)
        # The last phase is what systemd was told so far.
        self.notifier.status(outcome)
        level = "DEBUG" if verb == Verb.RECOVER and self.engine == before else "INFO"
        logger.log(level, "{verb}: {outcome}", verb=verb.value, outcome=outcome)
        return self.engine

    async def _status(self) -> EngineStatus | None:
        try:
            return await self.worker.run(Verb.STATUS)
        except FleetError as error:
            logger.warning("the engine does not say how it is: {error}", error=error)
            return None

    # Orders of operators

    async def _carry_out(self, directive: Directive) -> list[orders.Order] | None:
        """Carry out what was ordered; returns the `update_now` orders, answered after the update.

        None when an order changed what runs here.
        """
        updates = []
        changed = False
        for unknown in self.network.plane.unknown_orders:
            await self._answer(unknown, orders.NOT_SUPPORTED)
        for command in directive.commands:
            if command.id in self._answers:
                await self._answer(command.id, self._answers[command.id])
            elif command.kind == CommandKind.UPDATE_NOW:
                updates.append(command)
            else:
                logger.info("carrying out {kind}", kind=command.kind.value)
                answer, acted = await orders.carry_out(command, self._hands())
                changed = changed or acted
                await self._answer(command.id, answer)
        for known in set(self._answers) - {command.id for command in directive.commands}:
            del self._answers[known]
        return None if changed else updates

    def _hands(self) -> orders.Hands:
        return orders.Hands(
            work=self._work, engine_settings=self._engine_settings(), ring=self.log.ring, status=self.engine
        )

    async def _answer(self, command_id: UUID, answer: orders.Answer) -> None:
        self._answers[command_id] = answer
        try:
            await self.network.plane.answer(command_id, answer.state, answer.result)
            self._get_further()
        except ControlPlaneError as error:
            logger.warning("the answer to an order did not get through yet: {error}", error=error)

    # Recording and reporting

    async def _ship(self) -> None:
        """Send the outbox. Raises ControlPlaneError only where nothing else would get through either."""
        now = self.clock.monotonic()
        pending = [
            attempt
            for attempt in self.outbox.pending()
            if now - self._refused_rows.get(attempt.id, float("-inf")) > REFUSED_ROW_S
        ]
        for start in range(0, len(pending), HISTORY_BATCH):
            batch = pending[start : start + HISTORY_BATCH]
            try:
                await self.network.plane.record(batch)
            except ControlPlaneError as error:
                if error.kind != Kind.REFUSED:
                    raise
                await self._ship_one_by_one(batch)
                continue
            self._get_further()
            for attempt in batch:
                self.outbox.discard(attempt.id)
            logger.info("{n} attempts recorded", n=len(batch))

    async def _ship_one_by_one(self, batch: Sequence[Attempt]) -> None:
        """One bad row must not hold up the others; it stays in the outbox."""
        for attempt in batch:
            self._get_further()
            try:
                await self.network.plane.record([attempt])
                self.outbox.discard(attempt.id)
            except ControlPlaneError as error:
                if error.kind != Kind.REFUSED:
                    raise
                self._refused_rows[attempt.id] = self.clock.monotonic()
                logger.error("the attempt {id} is not accepted: {error}", id=attempt.id, error=error)

    async def _report_back(self, outcome: Outcome) -> Outcome:
        if self.reporter.is_due(self.engine, self._problem(), self._interval_s()):
            await self.reporter.report(self.network.plane, self.engine, self._problem())
        return outcome

    def _problem(self) -> FleetError | None:
        """What is wrong beside the engine's own last error."""
        return self._trouble or self.config_file.problem

    async def _heard(self) -> None:
        if (ended := self.isolation.answered()) is not None:
            told = self._returned(ended)
            await self.reporter.report_isolated(self.network.plane, self.engine, self._problem(), told)
        if self._refusal is not None:
            logger.info("the control plane serves this device again")
            self._refusal = None

    def _returned(self, ended: Mark) -> str:
        """Where this device has been, said once: in the journal, and in `log_tail`."""
        told = f"Without the control plane since {ended.since:%Y-%m-%d %H:%M} UTC ({ended.error_kind})."
        logger.warning("no longer isolated. {told}", told=told)
        return told

    def _went_unanswered(self, error: ControlPlaneError) -> None:
        """Note it: after long enough the device is isolated, and asks seldom and spread."""
        if self.isolation.unanswered(error, self.config.isolated_after_s):
            logger.warning(
                "isolated: no answer from the control plane for {n} s; what runs is kept and looked after",
                n=self.config.isolated_after_s,
            )
        if self.isolation.is_on:
            wait = decide.isolated_wait_s(self._interval_s(), self.uniform)
            self._ask_again_at = self.clock.monotonic() + wait
            self.notifier.status(f"isolated: {error}")

    def _not_answered(self, error: ControlPlaneError) -> Outcome:
        if is_an_answer(error) and (ended := self.isolation.answered()) is not None:
            self._returned(ended)
        if refuses_this_device(error):
            if self._refusal != error.kind:
                logger.warning("{kind}: {error}", kind=error.kind.value, error=error)
                self._refusal = error.kind
            self.notifier.status(str(error))
            return Outcome.REFUSED
        # One warning a stretch of trouble; what follows is in the journal at INFO.
        level = "WARNING" if self._failures == 0 else "INFO"
        logger.log(level, "{kind}: {error}", kind=error.kind.value, error=error)
        self.notifier.status(str(error))
        if not is_an_answer(error):
            self._went_unanswered(error)
        return Outcome.REFUSED if error.kind == Kind.UNAUTHORISED else Outcome.UNREACHABLE

    def _not_done(self, error: FleetError) -> Outcome:
        logger.warning("{kind}: {error}", kind=error.kind.value, error=error)
        return Outcome.LOCKED if error.kind == Kind.LOCKED else Outcome.NOT_CONVERGED

    # Parts

    def _connect(self) -> ControlPlane:
        return ControlPlane(self.config, self.identity, self.clock)

    def _engine_settings(self) -> dict[str, object]:
        return engine_settings(self.paths, self.config)


def _in_short(engine: EngineStatus, why: str) -> str:
    version = engine.current.version if engine.current is not None else "no release"
    return f"{engine.state.value}, on {version}" + (f" ({why})" if why else "")


def settle_memory() -> None:
    """Called once everything is imported: one malloc arena, and nothing to collect in what stays for ever."""
    with contextlib.suppress(OSError, AttributeError):
        arena_max, keep_free = -8, -1
        library = ctypes.CDLL(None)
        library.mallopt(arena_max, 1)
        library.mallopt(keep_free, 64 * 1024)
    gc.collect()
    gc.freeze()
    _give_back_memory()


def _give_back_memory() -> None:
    """An hour-long idle process should not sit on the peak of its last minute."""
    gc.collect()
    with contextlib.suppress(OSError, AttributeError):
        ctypes.CDLL(None).malloc_trim(0)
