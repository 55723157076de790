"""What one whole update costs: bytes written, memory at its peak; and how long recovery from a kill takes.

The engine process as devices run it, with the beacon on real containers (simulated where there is no Docker).
"""

from __future__ import annotations

import argparse
import tempfile
import threading
import uuid
from dataclasses import dataclass, field
from pathlib import Path
from statistics import median

from fleet_agent.engine.phases import Phase
from fleetctl.demo.beacon import BeaconRepo
from fleetctl.demo.docker import docker_missing
from fleetctl.demo.faults.device import FaultDevice
from fleetctl.demo.faults.engine_run import EngineRun, run_engine
from tests.bench.table import CannotRunError, Row

KILLED_IN = (Phase.FETCHING, Phase.VALIDATING, Phase.STARTING, Phase.PROBATION, Phase.COMMITTING)
#: An update takes long enough; five of them say no more than two.
UPDATES = 2
LOOK_EVERY_S = 0.05


@dataclass
class Cost:
    """Of one engine process and what it started. Memory in KiB (PSS: shared pages counted once).

    `peak_own_kib` leaves out pages of programs and files, which the kernel can drop and read again.
    """

    peak_kib: int = 0
    peak_own_kib: int = 0
    peak_engine_kib: int = 0
    biggest: str = ""
    written: int = 0
    _stop: threading.Event = field(default_factory=threading.Event)
    _thread: threading.Thread | None = None

    def started(self, pid: int) -> None:
        self._thread = threading.Thread(target=self._watch, args=(pid,), daemon=True)
        self._thread.start()

    def before_reaping(self, pid: int) -> None:
        """Children that were reaped by it are counted in."""
        self._stop.set()
        if self._thread is not None:
            self._thread.join()
        lines = (Path("/proc") / str(pid) / "io").read_text().splitlines()
        self.written = int(dict(line.split(": ") for line in lines)["write_bytes"])

    def _watch(self, pid: int) -> None:
        while not self._stop.wait(LOOK_EVERY_S):
            seen = {one: _pss_kib(one) for one in [pid, *_descendants(pid)]}
            family = {one: whole for one, (whole, _) in seen.items()}
            self.peak_own_kib = max(self.peak_own_kib, sum(own for _, own in seen.values()))
            total = sum(family.values())
            self.peak_engine_kib = max(self.peak_engine_kib, family[pid])
            if total > self.peak_kib:
                self.peak_kib = total
                self.biggest = ", ".join(
                    f"{_name(one)} {kib / 1024:.0f}" for one, kib in family.items() if kib > 1024
                )


def run(options: argparse.Namespace) -> list[Row]:
    runtime = "simulated" if docker_missing() else "docker"
    with tempfile.TemporaryDirectory(prefix="fleet-bench-") as folder:
        repo = BeaconRepo.create(Path(folder) / "repo")
        device = FaultDevice(Path(folder) / "d", repo, runtime, f"demo-faults-{uuid.uuid4().hex[:6]}")
        try:
            _healthy(device, device.offer(device.release()))
            costs = [_update(device) for _ in range(min(UPDATES, options.repeats))]
            rows = _rows(costs, f"{len(costs)} updates of the beacon, {runtime} containers")
            return rows + [_recovery(device, phase, runtime) for phase in KILLED_IN]
        finally:
            device.remove()


def _update(device: FaultDevice) -> Cost:
    cost, release = Cost(), device.release()
    done = run_engine(
        device.config, device.directive(release), environment=device.environment,
        started=cost.started, before_reaping=cost.before_reaping,
    )  # fmt: skip
    _healthy(device, done)
    return cost


def _rows(costs: list[Cost], how: str) -> list[Row]:
    worst = max(costs, key=lambda cost: cost.peak_kib)
    return [
        Row(
            "update: written to disk",
            f"{median(cost.written for cost in costs) / 1024:.0f} KiB",
            f"{how}; engine and its children, without Docker's own",
        ),
        Row(
            "update: memory peak of the engine process",
            f"{max(cost.peak_engine_kib for cost in costs) / 1024:.0f} MiB PSS",
            how,
            "70 MiB or less",
        ),
        Row(
            "update: memory peak with children",
            f"{worst.peak_kib / 1024:.0f} MiB PSS",
            f"at that instant: {worst.biggest} MiB",
            "70 MiB or less",
        ),
        Row(
            "update: the same without pages of programs and files",
            f"{max(cost.peak_own_kib for cost in costs) / 1024:.0f} MiB PSS",
            "those can be dropped and read again, at the price of time",
        ),
    ]


def _recovery(device: FaultDevice, phase: Phase, runtime: str) -> Row:
    killed = device.offer(device.release(), kill_in=phase)
    if not killed.killed:
        raise CannotRunError(f"the engine was never seen in {phase}")
    back = device.recover()
    _healthy(device, back)
    ran = back.status.current.version if back.status and back.status.current else "nothing"
    return Row(
        f"recovery from a kill in {phase}",
        f"{back.seconds:.1f} s",
        f"once, {runtime} containers, start of Python included; {ran} runs, proven",
    )


def _healthy(device: FaultDevice, done: EngineRun) -> None:
    current = done.status.current if done.status else None
    troubles = device.troubles(current) if current else [done.error or "no release runs"]
    if troubles:
        raise CannotRunError(f"the device was not well afterwards: {troubles}")


def _descendants(pid: int) -> list[int]:
    found: list[int] = []
    try:
        for task in (Path("/proc") / str(pid) / "task").iterdir():
            for child in (task / "children").read_text().split():
                found += [int(child), *_descendants(int(child))]
    except OSError:
        # It ended while we looked.
        pass
    return found


def _pss_kib(pid: int) -> tuple[int, int]:
    """All of it, and the anonymous part."""
    try:
        lines = (Path("/proc") / str(pid) / "smaps_rollup").read_text().splitlines()[1:]
    except OSError:
        return 0, 0
    sizes = {name: int(rest.split()[0]) for name, _, rest in (line.partition(":") for line in lines)}
    return sizes.get("Pss", 0), sizes.get("Pss_Anon", 0)


def _name(pid: int) -> str:
    try:
        return (Path("/proc") / str(pid) / "comm").read_text().strip()
    except OSError:
        return "ended"
