"""`fleet-agent status` and `history`: from this device alone, without a network or the daemon."""

from __future__ import annotations

import argparse
import asyncio
import json
from collections.abc import Iterator
from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING, Any

from fleet_agent import __version__
from fleet_agent.cli.context import AddCommand, Context, quiet
from fleet_agent.support.words import counted

if TYPE_CHECKING:
    from uuid import UUID

    from fleet_agent.config import DeviceConfig, RescueAccess
    from fleet_agent.daemon.isolation import Mark
    from fleet_agent.model import Attempt, EngineStatus, Release


def add(command: AddCommand) -> None:
    status = command("status", help="show what this device runs, and why")
    status.add_argument("--json", action="store_true", help="print it as JSON")
    status.set_defaults(run=_status)
    history = command("history", help="list the last attempts to update this device")
    history.add_argument("--json", action="store_true", help="print them as JSON, with their evidence")
    history.set_defaults(run=_history)


@dataclass(frozen=True)
class RescueAccessReport:
    """What is installed, and whether that is what the configuration wants."""

    access: RescueAccess | None
    open: bool
    host_key: str | None
    as_configured: bool

    def as_json(self) -> dict[str, Any]:
        access = self.access.model_dump(mode="json") if self.access is not None else None
        return {**asdict(self), "access": access}

    def line(self) -> str:
        line = "off"
        if self.access is not None:
            line = f"{'open' if self.open else 'in safe mode'}: ssh on {self.access}"
            if self.host_key:
                line += f", host key {self.host_key}"
        return line if self.as_configured else f"{line} (differs from device.json; run `fleet-agent install`)"


@dataclass(frozen=True)
class StatusReport:
    engine: EngineStatus
    device_id: UUID | None
    control_plane: str
    converging: str | None
    outbox: int
    isolated: Mark | None
    rescue_access: RescueAccessReport

    @property
    def _is_isolated_above_all(self) -> bool:
        """Worse states of what runs are not hidden by it."""
        from fleet_agent.model import ReportState

        shown_over = (ReportState.HEALTHY, ReportState.ROLLED_BACK)
        return self.isolated is not None and self.engine.state in shown_over

    def as_json(self) -> dict[str, Any]:
        isolated = self.isolated
        return {
            "device_id": str(self.device_id) if self.device_id else None,
            "control_plane": self.control_plane,
            "agent_version": __version__,
            "converging": self.converging,
            "outbox": self.outbox,
            "isolated_since": isolated.since.isoformat() if isolated is not None else None,
            **self.engine.model_dump(mode="json"),
            "state": self._state,
            "reason": self._reason,
            "rescue_access": self.rescue_access.as_json(),
        }

    def lines(self) -> Iterator[str]:
        engine, isolated = self.engine, self.isolated
        yield f"device      {self.device_id or 'not enrolled'}  (control plane {self.control_plane})"
        yield f"state       {self._state} ({engine.phase}){': ' + self._reason if self._reason else ''}"
        yield f"runs        {_release(engine.current)}, before it {_release(engine.previous)}"
        if isolated is not None:
            yield f"isolated    since {isolated.since.isoformat()}: {isolated.error_kind}: {isolated.error}"
        if engine.error:
            yield f"last error  {engine.error_kind}: {engine.error}"
        if self.converging:
            yield f"converging  {self.converging}"
        for service in engine.services:
            yield f"service     {service.service}: {service.state}, {service.health or 'no check'}"
        yield f"rescue      {self.rescue_access.line()}"
        if self.outbox:
            yield f"outbox      {counted(self.outbox, 'attempt')} not yet uploaded"

    @property
    def _state(self) -> str:
        return "isolated" if self._is_isolated_above_all else self.engine.state.value

    @property
    def _reason(self) -> str:
        if self.isolated is not None and self._is_isolated_above_all:
            return self.isolated.error
        return self.engine.reason


def _status(context: Context, options: argparse.Namespace) -> int:
    report = _report(context)
    if options.json:
        print(json.dumps(report.as_json(), indent=2))
    else:
        print(*report.lines(), sep="\n")
    return 0


def _report(context: Context) -> StatusReport:
    from fleet_agent import config
    from fleet_agent.attempts.outbox import Outbox
    from fleet_agent.control_plane.identity import Identity
    from fleet_agent.daemon import isolation
    from fleet_agent.daemon.engine_process import Verb
    from fleet_agent.engine.lock import holder

    device = config.load(context.config)
    quiet()
    identity = Identity.load(context.paths)
    return StatusReport(
        engine=asyncio.run(context.engine(device).run(Verb.STATUS)),
        device_id=identity.device_id if identity is not None else None,
        control_plane=device.api_url,
        converging=holder(context.paths.lock),
        outbox=len(Outbox(context.paths.outbox).pending()),
        isolated=isolation.read(context.paths.isolated),
        rescue_access=_rescue_access(context, device),
    )


def _rescue_access(context: Context, device: DeviceConfig) -> RescueAccessReport:
    from fleet_agent.host import rescue_ssh

    access = rescue_ssh.in_effect()
    return RescueAccessReport(
        access=access,
        open=access is not None and context.paths.in_safe_mode.exists(),
        host_key=rescue_ssh.fingerprint(context.paths) if access is not None else None,
        as_configured=access == device.rescue_access,
    )


def _release(release: Release | None) -> str:
    return f"{release.version} ({release.commit_sha[:10]})" if release is not None else "nothing"


def _history(context: Context, options: argparse.Namespace) -> int:
    """Newest last; from this device alone, like `status`."""
    from fleet_agent.attempts.history import History
    from fleet_agent.attempts.outbox import Outbox

    quiet()
    uploaded, waiting = History(context.paths.history).attempts(), Outbox(context.paths.outbox).pending()
    here = {attempt.id: (attempt, True) for attempt in uploaded} | {
        attempt.id: (attempt, False) for attempt in waiting
    }
    found = sorted(here.values(), key=lambda one: one[0].started_at.timestamp())
    if options.json:
        rows = [{**attempt.model_dump(mode="json"), "uploaded": sent} for attempt, sent in found]
        print(json.dumps(rows, indent=2))
        return 0
    for attempt, sent in found:
        print(_line(attempt) + ("" if sent else ", not yet uploaded"))
    if not found:
        print("No attempts yet.")
    return 0


def _line(attempt: Attempt) -> str:
    """One attempt in one line."""
    seconds = (attempt.finished_at - attempt.started_at).total_seconds()
    before = (attempt.from_commit or "nothing")[:10]
    line = (
        f"{attempt.started_at:%Y-%m-%d %H:%M} UTC  {before} to {attempt.to_commit[:10]}  "
        f"{attempt.outcome.value} in {seconds:.0f} s, {counted(attempt.bytes_fetched, 'byte')}"
    )
    return f"{line}, {attempt.error_kind}: {attempt.error}" if attempt.error_kind else line
