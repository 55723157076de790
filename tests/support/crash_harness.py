"""The crash lab: runs the engine in forked processes, kills it at a chosen instant, lets it recover, looks.

What it kills is in `crash_scenarios`, what must hold afterwards in `crash_invariant`.

Run as a program of its own (`python -m tests.support.crash_harness`), so that forking is safe. It prints one
JSON object a line.
"""

from __future__ import annotations

import errno
import json
import os
import shutil
import sys
import tempfile
import traceback
from collections.abc import Callable
from dataclasses import asdict, dataclass, replace
from datetime import timedelta
from pathlib import Path
from random import Random
from typing import TypeVar

from loguru import logger

from fleet_agent.attempts.outbox import Outbox
from fleet_agent.engine import api
from fleet_agent.engine import journal as journals
from fleet_agent.engine.config import EngineConfig
from fleet_agent.engine.dependencies import Dependencies
from fleet_agent.engine.git_source import GitSource
from fleet_agent.engine.phases import Phase
from fleet_agent.errors import FleetError, Kind
from fleet_agent.model import Action, Directive, Release, ReportState
from tests.support.broken_disk import ForgettingDisk, survivors
from tests.support.crash_damages import DAMAGES
from tests.support.crash_invariant import Invariant
from tests.support.crash_scenarios import (
    BEHAVIOR,
    EDITS,
    SCENARIOS,
    KillsCompose,
    Scenario,
    failing,
    version_of,
)
from tests.support.engine_harness import START, FakeClock, Fleet

T = TypeVar("T")
KILLED = 77
#: The world outside the agent keeps its own disk.
LOOKS = frozenset(
    f"docker {what}" for what in ("list", "networks", "info", "belongings", "images", "ports", "logs")
) | {"compose config", "compose hashes", "git verify"}
OUTSIDE = frozenset({"simulated.json", "simulated.new", "converge.lock", "children.lock"})


@dataclass(frozen=True)
class Result:
    """What came of one kill. `wrong` is empty where the invariant held."""

    scenario: str
    point: int
    label: str
    mode: str
    wrong: str


class Ticking:
    """Effects that tell when they begin and end."""

    def __init__(self, tick: Callable[[str], None]) -> None:
        self._tick = tick

    def perform(self, name: str, action: Callable[[], T]) -> T:
        self._tick(f"before {name}")
        done = action()
        self._tick(f"after {name}")
        return done


class Lab:
    def __init__(self, folder: Path, scenario: Scenario) -> None:
        self.folder, self.scenario = folder, scenario
        self.fleet = Fleet(folder / "repo")
        self.template = folder / "template"
        # Always at the same path: it is part of the resolved compose files.
        device = folder / "device"
        device.mkdir()
        for version in scenario.before:
            self._do(version, device, Dependencies(clock=FakeClock()))
        rows_before = len(Outbox(self._config(device).paths.outbox).pending())
        self._look = Invariant(self.fleet, scenario, rows_before).look
        version = version_of(scenario.action)
        if version.startswith(("v", "crashes", "refuses", "once", "networked")):
            release = self._release(version)
            if not scenario.fetches:
                # The fetch is killed in the other scenarios; here it would only cost time.
                source = GitSource(self._config(device), Dependencies().effects)
                source.fetch(release, self.fleet.role, lambda _: None)
        device.rename(self.template)
        self.fix = self._release("v-fix")

    def points(self) -> list[str]:
        """Every instant at which the action can be killed, by running it once undisturbed."""
        return [label for label, _ in self.instants()]

    def instants(self) -> list[tuple[str, str]]:
        """The same, each with the phase that the journal on the disk tells of then."""
        root = self._fresh()
        journal = self._config(root).paths.journal
        read, write = os.pipe()
        if os.fork() == 0:
            os.close(read)
            seen: list[tuple[str, str]] = []

            def note(label: str) -> None:
                phase = seen[-1][1] if seen else "steady"
                if label == "after write journal.json":
                    phase = json.loads(journal.read_bytes())["phase"]
                seen.append((label, phase))

            self._child(root, lambda dependencies: self._do(self.scenario.action, root, dependencies), note)
            with os.fdopen(write, "w") as pipe:
                json.dump(seen, pipe)
            os._exit(0)
        os.close(write)
        with os.fdopen(read) as pipe:
            found = [(label, phase) for label, phase in json.load(pipe)]
        os.wait()
        shutil.rmtree(root)
        return found

    def kill(self, point: int, mode: str, seed: int, *, again: int | None = None) -> Result:
        """Kill the action at `point`, then (with `again`) its recovery too; recover in peace and look.

        `mode`: `kill` keeps what was written, `lose` and `tear` do not (see `disk`).
        """
        root = self._fresh()
        label = self._killed(root, lambda s: self._do(self.scenario.action, root, s), point, mode, seed)
        seen = journals.load(self._config(root).paths.journal, set_aside=False)
        if again is not None:
            label += " | " + self._killed(root, lambda s: self._recover(root, s), again, mode, seed + 1)
        wrong = self._in_peace(root) or self._look(root, seen)
        shutil.rmtree(root)
        shutil.rmtree(f"{root}.lost", ignore_errors=True)
        return Result(self.scenario.name, point, label, mode, wrong)

    # One process each

    def _child(
        self, root: Path, action: Callable[[Dependencies], object], tick: Callable[[str], None]
    ) -> None:
        disk = ForgettingDisk(root, tick, OUTSIDE)
        disk.install()
        action(Dependencies(clock=FakeClock(), effects=Ticking(tick)))

    def break_disk(self, point: int, error: int) -> Result:
        """From `point` on the disk refuses every change: the engine must end in words. Then it is back."""
        root = self._fresh()
        read, write = os.pipe()
        pid = os.fork()
        if pid == 0:
            os.close(read)
            count = 0
            disk: ForgettingDisk

            def tick(label: str) -> None:
                nonlocal count
                if count == point:
                    os.write(write, label.encode())
                    disk.broken = error
                count += 1

            disk = ForgettingDisk(root, tick, OUTSIDE)
            disk.install()
            try:
                self._do(self.scenario.action, root, Dependencies(clock=FakeClock(), effects=Ticking(tick)))
            except FleetError as said:
                # Only these words may come out; a status is fine too.
                os._exit(0 if said.kind in (Kind.DISK_FULL, Kind.STATE_UNWRITABLE) else 2)
            except BaseException:
                os.write(write, traceback.format_exc().encode())
                os._exit(1)
            os._exit(0)
        os.close(write)
        with os.fdopen(read) as pipe:
            label = pipe.read()
        _, status = os.waitpid(pid, 0)
        seen = journals.load(self._config(root).paths.journal, set_aside=False)
        wrong = f"it ended with {status >> 8}" if status else ""
        wrong = wrong or self._in_peace(root) or self._look(root, seen) or self._goes_on(root)
        shutil.rmtree(root)
        return Result(self.scenario.name, point, label, os.strerror(error), wrong)

    def damage(self, point: int, what: str) -> Result:
        """Kill at `point`, then let something on the disk be damaged or gone."""
        root = self._fresh()
        label = self._killed(root, lambda s: self._do(self.scenario.action, root, s), point, "kill", 0)
        paths = self._config(root).paths
        seen = journals.load(paths.journal, set_aside=False)
        DAMAGES[what](root)
        wrong = self._in_peace(root) or self._look(root, seen) or self._goes_on(root)
        shutil.rmtree(root)
        return Result(self.scenario.name, point, label, what, wrong)

    def _killed(
        self, root: Path, action: Callable[[Dependencies], object], point: int, mode: str, seed: int
    ) -> str:
        read, write = os.pipe()
        pid = os.fork()
        if pid == 0:
            os.close(read)
            count = 0
            disk: ForgettingDisk

            def tick(label: str) -> None:
                nonlocal count
                if count == point:
                    os.write(write, label.encode())
                    if mode != "kill":
                        disk.crash(survivors(Random(seed)), tear=mode == "tear")
                    os._exit(KILLED)
                count += 1

            disk = ForgettingDisk(root, tick, OUTSIDE)
            disk.install()
            try:
                action(Dependencies(clock=FakeClock(), effects=Ticking(tick)))
            except BaseException:
                os.write(write, traceback.format_exc().encode())
                os._exit(1)
            os._exit(0)
        os.close(write)
        with os.fdopen(read) as pipe:
            label = pipe.read()
        os.waitpid(pid, 0)
        return label or "(ran to its end)"

    def _in_peace(self, root: Path) -> str:
        """Recover undisturbed; what went wrong, or nothing."""
        said = self._undisturbed(lambda: self._recover(root, Dependencies(clock=FakeClock())))
        return f"recovery failed: {said}" if said else ""

    def _goes_on(self, root: Path) -> str:
        """A fix is taken afterwards, whatever was damaged; what went wrong, or nothing."""

        def update() -> None:
            config, dependencies = self._config(root), Dependencies(clock=FakeClock())
            status = api.converge(config, self.fleet.directive(self.fix), dependencies=dependencies)
            assert (status.state, status.current) == (ReportState.HEALTHY, self.fix), status

        said = self._undisturbed(update)
        return f"a fix is not taken: {said}" if said else ""

    def _undisturbed(self, action: Callable[[], object]) -> str:
        read, write = os.pipe()
        pid = os.fork()
        if pid == 0:
            os.close(read)
            try:
                action()
            except BaseException:
                os.write(write, traceback.format_exc().encode())
                os._exit(1)
            os._exit(0)
        os.close(write)
        with os.fdopen(read) as pipe:
            said = pipe.read()
        os.waitpid(pid, 0)
        return said

    # What they do

    def _do(self, what: str, root: Path, dependencies: Dependencies) -> None:
        config = self._config(root)
        match what:
            case "rollback":
                api.rollback(config, dependencies=dependencies)
            case "enter_safe_mode":
                api.enter_safe_mode(config, dependencies=dependencies)
            case "leave_safe_mode":
                api.leave_safe_mode(config, dependencies=dependencies)
            case "stranded":
                # Compose is killed at each try to go back.
                killed = replace(dependencies, effects=KillsCompose())
                api.converge(config, self._directive("crashes"), dependencies=killed)
            case "come-back":
                later = replace(dependencies, clock=FakeClock(at=START + timedelta(minutes=59)))
                api.recover(config, dependencies=later)
            case version:
                failing_so = replace(dependencies, effects=failing(version, dependencies.effects))
                api.converge(config, self._directive(version), dependencies=failing_so)

    def _directive(self, what: str) -> Directive:
        version = version_of(what)
        if not what.startswith("ahead:"):
            return self.fleet.directive(self._release(version))
        return self.fleet.directive(None, Action.RUN, prefetch=self._release(version))

    def _release(self, version: str) -> Release:
        return self.fleet.release(version, BEHAVIOR.get(version, ""), edits=EDITS.get(version))

    def _recover(self, root: Path, dependencies: Dependencies) -> None:
        api.recover(self._config(root), dependencies=dependencies)

    def _config(self, root: Path) -> EngineConfig:
        return self.fleet.config(root)

    def _fresh(self) -> Path:
        root = self.folder / "device"
        shutil.rmtree(root, ignore_errors=True)
        shutil.copytree(self.template, root, symlinks=True)
        return root


def distinct(labels: list[str], stride: int, offset: int) -> list[int]:
    """The points worth a kill: between two of them something was changed.

    Around every effect; what only looks leaves nothing behind, and the end of one effect is the start of the
    next. Inside of effects (each system call) one in `stride`.
    """
    chosen = []
    for point, label in enumerate(labels):
        following = labels[point + 1] if point + 1 < len(labels) else ""
        if label.startswith("before "):
            if label.removeprefix("before ") not in LOOKS:
                chosen.append(point)
        elif label.startswith("after "):
            if not following.startswith("before ") and label.removeprefix("after ") not in LOOKS:
                chosen.append(point)
        elif (point + offset) % stride == 0:
            chosen.append(point)
    return chosen


#: The disk refuses from some instant on.
REFUSALS = {os.strerror(error): error for error in (errno.ENOSPC, errno.EROFS)}


#: What may happen to a disk.
TROUBLES = (*REFUSALS, *DAMAGES)


def troubles_of(phase: str, seed: int, share: int) -> list[str]:
    """One in `share` of the troubles, others in each phase and with each seed."""
    place = list(Phase).index(Phase(phase))
    return [what for number, what in enumerate(TROUBLES) if (number + place + seed) % share == 0]


def broken_disks(name: str, each: int, seed: int, share: int, phases: list[str]) -> int:
    """In each of `phases` one in `share` of the troubles, at `each` instants of it."""
    logger.remove()
    random = Random(seed)
    base = "/dev/shm" if os.access("/dev/shm", os.W_OK) else None
    with tempfile.TemporaryDirectory(prefix="fleet-lab-", dir=base) as folder:
        lab = Lab(Path(folder).resolve(), SCENARIOS[name])
        instants = lab.instants()
        print(json.dumps({"points": len(instants)}), flush=True)
        in_phase: dict[str, list[int]] = {}
        for point, (label, phase) in enumerate(instants):
            if phase in phases and label.partition(" ")[2] not in LOOKS:
                in_phase.setdefault(phase, []).append(point)
        for phase, points in in_phase.items():
            for what in troubles_of(phase, seed, share):
                for point in random.sample(points, min(each, len(points))):
                    error = REFUSALS.get(what)
                    result = lab.damage(point, what) if error is None else lab.break_disk(point, error)
                    print(json.dumps({**asdict(result), "phase": phase}), flush=True)
    return 0


def main() -> int:
    """Arguments: scenario, modes (comma), stride of points inside effects, seed, pairs, share of points."""
    if sys.argv[1] == "disk":
        each, seed_of_disks, one_in = map(int, sys.argv[3:6])
        return broken_disks(sys.argv[2], each, seed_of_disks, one_in, sys.argv[6:])
    name, modes, stride, seed, pairs, share = sys.argv[1:7]
    logger.remove()
    random = Random(int(seed))
    base = "/dev/shm" if os.access("/dev/shm", os.W_OK) else None
    with tempfile.TemporaryDirectory(prefix="fleet-lab-", dir=base) as folder:
        lab = Lab(Path(folder).resolve(), SCENARIOS[name])
        labels = lab.points()
        points = distinct(labels, int(stride), random.randrange(int(stride)))
        print(json.dumps({"points": len(labels), "distinct": len(points)}), flush=True)
        for point in points[int(seed) % int(share) :: int(share)]:
            for mode in modes.split(","):
                print(json.dumps(asdict(lab.kill(point, mode, random.randrange(1 << 30)))), flush=True)
        for _ in range(int(pairs)):
            result = lab.kill(
                random.randrange(len(labels)),
                random.choice(modes.split(",")),
                random.randrange(1 << 30),
                again=random.randrange(40),
            )
            print(json.dumps(asdict(result)), flush=True)
    return 0


if __name__ == "__main__":
    sys.exit(main())
