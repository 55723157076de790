"""How soon the old release is proven healthy after the first failing check of a bad one, on real containers.

Two bad releases: one whose container exits while it is watched (no doubt: the engine goes back at once) and
one that answers 404 (the role's grace passes and its failure budget is spent first). Time counts from the
first failing check that counts: within its grace, which the role declares, a service may still be starting.
The old release's own start time is taken by the engine's own steps: from its containers' restart to the first
round in which all of its checks pass.
"""

from __future__ import annotations

import argparse
import tempfile
import uuid
from dataclasses import dataclass
from pathlib import Path
from statistics import median

from fleet_agent.engine.phases import Phase
from fleetctl.demo.beacon import BeaconRepo, Breakage
from fleetctl.demo.docker import docker_missing
from fleetctl.demo.faults.device import FaultDevice
from fleetctl.demo.faults.engine_run import EngineRun
from tests.bench.table import CannotRunError, Row

ROUNDS = 2
FIRST_FAILING = "first failing check after"
FIRST_COUNTING = "first failure counted after"


@dataclass(frozen=True)
class Rollback:
    """Seconds: first failing check to the first that counts, to the verdict, to the old containers up, to a
    good round, to proof.
    """

    grace: float
    verdict: float
    swapped: float
    started: float
    proof: float

    @property
    def whole(self) -> float:
        return self.grace + self.verdict + self.swapped + self.started + self.proof


def run(options: argparse.Namespace) -> list[Row]:
    if reason := docker_missing():
        raise CannotRunError(reason)
    rows = []
    with tempfile.TemporaryDirectory(prefix="fleet-bench-") as folder:
        repo = BeaconRepo.create(Path(folder) / "repo")
        device = FaultDevice(Path(folder) / "d", repo, "docker", f"demo-faults-{uuid.uuid4().hex[:6]}")
        try:
            good = device.release()
            device.offer(good)
            if troubles := device.troubles(good):
                raise CannotRunError(f"the first release is not well: {troubles}")
            for title, breakage in (("exits", Breakage.CRASH), ("answers 404", Breakage.HTTP_ERROR)):
                found = []
                for _ in range(min(ROUNDS, options.repeats)):
                    run = device.offer(device.release(breakage))
                    if troubles := device.troubles(good):
                        raise CannotRunError(f"it did not go back: {troubles}")
                    found.append(_times(run))
                rows += _rows(title, found)
        finally:
            device.remove()
    return rows


def _times(run: EngineRun) -> Rollback:
    """By the instants at which the engine said so."""
    began, proven = run.entered(Phase.ROLLING_BACK), run.left(Phase.ROLLING_BACK)
    failed, counted = run.logged(FIRST_FAILING), run.logged(FIRST_COUNTING)
    if failed is None or counted is None or began is None or proven is None:
        raise CannotRunError("the engine did not say when it failed and went back")
    # The first word of the watch comes when the old containers are up; the first good round is told as such.
    words = [line for line in run.progress if line.phase == Phase.ROLLING_BACK and line.at > began]
    good = [line.at for line in words if line.detail.startswith("1 of ")]
    if not words or not good:
        raise CannotRunError("the engine did not tell its rounds")
    return Rollback(
        counted - failed,
        began - counted,
        words[0].at - began,
        max(0.0, good[-1] - words[0].at),
        proven - good[-1],
    )


def _rows(title: str, found: list[Rollback]) -> list[Row]:
    def middle(*parts: str) -> float:
        return float(median(sum(getattr(one, part) for part in parts) for one in found))

    return [
        Row(
            f"rollback, release that {title}: first failing check to proven",
            f"{middle('whole'):.1f} s",
            f"{len(found)} times; {middle('grace'):.1f} s of the bad one's grace, "
            f"{middle('verdict'):.1f} s to the verdict, {middle('swapped'):.1f} s until the old containers "
            f"are up, {middle('started'):.1f} s until all checks pass",
        ),
        Row(
            f"rollback, release that {title}: from the first that counts, beyond the old release's own start",
            f"{middle('verdict', 'swapped', 'proof'):.1f} s",
            f"the bad one's budget is in the verdict; {middle('proof'):.1f} s of rounds prove the old one",
            "3 s or less",
        ),
    ]
