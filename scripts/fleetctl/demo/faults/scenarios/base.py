"""What every scenario shares: the device it is played on, how it should end, and what was seen."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field

from fleet_agent.model import Outcome, Release
from fleetctl.demo.faults.device import FaultDevice
from fleetctl.demo.faults.engine_run import OnProgress


@dataclass
class Result:
    """What was seen. No `problems`: it ended as expected. Times in seconds, outage in milliseconds.

    `recovered_s`: from the engine's verdict to the old release proven healthy; None if it never stopped.
    """

    name: str
    broken: str
    outcome: str = ""
    phase: str = ""
    kind: str = ""
    message: str = ""
    evidence: list[str] = field(default_factory=list)
    recovered_s: float | None = None
    outage_ms: float | None = None
    seconds: float = 0.0
    problems: list[str] = field(default_factory=list)
    skipped: str = ""

    @property
    def ok(self) -> bool:
        return not self.problems


@dataclass
class Setup:
    """What every scenario starts from: one device that runs `good`, and where progress is shown."""

    device: FaultDevice
    on_progress: OnProgress
    new_device: Callable[[], FaultDevice]
    good: Release | None = None

    @property
    def simulated(self) -> bool:
        return self.device.runtime == "simulated"

    def running_release(self) -> Release:
        """The release that the device runs, installed first if there is none or it is not healthy."""
        if self.good is None or self.device.troubles(self.good):
            release = self.device.release()
            self.device.offer(release, on_progress=self.on_progress)
            if troubles := self.device.troubles(release):
                raise RuntimeError(f"The device could not be given a working release: {', '.join(troubles)}")
            self.good = release
        return self.good


@dataclass(frozen=True)
class Scenario:
    """`needs_docker` says why it cannot be simulated; `run` fills in the result."""

    name: str
    broken: str
    run: Callable[[Setup, Result], None]
    needs_docker: str = ""


@dataclass(frozen=True)
class Expected:
    outcome: Outcome
    phase: str
    #: Any of them; which one wins a race does not matter.
    kinds: tuple[str, ...]


def went_back(*kinds: str, phase: str = "probation") -> Expected:
    return Expected(Outcome.ROLLED_BACK, phase, kinds)


def untouched(kind: str, phase: str = "validating") -> Expected:
    return Expected(Outcome.FAILED, phase, (kind,))
