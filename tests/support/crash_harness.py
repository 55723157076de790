"""The crash lab: runs the engine in forked processes, kills it at a chosen instant, lets it recover, looks.

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
from collections.abc import Callable, Iterator
from dataclasses import asdict, dataclass, replace
from datetime import timedelta
from pathlib import Path
from random import Random
from typing import TypeVar

from loguru import logger

from fleet_agent.attempts.outbox import Outbox
from fleet_agent.containers.comparison import differences
from fleet_agent.containers.simulated import LABEL, SimulatedRuntime, World
from fleet_agent.engine import api, links
from fleet_agent.engine import journal as journals
from fleet_agent.engine.config import EngineConfig
from fleet_agent.engine.dependencies import Dependencies, Direct
from fleet_agent.engine.git_source import GitSource
from fleet_agent.engine.journal import AttemptKind, Journal
from fleet_agent.engine.phases import RESTING, Phase
from fleet_agent.engine.stack_store import StackStore, read_compose
from fleet_agent.engine.state_files import StateFiles
from fleet_agent.errors import ContainerError, FleetError, Kind
from fleet_agent.model import Action, Directive, Outcome, Release, ReportState
from tests.support.broken_disk import ForgettingDisk, survivors
from tests.support.engine_harness import COMPOSE_YAML, START, FakeClock, Fleet

T = TypeVar("T")
KILLED = 77
#: The world outside the agent keeps its own disk.
LOOKS = frozenset(
    f"docker {what}" for what in ("list", "networks", "info", "belongings", "images", "ports", "logs")
) | {"compose config", "compose hashes", "git verify"}
OUTSIDE = frozenset({"simulated.json", "simulated.new", "converge.lock", "children.lock"})


@dataclass(frozen=True)
class Scenario:
    """`before` is converged to in peace, one after the other; then `action` is what gets killed.

    `ahead:v3` prefetches v3 and leaves the device on what it runs. `ends` are the versions that may run at
    the end (None: no release, so safe mode).
    """

    name: str
    before: tuple[str, ...]
    action: str
    ends: tuple[str | None, ...]
    fetches: bool = False


SCENARIOS = {
    scenario.name: scenario
    for scenario in (
        Scenario("update", ("v1", "v2"), "v3", ("v2", "v3"), fetches=True),
        Scenario("bad-update", ("v1", "v2"), "crashes", ("v2",)),
        Scenario("refused-update", ("v1",), "refuses", ("v1",)),
        Scenario("first-release", (), "v1", (None, "v1")),
        Scenario("bad-first-release", (), "crashes", (None,)),
        Scenario("out-of-safe-mode", ("crashes",), "v1", (None, "v1")),
        Scenario("prefetch", ("v1", "v2"), "ahead:v3", ("v2",), fetches=True),
        Scenario("prefetch-refused", ("v1",), "ahead:refuses", ("v1",)),
        Scenario("update-prefetched", ("v1", "v2", "ahead:v3"), "v3", ("v2", "v3")),
        Scenario("prefetch-another", ("v1", "ahead:v2"), "ahead:v3", ("v1",)),
        Scenario("go-back", ("v1", "v2"), "rollback", ("v1", "v2")),
        Scenario("enter-safe-mode", ("v1",), "enter_safe_mode", ("v1", None)),
        Scenario("network-changes", ("v1",), "networked", ("v1", "networked")),
        Scenario("come-back", ("v1", "stranded"), "come-back", (None, "v1")),
        Scenario("leave-safe-mode", ("v1", "enter_safe_mode"), "leave_safe_mode", (None, "v1")),
    )
}

BEHAVIOR = {"crashes": "crash-later=2"}
SUBNET = "networks: {default: {ipam: {config: [{subnet: 10.217.1.0/24}]}}}\n"
EDITS = {
    "refuses": {"validate": "#!/bin/sh\nexit 1\n"},
    "networked": {"compose.yaml": COMPOSE_YAML.format(behavior="") + "    deploy: {replicas: 3}\n" + SUBNET},
}


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


class KillsCompose(Direct):
    """Compose is killed whenever it starts something, once something was given up."""

    given_up = False

    def perform(self, name: str, action: Callable[[], T]) -> T:
        self.given_up = self.given_up or name == "docker logs"
        if name == "compose up" and self.given_up:
            raise ContainerError(Kind.COMPOSE_KILLED, "Compose was killed (signal 9).", retryable=True)
        return action()


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
        self._base_rows = len(Outbox(self._config(device).paths.outbox).pending())
        version = scenario.action.removeprefix("ahead:")
        if version.startswith(("v", "crashes", "refuses")):
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
                api.converge(config, self._directive(version), dependencies=dependencies)

    def _directive(self, what: str) -> Directive:
        version = what.removeprefix("ahead:")
        if version == what:
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

    # The invariant

    def _look(self, root: Path, at_kill: Journal | None) -> str:
        """Exactly one healthy release, links and journal agreeing, the attempt exactly once."""
        return "; ".join(self._complaints(root, at_kill))

    def _complaints(self, root: Path, at_kill: Journal | None) -> Iterator[str]:
        config = self._config(root)
        paths = config.paths
        journal = journals.load(paths.journal, set_aside=False) or Journal()
        if journal.phase not in RESTING or journal.attempt is not None:
            yield f"the engine does not rest: {journal.phase}"
        seen = links.read(paths)
        told = tuple(d.release.commit_sha if d else None for d in (journal.current, journal.previous))
        if (seen.current, seen.previous) != told or seen.next is not None:
            yield f"links {seen} and journal {told} disagree"
        version = journal.current.release.version if journal.current else None
        ended = None if journal.safe_mode and not journal.safe_mode.release_runs else version
        if ended not in self.scenario.ends:
            yield f"{ended} runs"
        yield from self._wrong_containers(root, config, journal, ended)
        if paths.in_safe_mode.exists() != (journal.safe_mode is not None):
            yield f"the mark of safe mode is {'' if journal.safe_mode is None else 'not '}there"
        if (paths.state / "attempt.json").exists():
            yield "a copy of the attempt is left over"
        leftovers = [p for p in (*paths.state.rglob(".*"), *root.glob(".*")) if not p.is_dir()]
        if leftovers:
            yield f"left over: {leftovers}"
        yield from self._wrong_rows(config, journal, at_kill)
        yield from self._wrong_prefetch(config, journal)

    def _wrong_containers(
        self, root: Path, config: EngineConfig, journal: Journal, ended: str | None
    ) -> Iterator[str]:
        try:
            world = World.model_validate_json((root / "state" / "simulated.json").read_bytes())
        except FileNotFoundError:
            world = World()
        running = world.containers.get(config.project, {})
        if ended is None:
            if running:
                yield f"in safe mode, and {sorted(running)} run"
            return
        if journal.current is None:
            yield "no current release"
            return
        file = root / "state" / "stacks" / journal.current.key / "compose.json"
        if not file.exists():
            yield f"the compose file of {ended} is gone"
            return
        compose = read_compose(file)
        wanted = compose["services"]
        runtime = SimulatedRuntime(root / "state" / "simulated.json")
        containers, networks = runtime.services(config.project), runtime.networks()
        for found in differences(compose, config.project, containers, networks):
            yield found.phrase
        for name, service in wanted.items():
            if name in running and running[name].config_hash != running[name].fingerprint(service):
                yield f"{name} is not the one of {ended}"
            if service.get("labels", {}).get(LABEL):
                yield f"{name} is not healthy"
        if not (config.paths.release(journal.current.release.commit_sha) / "release.json").exists():
            yield "the release's folder is gone"

    def _wrong_rows(self, config: EngineConfig, journal: Journal, at_kill: Journal | None) -> Iterator[str]:
        found = Outbox(config.paths.outbox).pending()
        ids = [row.id for row in found]
        if len(set(ids)) != len(ids):
            yield "a row twice"
        attempts = len(found) - self._base_rows
        in_hand = at_kill.attempt if at_kill is not None else None
        # One that came to nothing may leave no row in these.
        quiet = in_hand is not None and in_hand.kind in (AttemptKind.PREFETCH, AttemptKind.COME_BACK)
        if in_hand is not None and not quiet and in_hand.id not in ids:
            yield f"the attempt {in_hand.id} has no row"
        if self.scenario.action.startswith("ahead:") and any(
            row.outcome is not Outcome.SKIPPED or not row.evidence.get("prefetching")
            for row in found[self._base_rows :]
        ):
            yield "a row that is none of prefetching"
        if attempts > 1:
            yield f"{attempts} rows of one attempt"
        changed = journal.state is ReportState.ROLLED_BACK or (
            journal.current is not None and journal.current.release.version == self.scenario.action
        )
        if attempts == 0 and changed:
            yield "the device changed and there is no row"

    def _wrong_prefetch(self, config: EngineConfig, journal: Journal) -> Iterator[str]:
        """What is said to be ready is here whole, and nothing else lies about."""
        found = journal.prefetch
        ready = found.target if found is not None and found.ready else None
        pending = journal.pending.target if journal.pending is not None else None
        kept = {one for one in (journal.current, journal.previous, ready, pending) if one is not None}
        if ready is not None:
            runtime = SimulatedRuntime(config.paths.state / "simulated.json")
            stacks = StackStore(config.paths, StateFiles(Direct(), config.paths.state / "reserve"))
            if runtime.missing_images(stacks.load(ready).images):
                yield f"{ready.release.version} is said to be ready and has no image"
            if not (config.paths.release(ready.release.commit_sha) / "release.json").exists():
                yield f"{ready.release.version} is said to be ready and is not here"
            if any(not place.is_dir() for place in stacks.mounted(ready.key)):
                yield f"{ready.release.version} is said to be ready and misses content"
        there = (
            {path.name for path in config.paths.releases.iterdir()}
            if config.paths.releases.exists()
            else set()
        )
        if there - {one.release.commit_sha for one in kept}:
            yield "a release is left over that nothing refers to"


def _garbage(name: str) -> Callable[[Path], None]:
    def damage(root: Path) -> None:
        for file in (root / "state").rglob(name):
            file.write_bytes(b"\0" * 100)

    return damage


def _gone(name: str) -> Callable[[Path], None]:
    def damage(root: Path) -> None:
        for found in list(root.glob(name)):
            shutil.rmtree(found)

    return damage


def _image_store(root: Path) -> None:
    file = root / "state" / "simulated.json"
    if file.exists():
        world = World.model_validate_json(file.read_bytes())
        world.images.clear()
        file.write_text(world.model_dump_json())


def _damaged_images(root: Path) -> None:
    file = root / "state" / "simulated.json"
    if file.exists():
        world = World.model_validate_json(file.read_bytes())
        world.damaged_images |= world.images
        file.write_text(world.model_dump_json())


def _torn_exports(root: Path) -> None:
    """Every file of every exported release: the disk gives back zeros."""
    for file in (root / "releases").rglob("*"):
        if file.is_file() and not file.is_symlink():
            file.write_bytes(b"\0" * file.stat().st_size)


#: What may be damaged while the engine is dead.
DAMAGES: dict[str, Callable[[Path], None]] = {
    "corrupt journal": _garbage("journal.json"),
    "corrupt memory": _garbage("known_bad.json"),
    "corrupt copy of the attempt": _garbage("attempt.json"),
    "corrupt stacks": _garbage("stack.json"),
    "corrupt compose files": _garbage("compose.json"),
    "vanished release folders": _gone("releases/*"),
    "vanished content": _gone("content/*"),
    "corrupt exports": _torn_exports,
    "empty image store": _image_store,
    "corrupt image store entries": _damaged_images,
}


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
