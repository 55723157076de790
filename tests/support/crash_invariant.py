"""What holds on a device after each crash, whatever happened to it."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from fleet_agent.attempts.outbox import Outbox
from fleet_agent.containers import compose_file
from fleet_agent.containers.comparison import differences
from fleet_agent.containers.simulated import LABEL, SimulatedRuntime, World
from fleet_agent.engine import journal as journals
from fleet_agent.engine import links
from fleet_agent.engine.config import EngineConfig
from fleet_agent.engine.dependencies import Direct
from fleet_agent.engine.journal import AttemptKind, Journal
from fleet_agent.engine.phases import RESTING
from fleet_agent.engine.stack_store import StackStore, read_compose
from fleet_agent.engine.state_files import StateFiles
from fleet_agent.model import Outcome, ReportState
from tests.support.crash_scenarios import Scenario, version_of
from tests.support.engine_harness import Fleet


@dataclass(frozen=True)
class Invariant:
    """Of one scenario; `rows_before` are in the outbox before what is killed begins."""

    fleet: Fleet
    scenario: Scenario
    rows_before: int

    def look(self, root: Path, at_kill: Journal | None) -> str:
        """Exactly one healthy release, links and journal agreeing, the attempt exactly once."""
        return "; ".join(self._complaints(root, at_kill))

    def _complaints(self, root: Path, at_kill: Journal | None) -> Iterator[str]:
        config = self.fleet.config(root)
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
            # What others wait for has ended well.
            if not (found.is_state and found.service in compose_file.awaited(compose)):
                yield found.phrase
        for name, service in wanted.items():
            if name in running and running[name].config_hash != running[name].fingerprint(service):
                yield f"{name} is not the one of {ended}"
            if service.get("labels", {}).get(LABEL) not in (None, "", "done"):
                yield f"{name} is not healthy"
        if not (config.paths.release(journal.current.release.commit_sha) / "release.json").exists():
            yield "the release's folder is gone"

    def _wrong_rows(self, config: EngineConfig, journal: Journal, at_kill: Journal | None) -> Iterator[str]:
        found = Outbox(config.paths.outbox).pending()
        ids = [row.id for row in found]
        if len(set(ids)) != len(ids):
            yield "a row twice"
        attempts = len(found) - self.rows_before
        in_hand = at_kill.attempt if at_kill is not None else None
        # One that came to nothing may leave no row in these.
        quiet = in_hand is not None and in_hand.kind in (AttemptKind.PREFETCH, AttemptKind.COME_BACK)
        if in_hand is not None and not quiet and in_hand.id not in ids:
            yield f"the attempt {in_hand.id} has no row"
        if self.scenario.action.startswith("ahead:") and any(
            row.outcome is not Outcome.SKIPPED or not row.evidence.get("prefetching")
            for row in found[self.rows_before :]
        ):
            yield "a row that is none of prefetching"
        if attempts > 1:
            yield f"{attempts} rows of one attempt"
        changed = journal.state is ReportState.ROLLED_BACK or (
            journal.current is not None
            and journal.current.release.version == version_of(self.scenario.action)
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
