"""Orders of operators (`device_commands`): what each does on this device, and what is answered.

Each is carried out at most once (`order_book`). `update_now` is carried out by the check-in itself and
answered when the update ended.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from typing import Protocol

from loguru import logger

from fleet_agent.daemon import engine_queries as errands
from fleet_agent.daemon.command_journal import Answer
from fleet_agent.daemon.engine_process import Verb
from fleet_agent.errors import FleetError, Kind
from fleet_agent.log import Ring, redact
from fleet_agent.model import Command, CommandKind, EngineStatus, ReportState

Order = Command

_UNWELL = (ReportState.DEGRADED, ReportState.SAFE_MODE)
REASON_LIMIT = 200
LOG_LINES_DEFAULT = 50
LOG_LINES_LIMIT = 200
LOG_LINE_LIMIT = 500


class Work(Protocol):
    def __call__(self, verb: Verb, *, reason: str = "") -> Awaitable[EngineStatus]: ...


@dataclass(frozen=True)
class Hands:
    """What orders are carried out with."""

    work: Work
    engine_settings: dict[str, object]
    ring: Ring
    status: EngineStatus | None


async def carry_out(order: Order, hands: Hands) -> tuple[Answer, bool]:
    """Carry out one order; returns its answer, and whether it changed what runs here."""
    try:
        return await _HANDLERS[order.kind](order, hands)
    except FleetError as error:
        logger.warning("{order} failed: {error}", order=order.kind.value, error=error)
        return failed(error), False


def failed(error: FleetError) -> Answer:
    return Answer(
        state="failed",
        result={"kind": error.kind.value, "message": redact(error.message), "hint": redact(error.hint)},
    )


def outcome_of_update(status: EngineStatus | None, trouble: FleetError | None, converged: bool) -> Answer:
    """The answer to `update_now`."""
    if trouble is not None:
        return failed(trouble)
    if status is None:
        return failed(FleetError(Kind.INTERRUPTED, "The update was interrupted."))
    release = status.current.version if status.current is not None else None
    if converged:
        return Answer(state="succeeded", result={"release": release, "state": status.state.value})
    return Answer(
        state="failed",
        result={
            "kind": status.error_kind or Kind.INTERNAL.value,
            "message": redact(status.error or status.reason or "The update did not arrive."),
            "release": release,
        },
    )


async def _roll_back(_order: Order, hands: Hands) -> tuple[Answer, bool]:
    status = await hands.work(Verb.ROLLBACK, reason="An operator asked for it.")
    return _reached(status, status.state not in _UNWELL), True


async def _restart(_order: Order, hands: Hands) -> tuple[Answer, bool]:
    status = await hands.work(Verb.RESTART)
    return _reached(status, status.state not in _UNWELL), True


def _reached(status: EngineStatus, reached: bool) -> Answer:
    """The answer to an order that moves the device, from where it is afterwards."""
    release = status.current.version if status.current is not None else None
    if not reached:
        return Answer(
            state="failed",
            result={
                "kind": status.error_kind or Kind.UNHEALTHY.value,
                "message": redact(status.error or status.reason),
                "release": release,
            },
        )
    return Answer(state="succeeded", result={"release": release, "state": status.state.value})


async def _tail_logs(order: Order, hands: Hands) -> tuple[Answer, bool]:
    asked = order.args.get("lines", LOG_LINES_DEFAULT)
    lines = min(asked, LOG_LINES_LIMIT) if isinstance(asked, int) and asked > 0 else LOG_LINES_DEFAULT
    service = order.args.get("service")
    found = await errands.run("tail_logs", {**hands.engine_settings, "lines": lines})
    wanted = [
        {**line, "text": redact(line["text"])[:LOG_LINE_LIMIT]}
        for line in found["lines"]
        if service is None or line["service"] == service
    ]
    return Answer(state="succeeded", result={"lines": wanted[-lines:], "agent": hands.ring.entries()}), False


async def _check_drift(_order: Order, hands: Hands) -> tuple[Answer, bool]:
    found = await errands.run("check_drift", hands.engine_settings)
    return Answer(
        state="succeeded", result={"drifted": bool(found["changed"]), "changed": found["changed"]}
    ), False


async def _enter_safe_mode(order: Order, hands: Hands) -> tuple[Answer, bool]:
    reason = str(order.args.get("reason") or "An operator asked for it.")[:REASON_LIMIT]
    status = await hands.work(Verb.ENTER_SAFE_MODE, reason=reason)
    return _reached(status, status.state == ReportState.SAFE_MODE), True


async def _leave_safe_mode(_order: Order, hands: Hands) -> tuple[Answer, bool]:
    status = await hands.work(Verb.LEAVE_SAFE_MODE)
    return _reached(status, status.state != ReportState.SAFE_MODE), True


#: To an order of a kind that a newer control plane knows and this agent does not.
NOT_SUPPORTED = Answer(
    state="failed",
    result={
        "kind": Kind.NOT_SUPPORTED.value,
        "message": "This agent does not know how to do that.",
        "hint": "Update the agent.",
    },
)


_HANDLERS: dict[CommandKind, Callable[[Order, Hands], Awaitable[tuple[Answer, bool]]]] = {
    CommandKind.ROLLBACK: _roll_back,
    CommandKind.RESTART: _restart,
    CommandKind.TAIL_LOGS: _tail_logs,
    CommandKind.CHECK_DRIFT: _check_drift,
    CommandKind.ENTER_SAFE_MODE: _enter_safe_mode,
    CommandKind.LEAVE_SAFE_MODE: _leave_safe_mode,
}
