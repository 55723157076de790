"""One check-in: repair what runs, upload, ask, carry out commands, decide, act, report."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator
from dataclasses import dataclass

from loguru import logger

from fleet_agent.attempts.history import History
from fleet_agent.attempts.outbox import Outbox
from fleet_agent.config import ConfigFile
from fleet_agent.control_plane.client import ControlPlane
from fleet_agent.control_plane.connection import Connection
from fleet_agent.control_plane.error_mapping import refuses_this_device
from fleet_agent.daemon import decide, settings
from fleet_agent.daemon.attempt_upload import AttemptUpload
from fleet_agent.daemon.command_journal import CommandJournal
from fleet_agent.daemon.commands import CommandContext, CommandRunner, outcome_of_update
from fleet_agent.daemon.engine_process import EngineProcess, Verb
from fleet_agent.daemon.reachability import Reachability
from fleet_agent.daemon.schedule import POLL, Outcome, Schedule
from fleet_agent.daemon.status_report import Reporter
from fleet_agent.errors import ControlPlaneError, FleetError, Kind, StateError, clock_off
from fleet_agent.host.sd_notify import Notifier
from fleet_agent.log import Ring
from fleet_agent.model import Action, Directive, EngineStatus
from fleet_agent.support.clock import FAR_OFF, Clock

#: The containers are checked for a report at most this often: it costs a child process.
LOOK_AT_CONTAINERS_S = 300.0
#: How often the watcher next to a running update checks for a wake.
WAKE_LOOK_S = 15.0


@dataclass
class CheckInDependencies:
    """What a check-in works with. `connection` is replaced if the control plane's address changes."""

    config_file: ConfigFile
    clock: Clock
    outbox: Outbox
    history: History
    command_journal: CommandJournal
    engine: EngineProcess
    reporter: Reporter
    reachability: Reachability
    notifier: Notifier
    ring: Ring
    connection: Connection


class CheckIn:
    """What is known from one check-in to the next, and how one is done."""

    def __init__(self, dependencies: CheckInDependencies, schedule: Schedule) -> None:
        self._dependencies = dependencies
        self._schedule = schedule
        self._clock = dependencies.clock
        self._engine = dependencies.engine
        self._notifier = dependencies.notifier
        self._upload = AttemptUpload(
            dependencies.outbox, dependencies.history, dependencies.clock, self.note_progress
        )
        self.reporter = dependencies.reporter
        self.reachability = dependencies.reachability
        self._commands = CommandRunner(
            journal=dependencies.command_journal,
            plane=lambda: self._plane,
            context=CommandContext(self._work, self._engine, dependencies.ring),
            note_progress=self.note_progress,
        )
        self.engine_status: EngineStatus | None = None
        self.directive: Directive | None = None
        self._progress_at = self._clock.monotonic()
        self._trouble: FleetError | None = None
        self._woken_while_working = False
        self._looked_at_containers = float("-inf")
        self._look_due = False

    @property
    def _plane(self) -> ControlPlane:
        return self._dependencies.connection.plane

    def settings(self) -> settings.Settings:
        return settings.in_effect(self._dependencies.config_file.current, self.directive)

    def interval_s(self) -> float:
        return self.settings().poll_interval_s

    def note_progress(self) -> None:
        """Note that a step has ended, so the check-in does not hang."""
        self._progress_at = self._clock.monotonic()

    def stalled_s(self) -> float:
        """Seconds since a step has ended."""
        return self._clock.monotonic() - self._progress_at

    def look_soon(self) -> None:
        """Look at the containers at once, whenever that was done last."""
        self._look_due = True
        # As a poll: a device that is cut off need not ask the control plane for this.
        self._schedule.hasten(0.0, POLL)

    async def run(self, why: str) -> Outcome:
        logger.debug("check-in: {why}", why=why)
        self._trouble = await self._look_after_what_runs()
        if why == POLL and not self.reachability.may_poll:
            return Outcome.UNREACHABLE
        try:
            await self._upload.upload(self._plane)
            directive = self.directive = await self._plane.desired_state()
        except ControlPlaneError as error:
            return self.reachability.not_answered(
                error,
                isolated_after_s=self._dependencies.config_file.current.isolated_after_s,
                interval_s=self.interval_s(),
            )
        except FleetError as error:
            self._trouble = self._trouble or error
            return self._not_done(error)
        if (told := self.reachability.answered()) is not None:
            await self.reporter.report_isolated(self._plane, self.engine_status, self._problem(), told)
        self.note_progress()
        updates = await self._commands.carry_out_all(directive)
        if updates is None:
            # A command changed what runs here, so the directive is out of date.
            self._schedule.hasten(0.0, "a command was carried out")
            return await self._report_back(Outcome.CONVERGED)
        begun = await self._commands.begin(updates)
        outcome = await self._act(_without_commands(directive), operator_requested=bool(begun))
        for command in begun:
            done = outcome == Outcome.CONVERGED
            result = outcome_of_update(self.engine_status, self._trouble, done)
            await self._commands.answer(command.id, result)
        return await self._report_back(outcome)

    # What runs here

    async def _look_after_what_runs(self) -> FleetError | None:
        """Finish what was interrupted, start what has stopped, read the status; with or without a network.

        Returns the error if that failed: the device then checks in and reports, and changes nothing.
        """
        fresh = self._clock.monotonic() - self._looked_at_containers < LOOK_AT_CONTAINERS_S
        status, look_due = self.engine_status, self._look_due or self._tries_again()
        if status is not None and not decide.is_unfinished(status) and fresh and not look_due:
            return None
        self._look_due = False
        try:
            await self._work(Verb.RECOVER)
        except FleetError as error:
            return error
        return None

    def _tries_again(self) -> bool:
        """Whether a device in safe mode is due to try what was well before."""
        at = self.engine_status.next_try_at if self.engine_status is not None else None
        return at is not None and self._clock.now() >= at

    async def _act(self, directive: Directive, *, operator_requested: bool) -> Outcome:
        if self._trouble is not None:
            return self._not_done(self._trouble)
        if self.engine_status is None:
            return Outcome.NOT_CONVERGED
        step = decide.next_step(directive, self.engine_status, operator_requested=operator_requested)
        logger.debug("decided: {step}", step=step)
        try:
            match step:
                case decide.Stay(why):
                    self._note_what_waits(directive, step)
                    self._notifier.status(_in_short(self.engine_status, why))
                    return Outcome.CONVERGED
                case decide.Finish():
                    await self._work(Verb.RECOVER)
                case decide.Converge(target, why, operator_requested):
                    logger.info("converging {why}", why=why)
                    async with self._passing_on_what_is_newer(target):
                        await self._work(
                            Verb.CONVERGE, directive=target, operator_requested=operator_requested
                        )
                    directive = self.directive or directive
                    self._note_what_waits(directive, decide.next_step(directive, self.engine_status))
        except FleetError as error:
            self._trouble = error
            return self._not_done(error)
        finally:
            self.note_progress()
            with contextlib.suppress(ControlPlaneError):
                await self._upload.upload(self._plane)
        return self._arrived(directive)

    def _note_what_waits(self, directive: Directive, step: decide.Step) -> None:
        """For the report: what keeps the device where it is, and what is prefetched meanwhile."""
        self.reporter.waiting = step.why if directive.action in (Action.RUN, Action.HOLD) else ""
        self.reporter.ahead = directive.prefetch if directive.action == Action.RUN else None

    @contextlib.asynccontextmanager
    async def _passing_on_what_is_newer(self, directive: Directive) -> AsyncIterator[None]:
        """On a wake during an update: ask again, and tell the engine if the answer differs.

        The loop asks once more right after the update in any case: there may be commands, too.
        """

        async def watch() -> None:
            told = directive
            while True:
                while self._schedule.left_s > 0:
                    await self._schedule.rest(WAKE_LOOK_S)
                self._schedule.take()
                self._woken_while_working = True
                try:
                    newer = self.directive = await self._plane.desired_state()
                except FleetError as error:
                    if not (isinstance(error, ControlPlaneError) and refuses_this_device(error)):
                        logger.info(
                            "a wake during the update could not be followed yet: {error}", error=error
                        )
                        asked_s = getattr(error, "retry_after_s", None) or 0.0
                        self._schedule.hasten(WAKE_LOOK_S, "a wake during the update", after_s=asked_s)
                        continue
                    newer = _nothing_more(directive)
                # Compared with what the engine knows: the directive that it began with may return.
                if _work_of(newer) != _work_of(told):
                    logger.info("the control plane now asks for something else")
                    await self._engine.supersede(_without_commands(newer))
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
        engine = self.engine_status
        wanted = directive.release.commit_sha if directive.release is not None else None
        current = engine.current.commit_sha if engine is not None and engine.current is not None else None
        if engine is None or (directive.action in (Action.UPDATE, Action.ROLLBACK) and wanted != current):
            return Outcome.NOT_CONVERGED
        return Outcome.CONVERGED

    async def _work(
        self,
        verb: Verb,
        *,
        directive: Directive | None = None,
        reason: str = "",
        operator_requested: bool = False,
    ) -> EngineStatus:
        """Run the engine, telling the control plane about its phases. Raises StateError."""
        plane, before = self._plane, self.engine_status
        self.reporter.working_towards(directive.release if directive is not None else None)
        try:
            async with self.reporter.while_working(
                plane, self.engine_status, self._problem(), self._notifier
            ) as on_progress:
                self.engine_status = await self._engine.run(
                    verb,
                    directive=directive,
                    reason=reason,
                    operator_requested=operator_requested,
                    on_progress=on_progress,
                )
        except FleetError:
            # The journal has what the lost answer would have said.
            self.engine_status = await self._status()
            self._looked_at_containers = float("-inf")
            raise
        finally:
            self.note_progress()
        self._looked_at_containers = self._clock.monotonic()
        if (at := self.engine_status.next_try_at) is not None:
            wait_s = (at - self._clock.now()).total_seconds()
            # As a poll: a device that is cut off need not ask the control plane for this.
            self._schedule.hasten(0.0, POLL, after_s=max(1.0, wait_s))
        outcome = _in_short(self.engine_status, self.engine_status.reason)
        # So far systemd was told the last phase.
        self._notifier.status(outcome)
        level = "DEBUG" if verb == Verb.RECOVER and self.engine_status == before else "INFO"
        logger.log(level, "{verb}: {outcome}", verb=verb.value, outcome=outcome)
        return self.engine_status

    async def _status(self) -> EngineStatus | None:
        try:
            return await self._engine.run(Verb.STATUS)
        except FleetError as error:
            logger.warning("cannot read the engine's status: {error}", error=error)
            return None

    # What came of it

    async def _report_back(self, outcome: Outcome) -> Outcome:
        self.reporter.settings = self.settings()
        if self.reporter.is_due(self.engine_status, self._problem(), self.interval_s()):
            await self.reporter.report(self._plane, self.engine_status, self._problem())
        return outcome

    def _problem(self) -> FleetError | None:
        """What is wrong apart from the engine's own last error."""
        return (
            self._trouble
            or self._dependencies.config_file.config_error
            or self._not_ready()
            or self._clock_problem()
        )

    def _clock_problem(self) -> FleetError | None:
        skew = self._clock.skew()
        return clock_off(skew) if skew is not None and abs(skew) >= FAR_OFF else None

    def _not_ready(self) -> FleetError | None:
        """Why the wanted release could not be prefetched."""
        found = decide.prefetched(self.directive, self.engine_status) if self.directive is not None else None
        if found is None or found.error_kind is None:
            return None
        kind = Kind(found.error_kind) if found.error_kind in set(Kind) else Kind.INTERNAL
        return StateError(kind, f"{found.release.version} could not be prefetched: {found.error}")

    def _not_done(self, error: FleetError) -> Outcome:
        logger.warning("{kind}: {error}", kind=error.kind.value, error=error)
        return Outcome.LOCKED if error.kind == Kind.LOCKED else Outcome.NOT_CONVERGED


def _without_commands(directive: Directive) -> Directive:
    """For the engine: `operator_requested` tells it about `update_now`, and only once."""
    return directive.model_copy(update={"commands": ()})


def _nothing_more(directive: Directive) -> Directive:
    """For a device that was suspended or retired meanwhile: nothing that it has not touched yet."""
    return directive.model_copy(update={"action": Action.HOLD, "release": None, "prefetch": None})


def _work_of(directive: Directive) -> tuple[object, ...]:
    """The parts of a directive that the engine uses."""
    return directive.action, directive.release, directive.prefetch


def _in_short(engine: EngineStatus, why: str) -> str:
    version = engine.current.version if engine.current is not None else "no release"
    return f"{engine.state.value}, on {version}" + (f" ({why})" if why else "")
