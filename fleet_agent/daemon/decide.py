"""What the device should do next: pure functions of what was seen. No clock, no files, no network."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from fleet_agent.engine.phases import RESTING
from fleet_agent.model import Action, Directive, EngineStatus, PrefetchStatus, ReportState

#: Polls vary by this share of the interval, both ways, so that devices that booted together drift apart.
POLL_JITTER = 0.2
#: After a failed check-in: doubled each time, randomized, never longer than the poll interval.
FAILURE_BASE_S = 15.0
#: An isolated device asks after `U(0, this or the poll interval)`, so that a fleet that was cut off together
#: returns spread out.
ISOLATED_POLL_S = 1800.0
#: A report older than this many poll intervals is renewed even without a change: at every second poll. The
#: dashboard shows a device as offline after three intervals without a report.
HEARTBEAT_INTERVALS = 1.5


@dataclass(frozen=True)
class Stay:
    """Leave everything as it is."""

    why: str


@dataclass(frozen=True)
class Finish:
    """An attempt was interrupted: the engine finishes it first."""

    why: str


@dataclass(frozen=True)
class Converge:
    """Start the engine with this directive. `operator_requested`: it may retry what failed."""

    directive: Directive
    why: str
    operator_requested: bool = False


Step = Stay | Finish | Converge


def next_step(directive: Directive, engine: EngineStatus, *, operator_requested: bool = False) -> Step:
    """Return the one thing this device should do about `directive`.

    The engine itself remembers which releases are bad, and when to retry after a temporary problem.
    """
    if is_unfinished(engine):
        return Finish(f"an attempt was interrupted while {engine.phase}")
    # The whole release: if only its row or version differs, the engine takes that over and touches nothing.
    at_target = engine.current == directive.release and engine.role == directive.device.role
    match directive.action:
        case Action.RUN | Action.HOLD:
            return _ahead(directive, engine, operator_requested=operator_requested)
        case Action.SAFE_MODE if engine.state == ReportState.SAFE_MODE and engine.next_try_at is None:
            return Stay("in safe mode, as requested by the control plane")
        case Action.SAFE_MODE:
            why = "into safe mode, as requested by the control plane"
        case Action.UPDATE | Action.ROLLBACK if directive.release is None:
            return Stay(f"the control plane requested {directive.action} without a release")
        case Action.UPDATE | Action.ROLLBACK if at_target and engine.state != ReportState.SAFE_MODE:
            return Stay(f"already on {directive.release.version}")
        case Action.UPDATE:
            why = f"to {directive.release.version}"
        case Action.ROLLBACK:
            why = f"back to {directive.release.version}"
    return Converge(directive, why, operator_requested)


def _ahead(directive: Directive, engine: EngineStatus, *, operator_requested: bool) -> Step:
    """Nothing to apply; possibly a release to prefetch that only waits for the maintenance window."""
    wanted = directive.prefetch
    if wanted is None or directive.action == Action.HOLD:
        return Stay(_waiting(directive) or "nothing to do")
    if engine.current == wanted and engine.role == directive.device.role:
        return Stay(f"already on {wanted.version}")
    found = prefetched(directive, engine)
    if found is not None and found.ready:
        return Stay(f"{wanted.version} is ready; {_when_open('applied', directive)}")
    if found is not None and not found.again and not operator_requested:
        return Stay(f"{wanted.version} was not prefetched; {_when_open('fetched', directive)}")
    return Converge(directive, f"prefetching {wanted.version}", operator_requested)


def prefetched(directive: Directive, engine: EngineStatus | None) -> PrefetchStatus | None:
    """The result of prefetching the release that `directive` names; None if it was not tried."""
    found = engine.prefetch if engine is not None else None
    if found is None or directive.action != Action.RUN:
        return None
    same = found.release == directive.prefetch and found.role == directive.device.role
    return found if same else None


def is_unfinished(engine: EngineStatus) -> bool:
    """Whether the engine's journal has an attempt that is not finished."""
    return engine.phase not in RESTING


def _when_open(done: str, directive: Directive) -> str:
    waiting = _waiting(directive)
    return f"it will be {done} when the window opens" + (f" ({waiting.rstrip('.')})" if waiting else "")


def _waiting(directive: Directive) -> str:
    """The first gate that keeps the device where it is, as a sentence."""
    for gate in directive.gates:
        if gate.verdict != "pass":
            return f"{gate.gate}: {gate.detail}" if gate.detail else gate.gate
    return ""


def poll_wait_s(interval_s: float, uniform: Callable[[float, float], float]) -> float:
    """Seconds to the next poll."""
    return interval_s * uniform(1 - POLL_JITTER, 1 + POLL_JITTER)


def failure_wait_s(failures: int, interval_s: float, uniform: Callable[[float, float], float]) -> float:
    """Seconds to the next try after `failures` failures in a row (1 or more).

    Half of it is fixed, because the call itself was already retried for up to a minute.
    """
    ceiling: float = min(interval_s, FAILURE_BASE_S * 2 ** min(failures - 1, 20))
    return ceiling * uniform(0.5, 1.0)


def isolated_wait_s(interval_s: float, uniform: Callable[[float, float], float]) -> float:
    """Seconds until an isolated device asks again: full jitter, so that a fleet returns spread out."""
    return uniform(0.0, max(interval_s, ISOLATED_POLL_S))


def wake_wait_s(spread_s: float, uniform: Callable[[float, float], float]) -> float:
    """Seconds that a woken device waits, so that a fleet does not ask all at once."""
    return uniform(0.0, spread_s)


def report_is_due(*, changed: bool, since_last_s: float | None, interval_s: float) -> bool:
    """Whether `device_status` must be written: something changed, or the slow heartbeat is due."""
    if changed or since_last_s is None:
        return True
    return since_last_s >= HEARTBEAT_INTERVALS * interval_s
