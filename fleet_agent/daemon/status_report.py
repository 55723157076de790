"""`device_status`: written when something changed, or when the slow heartbeat is due."""

from __future__ import annotations

import asyncio
import contextlib
import json
from collections.abc import AsyncIterator
from datetime import timedelta
from pathlib import Path
from typing import Any

from loguru import logger

from fleet_agent import __version__
from fleet_agent.control_plane.client import ControlPlane
from fleet_agent.daemon import decide
from fleet_agent.daemon.engine_process import OnProgress
from fleet_agent.daemon.settings import Settings
from fleet_agent.errors import ControlPlaneError, FleetError, Kind
from fleet_agent.host.machine import Machine
from fleet_agent.host.sd_notify import Notifier
from fleet_agent.log import Ring, redact
from fleet_agent.model import EngineStatus, Progress, Release, ReportState
from fleet_agent.support.clock import Clock

#: The table takes 4,000 characters; a sentence needs fewer.
TEXT_LIMIT = 1000
CONTAINER_LIMIT = 100
#: Within one phase, progress is reported no more often than this.
PROGRESS_EVERY_S = 15.0
#: And over all phases this many at once, then one in this time: a device that tries without end, or is
#: commanded to, must not use up what it may write in an hour. What it rests in is always reported.
PROGRESS_BURST, PROGRESS_REFILL_S = 30, 60.0

#: What makes a report worth sending; the rest (resources, clocks, log) is sent along.
_TELLING = (
    "state", "phase", "reason", "current_release", "target_release", "containers", "error_kind", "error",
    "agent_version", "settings",
)  # fmt: skip


#: Columns that a control plane may lack, which is older than this agent.
_NEWER = ("settings", "boot_id", "attempt_id")
#: PostgREST's own, and PostgreSQL's.
_NO_SUCH_COLUMN = ("PGRST204", "42703")


class Reporter:
    """Knows what was reported last, and reports what changed."""

    def __init__(self, root: Path, clock: Clock, ring: Ring) -> None:
        self._machine = Machine(root if root.exists() else root.parent)
        self._clock = clock
        self._ring = ring
        self._told: str | None = None
        self._told_at: float | None = None
        self._target: Release | None = None
        #: Why nothing happens, from the gates; shown while the engine itself has no reason.
        self.waiting = ""
        #: What is in effect here; None before the control plane answered.
        self.settings: Settings | None = None
        #: Columns that are left out, because the control plane turned out to be older.
        self._left_out: tuple[str, ...] = ()
        self._progress_left, self._refilled_at = float(PROGRESS_BURST), clock.monotonic()
        #: What is prefetched. On a healthy device it is the only news.
        self.ahead: Release | None = None

    def working_towards(self, target: Release | None) -> None:
        self._target = target

    def is_due(self, engine: EngineStatus | None, problem: FleetError | None, interval_s: float) -> bool:
        changed = _fingerprint(self._resting(engine, problem)) != self._told
        since = None if self._told_at is None else self._clock.monotonic() - self._told_at
        return decide.report_is_due(changed=changed, since_last_s=since, interval_s=interval_s)

    async def report(
        self, plane: ControlPlane, engine: EngineStatus | None, problem: FleetError | None
    ) -> None:
        """Report the state at rest. A report that fails is sent again at the next check-in."""
        await self._send(plane, self._resting(engine, problem))

    async def report_isolated(
        self, plane: ControlPlane, engine: EngineStatus | None, problem: FleetError | None, told: str
    ) -> None:
        """Report that this device was isolated until now; `report` then sends its present state."""
        row = self._resting(engine, problem)
        await self._send(plane, {**row, "state": ReportState.ISOLATED.value, "reason": _text(told)})

    @contextlib.asynccontextmanager
    async def while_working(
        self,
        plane: ControlPlane,
        engine: EngineStatus | None,
        problem: FleetError | None,
        notifier: Notifier,
    ) -> AsyncIterator[OnProgress]:
        """Report the engine's phases in a task of its own: a slow control plane does not slow an update."""
        fresh: asyncio.Event = asyncio.Event()
        latest: Progress | None = None

        async def on_progress(progress: Progress) -> None:
            nonlocal latest
            notifier.alive()
            notifier.status(f"{progress.phase} {progress.detail}".strip())
            if latest is None or progress.phase != latest.phase:
                # The engine's own log line says the same at INFO.
                logger.debug("{phase} {detail}", phase=progress.phase, detail=progress.detail)
            latest = progress
            fresh.set()

        async def tell() -> None:
            told_phase = ""
            while True:
                await fresh.wait()
                fresh.clear()
                if latest is None:
                    continue
                if latest.phase == told_phase and self._since_told() < PROGRESS_EVERY_S:
                    continue
                if not self._may_tell_progress():
                    continue
                told_phase = latest.phase
                await self._send(plane, self._working(engine, latest, problem))

        telling = asyncio.create_task(tell())
        try:
            yield on_progress
        finally:
            telling.cancel()
            with contextlib.suppress(asyncio.CancelledError):
                await telling

    def _may_tell_progress(self) -> bool:
        """Take one of the reports of progress that are left."""
        now = self._clock.monotonic()
        more = (now - self._refilled_at) / PROGRESS_REFILL_S
        self._progress_left, self._refilled_at = min(PROGRESS_BURST, self._progress_left + more), now
        if self._progress_left < 1:
            return False
        self._progress_left -= 1
        return True

    def _since_told(self) -> float:
        return float("inf") if self._told_at is None else self._clock.monotonic() - self._told_at

    async def _send(self, plane: ControlPlane, row: dict[str, Any]) -> None:
        fingerprint = _fingerprint(row)
        if fingerprint != self._told or self._told_at is None:
            row = {**row, "agent_version": __version__}
        try:
            await self._upsert(plane, {**row, **self._circumstances()})
        except FleetError as error:
            self._told = None
            logger.info("the report could not be sent: {error}", error=error)
            return
        self._told, self._told_at = fingerprint, self._clock.monotonic()

    async def _upsert(self, plane: ControlPlane, row: dict[str, Any]) -> None:
        row = {key: row[key] for key in row if key not in self._left_out}
        try:
            await plane.report(row)
        except ControlPlaneError as error:
            if not self._left_out and error.evidence.get("code") in _NO_SUCH_COLUMN:
                self._left_out = _NEWER
                logger.info("the control plane is older than this agent: {e}", e=error)
                await self._upsert(plane, row)
                return
            # The control plane no longer has a release (a foreign key): the rest of the report still counts.
            if error.kind != Kind.REFUSED or error.evidence.get("code") != "23503":
                raise
            await plane.report({**row, "current_release": None, "target_release": None})

    def _resting(self, engine: EngineStatus | None, problem: FleetError | None) -> dict[str, Any]:
        row = self._common(engine, problem)
        if engine is None:
            # The engine does not start: all that is known is the error.
            return {
                **row,
                "state": ReportState.DEGRADED.value,
                "reason": row["error"],
                "target_release": None,
                "attempt_id": None,
            }
        row["state"] = engine.state.value
        row["phase"] = engine.phase
        news = self.waiting if self.ahead is not None and engine.state is ReportState.HEALTHY else ""
        row["reason"] = _text(news or engine.reason or self.waiting)
        target = engine.target or self.ahead
        row["target_release"] = str(target.id) if target is not None else None
        row["attempt_id"] = None
        return row

    def _working(
        self, engine: EngineStatus | None, progress: Progress, problem: FleetError | None
    ) -> dict[str, Any]:
        row = self._common(engine, problem)
        target = progress.target or self._target
        row["state"] = ReportState.UPDATING.value
        row["phase"] = progress.phase
        row["reason"] = _text(progress.detail)
        if progress.prefetching and engine is not None and target is not None:
            # What runs is not touched: the device keeps its state.
            row["state"] = engine.state.value
            row["reason"] = _text(f"prefetching {target.version} {progress.detail}".strip())
        row["target_release"] = str(target.id) if target is not None else None
        row["attempt_id"] = str(progress.attempt_id) if progress.attempt_id is not None else None
        return row

    def _common(self, engine: EngineStatus | None, problem: FleetError | None) -> dict[str, Any]:
        error_kind = engine.error_kind if engine is not None else None
        error = engine.error if engine is not None else None
        if error_kind is None and problem is not None:
            error_kind, error = problem.kind.value, str(problem)
        row: dict[str, Any] = {
            "error_kind": error_kind,
            "error": _text(error) if error else None,
        }
        if self.settings is not None:
            row["settings"] = {
                "poll_interval_s": self.settings.poll_interval_s,
                "labels": dict(self.settings.labels),
                "pinned": list(self.settings.pinned),
            }
        if engine is not None:
            row["current_release"] = str(engine.current.id) if engine.current is not None else None
            row["containers"] = [
                service.model_dump(mode="json", exclude_none=True)
                for service in engine.services[:CONTAINER_LIMIT]
            ]
        return row

    def _circumstances(self) -> dict[str, Any]:
        uptime = self._machine.uptime_s()
        local = self._clock.local()
        booted = None if uptime is None else self._clock.now() - timedelta(seconds=uptime)
        boot = self._machine.boot_id()
        return {
            "boot_id": str(boot) if boot is not None else None,
            "device_time": local.isoformat(),
            "booted_at": booted.isoformat(timespec="seconds") if booted is not None else None,
            "resources": self._machine.resources(),
            "log_tail": self._ring.entries(),
        }


def _fingerprint(row: dict[str, Any]) -> str:
    telling = {key: row.get(key) for key in _TELLING if key != "agent_version"}
    settings = telling["settings"]
    if settings is not None and "poll_interval_s" not in settings["pinned"]:
        # The control plane's own value, which it shortens at times; it needs no report about that.
        telling["settings"] = {**settings, "poll_interval_s": None}
    return json.dumps(telling, sort_keys=True)


def _text(text: str) -> str:
    return redact(text)[:TEXT_LIMIT]
