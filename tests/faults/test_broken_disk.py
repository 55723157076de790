"""A disk that is full or read-only from some instant on; files damaged or gone while the engine was dead."""

from __future__ import annotations

import errno
import json
import os
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import TypeVar

import pytest

from fleet_agent.containers.simulated import SimulatedRuntime
from fleet_agent.engine import api
from fleet_agent.engine.config import EngineConfig
from fleet_agent.engine.dependencies import Dependencies, Direct
from fleet_agent.engine.phases import Phase
from tests.faults.test_crash_matrix import HARNESS, ROOT, SEED
from tests.support.crash_harness import TROUBLES, troubles_of
from tests.support.engine_harness import FakeClock, Fleet, rows
from tests.support.profiles import SOAK, amount

T = TypeVar("T")


#: Which phases each scenario is tried in: together all of them (the soak: all that each goes through).
PHASES = {
    "update": {
        Phase.FETCHING, Phase.VERIFYING, Phase.VALIDATING, Phase.PULLING, Phase.SWAPPING, Phase.STARTING,
        Phase.PROBATION, Phase.COMMITTING, Phase.RECORDING, Phase.STEADY,
    },
    "bad-update": {Phase.ROLLING_BACK, Phase.RECORDING},
    "bad-first-release": {Phase.ROLLING_BACK, Phase.ENTERING_SAFE_MODE, Phase.RECORDING, Phase.SAFE_MODE},
}  # fmt: skip


#: One in so many troubles in each phase; which ones differs by day, and each is tried in some phase.
SHARE = amount(9, full=1)


def test_the_scenarios_go_through_every_phase() -> None:
    assert set.union(*PHASES.values()) == set(Phase)


@pytest.mark.parametrize("seed", range(4))
def test_each_trouble_is_tried_in_some_phase_whatever_the_seed(seed: int) -> None:
    tried = {what for phases in PHASES.values() for phase in phases for what in troubles_of(phase, seed, 9)}
    assert tried == set(TROUBLES)


@pytest.mark.parametrize("scenario", PHASES)
def test_each_trouble_of_the_disk_in_each_phase_is_recovered_from(
    scenario: str, counted: Callable[[str], None]
) -> None:
    """Refusals are said in words; damages are mended. In the end a fix is taken."""
    each, phases = (12, set(Phase)) if SOAK else (1, PHASES[scenario])
    done = subprocess.run(
        [sys.executable, "-m", HARNESS, "disk", scenario, str(each), str(SEED), str(SHARE), *phases],
        capture_output=True, text=True, cwd=ROOT, check=False,
        env={**os.environ, "PYTHONPATH": f"{ROOT}:{ROOT / 'scripts'}"},
    )  # fmt: skip
    assert done.returncode == 0, done.stderr[-3000:]
    _, *results = [json.loads(line) for line in done.stdout.splitlines()]
    wrong = [result for result in results if result["wrong"]]
    counted(f"broken disks, {scenario}: {len(results)}, {len(wrong)} unrecovered (seed {SEED})")
    assert not wrong
    tried = {(result["phase"], result["mode"]) for result in results}
    assert tried >= {(phase, what) for phase in PHASES[scenario] for what in troubles_of(phase, SEED, SHARE)}


def test_full_disk_is_refused_before_anything_is_fetched(tmp_path: Path) -> None:
    fleet = Fleet(tmp_path / "repo")
    config = fleet.config(tmp_path / "device", min_free_bytes=1 << 60)
    status = api.converge(
        config, fleet.directive(fleet.release("v1")), dependencies=Dependencies(clock=FakeClock())
    )
    assert (status.error_kind, status.phase) == ("disk_full", "steady")
    assert [(row.outcome, row.failed_phase) for row in rows(config)] == [("failed", "fetching")]
    # Passing trouble: not tried again at once, and not held against the release.
    api.converge(config, fleet.directive(fleet.release("v1")), dependencies=Dependencies(clock=FakeClock()))
    assert len(rows(config)) == 1


class FillsTheDisk(Direct):
    """Fills the file system to the last byte when `effect` begins, and keeps it full."""

    def __init__(self, folder: Path, effect: str) -> None:
        self.folder, self.effect = folder, effect

    def perform(self, name: str, action: Callable[[], T]) -> T:
        if name == self.effect and not (self.folder / "filler").exists():
            with (self.folder / "filler").open("wb", buffering=0) as filler:
                try:
                    while True:
                        filler.write(b"\0" * 4096)
                except OSError as error:
                    assert error.errno == errno.ENOSPC
        return action()


@pytest.fixture
def small_disk(tmp_path: Path) -> Iterator[Path]:
    """A real file system of 8 MiB."""
    disk = tmp_path / "disk"
    disk.mkdir()
    mounted = subprocess.run(
        ["mount", "-t", "tmpfs", "-o", "size=8m", "tmpfs", str(disk)], capture_output=True, check=False
    )
    if mounted.returncode != 0:
        pytest.skip("only root may mount a small file system")
    yield disk
    subprocess.run(["umount", "-l", str(disk)], check=True)


@pytest.mark.parametrize("effect", ["link app_next", "compose up", "remove app_next", "put attempt"])
@pytest.mark.parametrize("behavior", ["", "crash"])
def test_update_on_a_disk_that_fills_up_still_ends(
    small_disk: Path, tmp_path: Path, effect: str, behavior: str
) -> None:
    """After the swap there is no way but to an end: the reserve pays for it."""
    if behavior and effect == "remove app_next":
        effect = "compose up"
    fleet = Fleet(tmp_path / "repo")
    root = small_disk / "device"
    config = fleet.config(root, min_free_bytes=4096, critical_free_bytes=0)
    runtime = SimulatedRuntime(tmp_path / "world.json")
    v1, v2 = fleet.release("v1"), fleet.release("v2", behavior)
    calm = Dependencies(clock=FakeClock(), runtime=runtime)
    api.converge(config, fleet.directive(v1), dependencies=calm)
    full = Dependencies(clock=FakeClock(), runtime=runtime, effects=FillsTheDisk(root, effect))
    status = api.converge(config, fleet.directive(v2), dependencies=full)
    assert (status.phase, status.current) == ("steady", v1 if behavior else v2)
    assert {service.state for service in status.services} == {"running"}
    assert [row.outcome for row in rows(config)] == ["succeeded", "rolled_back" if behavior else "succeeded"]


class DiesFetching(Direct):
    """Killed in a fetch that has filled the disk to the last byte, the reserve spent."""

    def __init__(self, config: EngineConfig) -> None:
        self.config = config

    def perform(self, name: str, action: Callable[[], T]) -> T:
        if name != "git fetch":
            return action()
        (self.config.paths.state / "reserve").unlink()
        packs = self.config.paths.repository / "objects" / "pack"
        with (packs / "tmp_pack_half").open("wb", buffering=0) as half:
            try:
                while True:
                    half.write(b"\0" * 4096)
            except OSError as error:
                assert error.errno == errno.ENOSPC
        raise SystemExit


def test_engine_killed_in_a_fetch_that_filled_the_disk_makes_room_for_the_next(
    small_disk: Path, tmp_path: Path
) -> None:
    """Not a byte is free: without room, the next start could not even give up."""
    fleet = Fleet(tmp_path / "repo")
    config = fleet.config(small_disk / "device", min_free_bytes=4096, critical_free_bytes=0)
    runtime = SimulatedRuntime(tmp_path / "world.json")
    v1, v2 = fleet.release("v1"), fleet.release("v2")
    calm = Dependencies(clock=FakeClock(), runtime=runtime)
    api.converge(config, fleet.directive(v1), dependencies=calm)
    with pytest.raises(SystemExit):
        api.converge(
            config,
            fleet.directive(v2),
            dependencies=Dependencies(clock=FakeClock(), runtime=runtime, effects=DiesFetching(config)),
        )
    status = api.recover(config, dependencies=calm)
    assert (status.phase, status.current) == ("steady", v1)
    assert [row.outcome for row in rows(config)] == ["succeeded", "skipped"]
    assert api.converge(config, fleet.directive(v2), dependencies=calm).current == v2
