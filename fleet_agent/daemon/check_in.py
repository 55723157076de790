"""One check-in: look after what runs, ship, ask, carry out orders, decide, act, report."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator, Sequence
from dataclasses import dataclass
from uuid import UUID

from loguru import logger

from fleet_agent.attempts.history import History
from fleet_agent.attempts.outbox import Outbox
from fleet_agent.config import ConfigFile
from fleet_agent.control_plane.client import ControlPlane
from fleet_agent.control_plane.connection import Network
from fleet_agent.control_plane.error_mapping import is_an_answer, refuses_this_device
from fleet_agent.daemon import commands as orders
from fleet_agent.daemon import decide
from fleet_agent.daemon.attempt_upload import Shipping
from fleet_agent.daemon.command_journal import Answer, OrderBook
from fleet_agent.daemon.engine_process import Verb, Worker
from fleet_agent.daemon.isolation import Isolation, Mark
from fleet_agent.daemon.schedule import POLL, Outcome, Schedule
from fleet_agent.daemon.status_report import Reporter
from fleet_agent.errors import ControlPlaneError, FleetError, Kind, StateError
from fleet_agent.host.sd_notify import Notifier
from fleet_agent.log import Ring
from fleet_agent.model import Action, CommandKind, Directive, EngineStatus
from fleet_agent.support.clock import Clock

#: The containers are looked at for a report no more often than this: it costs a child process.
LOOK_AT_CONTAINERS_S = 300.0
#: How often a watcher beside a running update looks up.
LOOK_S = 15.0


@dataclass
class Parts:
    """What a check-in works with. `network` is another one after the control plane's address changed."""

    config_file: ConfigFile
    clock: Clock
    outbox: Outbox
    history: History
    order_book: OrderBook
    worker: Worker
    reporter: Reporter
    isolation: Isolation
    notifier: Notifier
    ring: Ring
    network: Network


class CheckIn:
    """What is known from one check-in to the next, and how one is done."""

    def __init__(self, parts: Parts, schedule: Schedule) -> None:
        self._parts = parts
        self._schedule = schedule
        self._clock = parts.clock
        self._worker = parts.worker
        self._notifier = parts.notifier
        self._book = parts.order_book
        self._shipping = Shipping(parts.outbox, parts.history, parts.clock, self.get_further)
        self.reporter = parts.reporter
        self.isolation = parts.isolation
        self.engine: EngineStatus | None = None
        self.directive: Directive | None = None
        #: While isolated, or where it asked for time, the control plane is left alone until then (monotonic).
        self.ask_again_at = float("-inf")
        self._got_further_at = self._clock.monotonic()
        self._trouble: FleetError | None = None
        self._woken_while_working = False
        self._refusal: Kind | None = None
        self._looked_at_containers = float("-inf")

    @property
    def _plane(self) -> ControlPlane:
        return self._parts.network.plane

    @property
    def is_pending(self) -> bool:
        """Whether an operator must accept this device first."""
        return self._refusal == Kind.DEVICE_PENDING

    def settings(self) -> decide.Settings:
        return decide.settings(self._parts.config_file.current, self.directive)

    def interval_s(self) -> float:
        return self.settings().poll_interval_s

    def get_further(self) -> None:
        """Note that the check-in does not hang: a step of it has ended."""
        self._got_further_at = self._clock.monotonic()

    def stalled_s(self) -> float:
        """How long no step of it has ended."""
        return self._clock.monotonic() - self._got_further_at

    async def run(self, why: str) -> Outcome:
        logger.debug("check-in: {why}", why=why)
        self._trouble = await self._look_after_what_runs()
        if why == POLL and self._clock.monotonic() < self.ask_again_at:
            return Outcome.UNREACHABLE
        try:
            await self._shipping.ship(self._plane)
            directive = self.directive = await self._plane.desired_state()
        except ControlPlaneError as error:
            return self._not_answered(error)
        except FleetError as error:
            self._trouble = self._trouble or error
            return self._not_done(error)
        await self._heard()
        self.get_further()
        asked = await self._carry_out(directive)
        if asked is None:
            # An order changed what runs here; what was asked before it is no longer the question.
            self._schedule.hasten(0.0, "an order was carried out")
            return await self._report_back(Outcome.CONVERGED)
        begun = await self._begin(asked)
        outcome = await self._act(_without_orders(directive), asked=bool(begun))
        for order in begun:
            done = outcome == Outcome.CONVERGED
            await self._answer(order.id, orders.outcome_of_update(self.engine, self._trouble, done))
        return await self._report_back(outcome)

    # What runs here

    async def _look_after_what_runs(self) -> FleetError | None:
        """Finish what was interrupted, start what has stopped, see how it is; now and then, network or not.

        Returns what stood in the way: the device then checks in and reports, and changes nothing.
        """
        fresh = self._clock.monotonic() - self._looked_at_containers < LOOK_AT_CONTAINERS_S
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
                    self._note_what_waits(directive, step)
                    self._notifier.status(_in_short(self.engine, why))
                    return Outcome.CONVERGED
                case decide.Finish():
                    await self._work(Verb.RECOVER)
                case decide.Converge(target, why, asked):
                    logger.info("converging {why}", why=why)
                    async with self._passing_on_what_is_newer(target):
                        await self._work(Verb.CONVERGE, directive=target, asked=asked)
                    directive = self.directive or directive
                    self._note_what_waits(directive, decide.next_step(directive, self.engine))
        except FleetError as error:
            self._trouble = error
            return self._not_done(error)
        finally:
            self.get_further()
            with contextlib.suppress(ControlPlaneError):
                await self._shipping.ship(self._plane)
        return self._arrived(directive)

    def _note_what_waits(self, directive: Directive, step: decide.Step) -> None:
        """For the report: what keeps the device where it is, and what is brought here meanwhile."""
        self.reporter.waiting = step.why if directive.action in (Action.RUN, Action.HOLD) else ""
        self.reporter.ahead = directive.prefetch if directive.action == Action.RUN else None

    @contextlib.asynccontextmanager
    async def _passing_on_what_is_newer(self, directive: Directive) -> AsyncIterator[None]:
        """A wake during an update: ask again, and tell the engine if the answer differs.

        Whatever comes of that, the loop asks once more right after the update: there may be orders, too.
        """

        async def watch() -> None:
            told = directive
            while True:
                while self._schedule.left_s > 0:
                    await self._schedule.rest(LOOK_S)
                self._schedule.take()
                self._woken_while_working = True
                try:
                    newer = self.directive = await self._plane.desired_state()
                except FleetError as error:
                    if not (isinstance(error, ControlPlaneError) and refuses_this_device(error)):
                        logger.info("a wake during the update waits: {error}", error=error)
                        asked_s = getattr(error, "retry_after_s", None) or 0.0
                        self._schedule.hasten(LOOK_S, "a wake during the update", after_s=asked_s)
                        continue
                    newer = _nothing_more(directive)
                # Compared with what the engine knows, not with what it began with: the first wish may return.
                if _wish(newer) != _wish(told):
                    logger.info("the control plane asks for something else by now")
                    await self._worker.supersede(_without_orders(newer))
                    told = newer

        watching = asyncio.create_task(watch())
        try:
            yield
        finally:
            watching.cancel()
            with contextlib.suppress(asyncio.CancelledError):
                await watching
            if self._woken_while_working:
                self._woken_while_working = False
                self._schedule.hasten(0.0, "woken during the update")

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
        plane, before = self._plane, self.engine
        self.reporter.working_towards(directive.release if directive is not None else None)
        try:
            async with self.reporter.while_working(
                plane, self.engine, self._problem(), self._notifier
            ) as say:
                self.engine = await self._worker.run(
                    verb, directive=directive, reason=reason, asked=asked, on_progress=say
                )
        except FleetError:
            # The journal knows more than we do now.
            self.engine = await self._status()
            self._looked_at_containers = float("-inf")
            raise
        finally:
            self.get_further()
        self._looked_at_containers = self._clock.monotonic()
        outcome = _in_short(self.engine, self.engine.reason)
        # The last phase is what systemd was told so far.
        self._notifier.status(outcome)
        level = "DEBUG" if verb == Verb.RECOVER and self.engine == before else "INFO"
        logger.log(level, "{verb}: {outcome}", verb=verb.value, outcome=outcome)
        return self.engine

    async def _status(self) -> EngineStatus | None:
        try:
            return await self._worker.run(Verb.STATUS)
        except FleetError as error:
            logger.warning("the engine does not say how it is: {error}", error=error)
            return None

    # Orders of operators

    async def _carry_out(self, directive: Directive) -> list[orders.Order] | None:
        """Carry out what was ordered but `update_now`; returns those that are new, for `_begin`.

        None when an order changed what runs here.
        """
        updates = []
        changed = False
        for unknown in self._plane.unknown_orders:
            await self._answer(unknown, orders.NOT_SUPPORTED)
        for order in directive.commands:
            if self._book.knows(order.id):
                await self._answer(order.id, self._book.answer(order.id))
            elif order.kind == CommandKind.UPDATE_NOW:
                updates.append(order)
            elif await self._begin([order]):
                logger.info("carrying out {kind}", kind=order.kind.value)
                answer, acted = await orders.carry_out(order, self._hands())
                changed = changed or acted
                await self._answer(order.id, answer)
        self._book.keep_only(order.id for order in directive.commands)
        return None if changed else updates

    async def _begin(self, asked: Sequence[orders.Order]) -> list[orders.Order]:
        """Those of `asked` that are written down as begun: what cannot be remembered could be done twice."""
        begun = []
        for order in asked:
            try:
                self._book.begin(order)
                begun.append(order)
            except StateError as error:
                await self._answer(order.id, orders.failed(error))
        return begun

    def _hands(self) -> orders.Hands:
        return orders.Hands(
            work=self._work,
            engine_settings=self._worker.settings(),
            ring=self._parts.ring,
            status=self.engine,
        )

    async def _answer(self, command_id: UUID, answer: Answer) -> None:
        self._book.note(command_id, answer)
        try:
            await self._plane.answer(command_id, answer.state, answer.result)
            self.get_further()
        except ControlPlaneError as error:
            logger.warning("the answer to an order did not get through yet: {error}", error=error)

    # What came of it

    async def _report_back(self, outcome: Outcome) -> Outcome:
        self.reporter.settings = self.settings()
        if self.reporter.is_due(self.engine, self._problem(), self.interval_s()):
            await self.reporter.report(self._plane, self.engine, self._problem())
        return outcome

    def _problem(self) -> FleetError | None:
        """What is wrong beside the engine's own last error."""
        return self._trouble or self._parts.config_file.problem or self._not_ready()

    def _not_ready(self) -> FleetError | None:
        """Why the release that is wanted ahead of its update could not be made ready."""
        found = decide.prefetched(self.directive, self.engine) if self.directive is not None else None
        if found is None or found.error_kind is None:
            return None
        kind = Kind(found.error_kind) if found.error_kind in set(Kind) else Kind.INTERNAL
        return StateError(kind, f"{found.release.version} could not be prefetched: {found.error}")

    async def _heard(self) -> None:
        self.ask_again_at = float("-inf")
        if (ended := self.isolation.answered()) is not None:
            told = self._returned(ended)
            await self.reporter.report_isolated(self._plane, self.engine, self._problem(), told)
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
        after_s = self._parts.config_file.current.isolated_after_s
        if self.isolation.unanswered(error, after_s):
            logger.warning(
                "isolated: no answer from the control plane for {n} s; what runs is kept and looked after",
                n=after_s,
            )
        if self.isolation.is_on:
            wait = decide.isolated_wait_s(self.interval_s(), self._schedule.uniform)
            self.ask_again_at = max(self.ask_again_at, self._clock.monotonic() + wait)
            self._notifier.status(f"isolated: {error}")

    def _asked_to_wait_until(self, error: ControlPlaneError) -> float:
        """Retry-After outlasts the check-in; what else answers (a captive portal) has no say in that."""
        ours = error.kind in (Kind.RATE_LIMITED, Kind.SERVER_ERROR)
        if not ours or error.retry_after_s is None:
            return float("-inf")
        return self._clock.monotonic() + error.retry_after_s

    def _not_answered(self, error: ControlPlaneError) -> Outcome:
        if is_an_answer(error) and (ended := self.isolation.answered()) is not None:
            self._returned(ended)
        if refuses_this_device(error):
            if self._refusal != error.kind:
                logger.warning("{kind}: {error}", kind=error.kind.value, error=error)
                self._refusal = error.kind
            self._notifier.status(str(error))
            return Outcome.REFUSED
        # One warning a stretch of trouble; what follows is in the journal at INFO.
        level = "WARNING" if self._schedule.failures == 0 else "INFO"
        logger.log(level, "{kind}: {error}", kind=error.kind.value, error=error)
        self._notifier.status(str(error))
        self.ask_again_at = self._asked_to_wait_until(error)
        if not is_an_answer(error):
            self._went_unanswered(error)
        return Outcome.REFUSED if error.kind == Kind.UNAUTHORIZED else Outcome.UNREACHABLE

    def _not_done(self, error: FleetError) -> Outcome:
        logger.warning("{kind}: {error}", kind=error.kind.value, error=error)
        return Outcome.LOCKED if error.kind == Kind.LOCKED else Outcome.NOT_CONVERGED


def _without_orders(directive: Directive) -> Directive:
    """For the engine: it is told in so many words what an operator asked for, and asked once."""
    return directive.model_copy(update={"commands": ()})


def _nothing_more(directive: Directive) -> Directive:
    """What a device that is suspended or retired meanwhile is asked for: nothing it has not touched yet."""
    return directive.model_copy(update={"action": Action.HOLD, "release": None, "prefetch": None})


def _wish(directive: Directive) -> tuple[object, ...]:
    """What of a directive the engine works by."""
    return directive.action, directive.release, directive.prefetch


def _in_short(engine: EngineStatus, why: str) -> str:
    version = engine.current.version if engine.current is not None else "no release"
    return f"{engine.state.value}, on {version}" + (f" ({why})" if why else "")
