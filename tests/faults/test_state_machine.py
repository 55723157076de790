"""Releases, orders, halts, faults and clocks in any order, against a model of what a device should be.

Hypothesis looks for a sequence that breaks the engine and shrinks it to the shortest one.
"""

from __future__ import annotations

import shutil
import tempfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from datetime import timedelta
from functools import cache
from pathlib import Path
from typing import TypeVar

from hypothesis import HealthCheck, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, precondition, rule
from loguru import logger

from fleet_agent.containers.comparison import differences
from fleet_agent.containers.simulated import SimulatedRuntime, World
from fleet_agent.engine import api, failure_memory, links
from fleet_agent.engine import journal as journals
from fleet_agent.engine.dependencies import Dependencies, Direct
from fleet_agent.engine.git_source import GitSource
from fleet_agent.engine.journal import Journal
from fleet_agent.engine.phases import RESTING
from fleet_agent.engine.stack_store import read_compose
from fleet_agent.errors import ContainerError, FleetError, Kind
from fleet_agent.model import Action, EngineStatus, Release, ReportState
from fleet_agent.release import Origin
from tests.support.crash_scenarios import ONCE, SUBNET
from tests.support.engine_harness import COMPOSE_YAML, START, FakeClock, Fleet, rows
from tests.support.profiles import SOAK, amount

T = TypeVar("T")

GOOD = ("good-1", "good-2", "good-3")
BAD = {"crashes": "crash", "falls": "crash-later=2", "sick": "unhealthy", "never": "no-start", "refuses": ""}
EDITS = {
    "refuses": {"validate": "#!/bin/sh\nexit 1\n"},
    # A service that runs once for both, a network that changes, and replicas.
    "good-1": {"compose.yaml": ONCE % "a"},
    "good-2": {"compose.yaml": ONCE % "a" + SUBNET},
    "good-3": {"compose.yaml": COMPOSE_YAML.format(behavior="") + "    deploy: {replicas: 3}\n"},
}


class Killed(BaseException):
    """The engine is gone in this instant; nothing of it but its files goes on."""


class Mortal(Direct):
    """Dies at the n-th effect; never with None. Compose fails the first `kills` times that it starts."""

    def __init__(self, at: int | None, kills: int = 0, kind: Kind = Kind.COMPOSE_KILLED) -> None:
        self.left, self.kills, self.kind = at, kills, kind

    def perform(self, name: str, action: Callable[[], T]) -> T:
        if name == "compose up" and self.kills:
            self.kills -= 1
            raise ContainerError(self.kind, "Compose did not end by itself.", retryable=True)
        if self.left is not None:
            if self.left == 0:
                raise Killed(name)
            self.left -= 1
        return action()


class Shelf:
    """Releases that were fetched and exported by the real parts before: Git itself has tests of its own."""

    def __init__(self, shelf: Path, real: GitSource, releases: Path) -> None:
        self.shelf, self.real, self.releases = shelf, real, releases

    def fetch(self, release: Release, role: str, report: object) -> int:
        del release, role, report
        return 100

    def verify(self, release: Release) -> str:
        del release
        return "tests"

    def origin(self, commit: str) -> Origin:
        del commit
        return Origin(None, START)

    def export(self, release: Release, role: str) -> None:
        del role
        target = self.releases / release.commit_sha
        if not target.exists():
            building = target.with_name(".export-building")
            shutil.rmtree(building, ignore_errors=True)
            shutil.copytree(self.shelf / release.commit_sha, building, symlinks=True)
            building.rename(target)

    def check(self, release: Release, role: str) -> None:
        self.real.check(release, role)

    def prune(self, keep: set[str]) -> None:
        self.real.prune(keep)


@cache
def _stock() -> tuple[Fleet, Path]:
    """The fleet repository and every release, exported once for all examples."""
    folder = Path(tempfile.mkdtemp(prefix="fleet-model-"))
    fleet = Fleet(folder / "repo")
    config = fleet.config(folder / "first")
    source = GitSource(config, Direct())
    for version in (*GOOD, *BAD):
        release = fleet.release(version, BAD.get(version, ""), edits=EDITS.get(version))
        source.fetch(release, fleet.role, lambda _: None)
        source.export(release, fleet.role)
    return fleet, config.paths.releases


def dying(effects: int) -> st.SearchStrategy[int | None]:
    """Mostly not at all; else at any of its effects alike."""
    return st.sampled_from([*[None] * effects, *range(effects)])


class Device(RuleBasedStateMachine):
    """The model: what runs (None in safe mode or at the start), what ran before, what failed here."""

    @initialize(first=st.sampled_from((None, *GOOD)))
    def start(self, first: str | None) -> None:
        logger.remove()
        self.fleet, shelf = _stock()
        self.folder = Path(tempfile.mkdtemp(prefix="fleet-device-", dir=_fast()))
        self.config = self.fleet.config(self.folder / "device", safe_mode_after=4, docker_patience_s=0.5)
        self.source = Shelf(shelf, GitSource(self.config, Direct()), self.config.paths.releases)
        self.clock = FakeClock()
        self.bad: set[str] = set()
        if first is not None:
            # Most of what can go wrong needs something that runs.
            self.update(first, operator_requested=False, dies=None)

    def teardown(self) -> None:
        if hasattr(self, "folder"):
            shutil.rmtree(self.folder)

    # What happens to it

    @rule(version=st.sampled_from((*GOOD, *BAD)), operator_requested=st.booleans(), dies=dying(45))
    def update(self, version: str, operator_requested: bool, dies: int | None) -> None:
        before, count, done_before = self.status(), len(rows(self.config)), self.done()
        why_in_safe_mode = self.why_in_safe_mode()
        release = self.fleet.release(version)
        known = version in self.bad and not operator_requested
        dependencies = self.dependencies(dies)
        died = self.perform(
            lambda: api.converge(
                self.config,
                self.fleet.directive(release),
                operator_requested=operator_requested,
                dependencies=dependencies,
            ),
            dies,
        )
        after, made = self.status(), len(rows(self.config)) - count
        assert made <= 1
        if died:
            assert after.current in (before.current, release, None)
            self.relearn()
        elif known and version != self.running(before):
            assert (made, after.current) == (0, before.current)
        elif (
            why_in_safe_mode in ("requested", Kind.DISK_FULL)
            and before.current == release
            and not operator_requested
        ):
            # An ordered safe mode ends by an order or by a fix; what ran before is none. An update that fails
            # meanwhile is what the status tells of, and changes nothing of that.
            assert (after.state, made) == (ReportState.SAFE_MODE, 0)
        elif version in BAD:
            assert after.current == before.current
            assert made == 1
            self.bad.add(version)
        elif before.current != release or before.state is ReportState.SAFE_MODE:
            assert (after.state, after.current, made) == (ReportState.HEALTHY, release, 1), after
            self.bad.discard(version)
            if done_before is not None and before.state is not ReportState.SAFE_MODE and version != "good-3":
                assert self.done() == done_before

    @rule(dies=dying(30))
    def go_back(self, dies: int | None) -> None:
        before = self.status()
        try:
            died = self.perform(lambda: api.rollback(self.config, dependencies=self.dependencies(dies)), dies)
        except FleetError as refusal:
            assert refusal.kind is Kind.NOTHING_TO_ROLL_BACK
            assert before.previous is None
            return
        if not died:
            after = self.status()
            assert after.current == before.previous
            if before.current is not None and before.state is not ReportState.SAFE_MODE:
                self.bad.add(before.current.version)
        self.relearn()

    @rule(dies=dying(20))
    def enter_safe_mode(self, dies: int | None) -> None:
        if not self.perform(
            lambda: api.enter_safe_mode(self.config, dependencies=self.dependencies(dies)), dies
        ):
            assert self.status().state is ReportState.SAFE_MODE

    @rule(dies=dying(30))
    def leave_safe_mode(self, dies: int | None) -> None:
        try:
            self.perform(lambda: api.leave_safe_mode(self.config, dependencies=self.dependencies(dies)), dies)
        except FleetError as refusal:
            assert refusal.kind is Kind.NOTHING_TO_ROLL_BACK
            assert self.status().current is None
        self.relearn()

    @rule(version=st.sampled_from(GOOD), action=st.sampled_from((Action.RUN, Action.HOLD)))
    def halted_mid_update(self, version: str, action: Action) -> None:
        before = self.status()
        newest = self.fleet.directive(None, action)
        dependencies = Dependencies(clock=self.clock, source=self.source, newest=lambda: newest)
        api.converge(
            self.config, self.fleet.directive(self.fleet.release(version)), dependencies=dependencies
        )
        assert self.status().current == before.current

    @rule(version=st.sampled_from(GOOD))
    def docker_is_down(self, version: str) -> None:
        before = self.status()
        with self.docker_down():
            try:
                api.converge(
                    self.config,
                    self.fleet.directive(self.fleet.release(version)),
                    dependencies=self.dependencies(None),
                )
            except FleetError as error:
                assert error.kind is Kind.DOCKER_UNAVAILABLE
        self.recover()
        assert self.status().current == before.current

    @rule(version=st.sampled_from(GOOD), kills=st.sampled_from((1, 4, 5, 9, 14)))
    def compose_is_killed(self, version: str, kills: int) -> None:
        """A few times: nothing of it is seen. Each time: what was well before comes back, now or later."""
        before, bad = self.status(), self.remembered()
        dependencies = Dependencies(clock=self.clock, source=self.source, effects=Mortal(None, kills))
        api.converge(
            self.config, self.fleet.directive(self.fleet.release(version)), dependencies=dependencies
        )
        assert self.remembered() <= bad
        if before.state is not ReportState.SAFE_MODE and kills < 5 and version not in self.bad:
            assert self.status().current == self.fleet.release(version)
        self.recover()
        after = self.status()
        if before.state is not ReportState.SAFE_MODE and before.current is not None:
            assert after.state is not ReportState.SAFE_MODE
        if after.current == self.fleet.release(version):
            self.bad.discard(version)

    @rule(version=st.sampled_from(GOOD))
    def compose_hangs(self, version: str) -> None:
        """Once: what was well before is back, and only the third time in a row is the release known bad."""
        before, bad = self.status(), self.remembered()
        release = self.fleet.release(version)
        key = f"{release.commit_sha}.{self.fleet.role}"
        hangs = failure_memory.load(self.config.paths.known_bad).hangs(key)
        hung = Mortal(None, 1, Kind.COMPOSE_HUNG)
        dependencies = Dependencies(clock=self.clock, source=self.source, effects=hung)
        api.converge(self.config, self.fleet.directive(release), dependencies=dependencies)
        started = hung.kills == 0
        self.recover()
        assert self.remembered() - bad <= ({version} if started and hangs == 2 else set())
        if before.state is not ReportState.SAFE_MODE and before.current is not None:
            assert self.status().current == before.current
        self.relearn()

    @rule(hours=st.sampled_from((-400_000, -1, 1, 9_000)), corrected=st.booleans())
    def clock_jumps(self, hours: int, *, corrected: bool) -> None:
        """The machine's own clock, and with `corrected` what is believed to be the time, too."""
        if corrected:
            self.clock.at += timedelta(hours=hours)
        else:
            self.clock.ahead = timedelta(hours=hours)

    @precondition(lambda self: hasattr(self, "config") and self.config.paths.journal.exists())
    @rule()
    def containers_are_removed_by_hand(self) -> None:
        file = self.config.paths.state / "simulated.json"
        if file.exists():
            world = World.model_validate_json(file.read_bytes())
            world.containers.clear()
            file.write_text(world.model_dump_json())
        self.recover()

    @rule(how=st.sampled_from(("removed", "stopped", "off its network", "misnamed", "all off a network")))
    def containers_are_changed_by_hand(self, how: str) -> None:
        world = self.world()
        running = world.containers.get(self.config.project, {})
        if not running:
            return
        last = max(running)
        match how:
            case "removed":
                del running[last]
            case "stopped":
                running[last].stopped = True
            case "off its network":
                running[last].networks = {}
            case "misnamed":
                running[last].name = f"0123456789ab_{running[last].name}"
            case _:
                world.networks.clear()
                for container in running.values():
                    container.stopped = True
        (self.config.paths.state / "simulated.json").write_text(world.model_dump_json())
        self.recover()

    # What always holds

    @invariant()
    def exactly_one_healthy_release_or_safe_mode(self) -> None:
        if not hasattr(self, "config"):
            return
        journal = journals.load(self.config.paths.journal, set_aside=False) or Journal()
        assert journal.phase in RESTING
        assert journal.attempt is None
        seen = links.read(self.config.paths)
        assert seen.next is None
        assert seen.current == (journal.current.release.commit_sha if journal.current else None)
        assert seen.previous == (journal.previous.release.commit_sha if journal.previous else None)
        assert self.config.paths.in_safe_mode.exists() == (journal.safe_mode is not None)
        running = self.world().containers.get(self.config.project, {})
        stopped = journal.safe_mode is not None and not journal.safe_mode.release_runs
        if journal.current is None or stopped:
            assert not running
        else:
            assert journal.current.release.version in GOOD
            runtime = SimulatedRuntime(self.config.paths.state / "simulated.json")
            compose = read_compose(self.config.paths.state / "stacks" / journal.current.key / "compose.json")
            containers = runtime.services(self.config.project)
            differing = differences(compose, self.config.project, containers, runtime.networks())
            # What has done its work is left alone, whatever else is wrong with its container.
            ended_well = self.done() is not None
            for one in differing:
                assert one.service == "migrate" and (one.is_state or ended_well), one
            assert {container.service for container in containers} - {"migrate"} == {"web", "clock"}
            assert ("migrate" in running) == (journal.current.release.version != "good-3")
            assert running["web"].behavior == ""
        found = [row.id for row in rows(self.config)]
        assert len(found) == len(set(found))
        assert all(row.finished_at >= row.started_at for row in rows(self.config))

    # Helpers

    def dependencies(self, dies: int | None) -> Dependencies:
        return Dependencies(clock=self.clock, source=self.source, effects=Mortal(dies))

    def perform(self, action: Callable[[], object], dies: int | None) -> bool:
        """Do it; where it died, recover, dying once more at the same depth first. Whether it died."""
        try:
            action()
            return False
        except Killed:
            with suppress(Killed):
                api.recover(self.config, dependencies=self.dependencies(dies))
            self.recover()
            return True

    def recover(self) -> None:
        # A passing trouble must not keep the next rule from trying.
        self.clock.passed += 7200
        api.recover(self.config, dependencies=self.dependencies(None))

    def relearn(self) -> None:
        """After a death what is remembered depends on where it was: ask."""
        self.bad = self.remembered()

    def remembered(self) -> set[str]:
        """The releases that the device knows to be bad."""
        known = failure_memory.load(self.config.paths.state / "known_bad.json").bad
        by_key = {f"{self.fleet.release(v).commit_sha}.{self.fleet.role}": v for v in (*GOOD, *BAD)}
        return {by_key[key] for key in known}

    def status(self) -> EngineStatus:
        return api.status(self.config)

    def why_in_safe_mode(self) -> str | None:
        journal = journals.load(self.config.paths.journal, set_aside=False)
        return journal.safe_mode.kind if journal and journal.safe_mode else None

    def done(self) -> int | None:
        """Which container of the one-shot service is here: another if it ran again."""
        found = self.world().containers.get(self.config.project, {}).get("migrate")
        return found.id if found is not None and not found.stopped else None

    def running(self, status: EngineStatus) -> str | None:
        return status.current.version if status.current else None

    def world(self) -> World:
        try:
            return World.model_validate_json((self.config.paths.state / "simulated.json").read_bytes())
        except FileNotFoundError:
            return World()

    @contextmanager
    def docker_down(self) -> Iterator[None]:
        file = self.config.paths.state / "simulated.json"
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_text(self.world().model_copy(update={"down": True}).model_dump_json())
        yield
        world = World.model_validate_json(file.read_bytes())
        file.write_text(world.model_copy(update={"down": False}).model_dump_json())


def _fast() -> str | None:
    return "/dev/shm" if Path("/dev/shm").is_dir() else None


TestDevice = Device.TestCase
TestDevice.settings = settings(
    max_examples=amount(5, full=25, soak=300),
    stateful_step_count=40 if SOAK else 20,
    deadline=None,
    suppress_health_check=list(HealthCheck),
    print_blob=True,
    derandomize=False,
)
