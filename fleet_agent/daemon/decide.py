"""What the device should do next: pure functions of what was seen. No clock, no files, no network."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass

from fleet_agent.config import DeviceConfig
from fleet_agent.engine.phases import RESTING
from fleet_agent.model import Action, Directive, EngineStatus, PrefetchStatus, ReportState

#: Polls are spread by this share of the interval, both ways: a fleet that booted together drifts apart.
POLL_JITTER = 0.2
#: Before the control plane was ever heard: the fleet's usual interval.
DEFAULT_POLL_S = 900.0
#: After a failed check-in or attempt: doubled each time, spread, never longer than the poll interval.
FAILURE_BASE_S = 15.0
#: An isolated device asks after `U(0, this or the poll interval)`: a fleet that got lost together returns
#: spread.
ISOLATED_POLL_S = 1800.0
#: Reports older than this many poll intervals are renewed although nothing changed: at every second poll. The
#: dashboard shows a device as offline after three intervals without one.
HEARTBEAT_INTERVALS = 1.5


@dataclass(frozen=True)
class Stay:
    """Leave everything as it is."""

    why: str


@dataclass(frozen=True)
class Finish:
    """An attempt was interrupted: let the engine bring it to its end first."""

    why: str


@dataclass(frozen=True)
class Converge:
    """Start the engine with this directive. `asked` is true when an operator asked for it by a command."""

    directive: Directive
    why: str
    asked: bool = False


Step = Stay | Finish | Converge


def next_step(directive: Directive, engine: EngineStatus, *, asked: bool = False) -> Step:
    """Return the one thing this device should do about `directive`.

    Which releases are bad, and when a passing trouble may be tried again, is the engine's own memory.
    """
    if is_unfinished(engine):
        return Finish(f"an attempt was interrupted while {engine.phase}")
    # All of the release: the same commit under another row or version is taken over by the engine, untouched.
    at_target = engine.current == directive.release and engine.role == directive.device.role
    match directive.action:
        case Action.RUN | Action.HOLD:
            return _ahead(directive, engine, asked=asked)
        case Action.SAFE_MODE if engine.state == ReportState.SAFE_MODE:
            return Stay("in safe mode, as the control plane asks")
        case Action.SAFE_MODE:
            why = "into safe mode, as the control plane asks"
        case Action.UPDATE | Action.ROLLBACK if directive.release is None:
            return Stay(f"the control plane asks for {directive.action} and names no release")
        case Action.UPDATE | Action.ROLLBACK if at_target and engine.state != ReportState.SAFE_MODE:
            return Stay(f"already on {directive.release.version}")
        case Action.UPDATE:
            why = f"to {directive.release.version}"
        case Action.ROLLBACK:
            why = f"back to {directive.release.version}"
    return Converge(directive, why, asked)


def _ahead(directive: Directive, engine: EngineStatus, *, asked: bool) -> Step:
    """Nothing to apply: at most to bring here what only the maintenance window keeps away."""
    wanted = directive.prefetch
    if wanted is None or directive.action == Action.HOLD:
        return Stay(_waiting(directive) or "the control plane asks for nothing")
    if engine.current == wanted and engine.role == directive.device.role:
        return Stay(f"already on {wanted.version}")
    found = prefetched(directive, engine)
    if found is not None and found.ready:
        return Stay(f"{wanted.version} is ready; applied when the window opens{_behind(directive)}")
    if found is not None and not found.again and not asked:
        return Stay(f"{wanted.version} is not ready; fetched when the window opens{_behind(directive)}")
    return Converge(directive, f"prefetching {wanted.version}", asked)


def prefetched(directive: Directive, engine: EngineStatus | None) -> PrefetchStatus | None:
    """What came of prefetching the release that `directive` wants ahead; None where nothing was tried."""
    found = engine.prefetch if engine is not None else None
    if found is None or directive.action != Action.RUN:
        return None
    same = found.release == directive.prefetch and found.role == directive.device.role
    return found if same else None


def is_unfinished(engine: EngineStatus) -> bool:
    """Whether the engine's journal holds an attempt that nobody is working on."""
    return engine.phase not in RESTING


def _behind(directive: Directive) -> str:
    waiting = _waiting(directive)
    return f" ({waiting.rstrip('.')})" if waiting else ""


def _waiting(directive: Directive) -> str:
    """The first gate that keeps the device where it is, as a sentence."""
    for gate in directive.gates:
        if gate.verdict != "pass":
            return f"{gate.gate}: {gate.detail}" if gate.detail else gate.gate
    return ""


@dataclass(frozen=True)
class Settings:
    """What is in force on this device; `pinned` names what its own file decides, like `labels.site`."""

    poll_interval_s: float
    labels: Mapping[str, str]
    pinned: tuple[str, ...]


def settings(config: DeviceConfig, directive: Directive | None) -> Settings:
    """The control plane's settings with the device's own file over them, key by key."""
    asked = directive.next_poll_s if directive is not None else None
    sent = directive.config.labels if directive is not None else {}
    pinned = [f"labels.{name}" for name in sorted(config.labels)]
    if config.poll_interval_s is not None:
        pinned.insert(0, "poll_interval_s")
    return Settings(
        poll_interval_s=float(config.poll_interval_s or asked or DEFAULT_POLL_S),
        labels={**sent, **config.labels},
        pinned=tuple(pinned),
    )


def poll_wait_s(interval_s: float, uniform: Callable[[float, float], float]) -> float:
    """Seconds to the next poll."""
    return interval_s * uniform(1 - POLL_JITTER, 1 + POLL_JITTER)


def failure_wait_s(failures: int, interval_s: float, uniform: Callable[[float, float], float]) -> float:
    """Seconds to the next try after `failures` failures in a row (1 or more).

    Half of it is fixed: the call itself was already retried within a minute.
    """
    ceiling: float = min(interval_s, FAILURE_BASE_S * 2 ** min(failures - 1, 20))
    return ceiling * uniform(0.5, 1.0)


def isolated_wait_s(interval_s: float, uniform: Callable[[float, float], float]) -> float:
    """Seconds until an isolated device asks again: full jitter, so that a fleet returns spread."""
    return uniform(0.0, max(interval_s, ISOLATED_POLL_S))


def wake_wait_s(spread_s: float, uniform: Callable[[float, float], float]) -> float:
    """Seconds a woken device waits, so that a woken fleet does not ask all at once."""
    return uniform(0.0, spread_s)


def report_is_due(*, changed: bool, since_last_s: float | None, interval_s: float) -> bool:
    """Whether `device_status` must be written: something changed, or the slow heartbeat is due."""
    if changed or since_last_s is None:
        return True
    return since_last_s >= HEARTBEAT_INTERVALS * interval_s
