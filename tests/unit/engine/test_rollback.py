"""Going back: to a release that is proven again, with the evidence, and what follows where that fails too."""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence
from datetime import datetime
from pathlib import Path
from typing import TypeVar

import pytest

from fleet_agent.containers.base import CommandResult, ComposeStack, Container, LogLine
from fleet_agent.containers.simulated import SimulatedRuntime
from fleet_agent.engine import api
from fleet_agent.engine import journal as journals
from fleet_agent.engine.dependencies import Dependencies, Direct
from fleet_agent.errors import Kind, StateError
from fleet_agent.model import Action, Directive, EngineStatus, Outcome, ReportState
from tests.support.engine_harness import COMPOSE_YAML, ROLE_YAML, FakeClock, Fleet, rows

T = TypeVar("T")


class Spoilt(SimulatedRuntime):
    """From the third `up` on (the way back) what is started behaves as `then` says."""

    ups = 0
    then = "crash"

    def up(self, stack: ComposeStack) -> None:
        super().up(stack)
        self.ups += 1
        if self.ups >= 3:
            world = json.loads(self._file.read_text())
            for container in world["containers"][stack.project].values():
                container["behavior"] = self.then
            self._file.write_text(json.dumps(world))


@pytest.mark.parametrize(
    ("then", "why"), [("crash", "Clock exited with code 1"), ("unhealthy", "Clock is unhealthy")]
)
def test_previous_release_that_is_not_well_either_is_safe_mode(
    fleet: Fleet, root: Path, then: str, why: str
) -> None:
    config, v1 = fleet.config(root), fleet.release("v1")
    runtime = Spoilt(root / "state" / "simulated.json")
    runtime.then = then
    dependencies = Dependencies(clock=FakeClock(), runtime=runtime)
    api.converge(config, fleet.directive(v1), dependencies=dependencies)
    status = api.converge(
        config, fleet.directive(fleet.release("bad-crash", "crash")), dependencies=dependencies
    )
    assert (status.state, status.phase, status.current) == (ReportState.SAFE_MODE, "safe_mode", v1)
    assert status.reason == (
        f"Safe mode: the previous release did not come back: {why}. "
        "bad-crash failed in probation: Web exited with code 1. v1 will be tried again at 12:00 UTC."
    )
    assert status.services == ()
    assert not config.paths.next.is_symlink()
    assert [row.outcome for row in rows(config)] == [Outcome.SUCCEEDED, Outcome.FAILED]


class Chatty(SimulatedRuntime):
    """Every container said more than is kept, and how they ended is known."""

    def logs(self, project: str, *, lines: int, since: datetime | None = None) -> list[LogLine]:
        del since
        services = [container.service for container in self.services(project)]
        # The one that fails is listed first, so it would be cut away first.
        services.sort(key=lambda service: service != "web")
        return [LogLine(service, f"line {n}") for service in services for n in range(lines)]


def test_a_rollback_names_the_last_lines_and_exit_codes_of_who_failed(fleet: Fleet, root: Path) -> None:
    """Also with more services than there is room for lines."""
    config = fleet.config(root)
    more = "".join(f"  s{n}: {{image: 'busybox:stable', init: true}}\n" for n in range(8))
    dependencies = Dependencies(clock=FakeClock(), runtime=Chatty(root / "state" / "simulated.json"))
    v1 = fleet.release("v1-many", edits={"compose.yaml": COMPOSE_YAML.format(behavior="") + more})
    bad = fleet.release("bad-many", edits={"compose.yaml": COMPOSE_YAML.format(behavior="crash") + more})
    api.converge(config, fleet.directive(v1), dependencies=dependencies)
    status = api.converge(config, fleet.directive(bad), dependencies=dependencies)
    assert status.reason == "Went back to v1-many. bad-many failed in probation: Web exited with code 1."
    evidence = rows(config)[-1].evidence
    assert evidence["log"][-8:] == [f"web: line {n}" for n in range(8)]
    assert len(evidence["log"]) == 40
    assert {"service": "web", "state": "exited", "exit_code": 1}.items() <= next(
        container for container in evidence["containers"] if container["service"] == "web"
    ).items()


class EndsWhenAsked(SimulatedRuntime):
    """The second time that its command is run, `web` ends under it."""

    asked = 0

    def up(self, stack: ComposeStack) -> None:
        super().up(stack)
        self.asked = 0

    def execute(self, project: str, service: str, command: Sequence[str], timeout_s: float) -> CommandResult:
        self.asked += 1
        if self.ends:
            return CommandResult(1, "the other side has gone")
        return super().execute(project, service, command, timeout_s)

    @property
    def ends(self) -> bool:
        return self.asked > 1 and "crash" in self._file.read_text()

    def services(self, project: str) -> tuple[Container, ...]:
        found = super().services(project)
        return tuple(
            c.model_copy(update={"state": "exited", "exit_code": 4})
            if self.ends and c.service == "web"
            else c
            for c in found
        )


def test_a_container_that_ends_while_the_others_are_asked_is_the_reason(fleet: Fleet, root: Path) -> None:
    config = fleet.config(root)
    dependencies = Dependencies(clock=FakeClock(), runtime=EndsWhenAsked(root / "state" / "simulated.json"))
    strict = ROLE_YAML.replace("grace_s: 2", "grace_s: 0").replace("failure_budget: 1", "failure_budget: 0")
    role = strict + "  checks: [{kind: command, service: web, command: [ask]}]\n"
    v1 = fleet.release("v1-asked", edits={"role.yaml": role})
    bad = fleet.release("bad-asked", "crash-later=99", edits={"role.yaml": role})
    api.converge(config, fleet.directive(v1), dependencies=dependencies)
    status = api.converge(config, fleet.directive(bad), dependencies=dependencies)
    assert (status.state, status.current) == (ReportState.ROLLED_BACK, v1)
    assert rows(config)[-1].error_kind == Kind.CONTAINER_EXITED
    assert status.reason == "Went back to v1-asked. bad-asked failed in probation: Web exited with code 4."


class Forgets(SimulatedRuntime):
    """A fault of the agent's own: once the new release is found ill, no look works any more."""

    def services(self, project: str) -> tuple[Container, ...]:
        found = super().services(project)
        # The way back: the links say so already.
        root = self._file.parent.parent
        journal = journals.load(root / "state" / "journal.json")
        if journal is not None and journal.phase == "rolling_back":
            raise KeyError("Names")
        return found


def test_a_fault_of_our_own_on_the_way_back_does_not_last_for_ever(fleet: Fleet, root: Path) -> None:
    """Each start would meet it again, and no fix would be taken: after three, safe mode is the way out."""
    config, v2 = fleet.config(root), fleet.release("v2")
    runtime = Forgets(root / "state" / "simulated.json")
    dependencies = Dependencies(clock=FakeClock(), runtime=runtime)
    fleet.on_v1(config, dependencies)
    bad = fleet.directive(fleet.release("bad-crash", "crash"))
    starts: list[Callable[[], EngineStatus]] = [
        lambda: api.converge(config, bad, dependencies=dependencies),
        lambda: api.recover(config, dependencies=dependencies),
    ]
    for start in starts:
        with pytest.raises(StateError) as fault:
            start()
        assert fault.value.kind is Kind.INTERNAL
        assert api.status(config).phase == "rolling_back"
    status = api.recover(config, dependencies=dependencies)
    assert (status.state, status.phase) == (ReportState.SAFE_MODE, "safe_mode")
    assert "going back failed 3 times: Internal error: KeyError while rolling_back." in status.reason
    assert not config.paths.next.is_symlink()
    row = rows(config)[-1]
    # What went wrong first is what is told.
    assert (row.outcome, row.error_kind, row.failed_phase) == (
        Outcome.FAILED,
        "container_exited",
        "probation",
    )
    assert api.converge(config, fleet.directive(v2), dependencies=dependencies).current == v2


class Later(Direct):
    """A newer directive that arrives once the links lead to the new release."""

    def __init__(self, directive: Directive) -> None:
        self._directive, self._there = directive, False

    def perform(self, name: str, action: Callable[[], T]) -> T:
        done = action()
        # The first release's link is made before anybody listens.
        self._there = self._there or name == "link app_current"
        return done

    def __call__(self) -> Directive | None:
        return self._directive if self._there else None


@pytest.mark.parametrize("behavior", ["", "crash"])
@pytest.mark.parametrize("wish", ["halt", "suspension", "pin to what ran", "newer release"])
def test_a_wish_that_arrives_after_the_swap_waits_for_the_end_of_the_attempt(
    fleet: Fleet, root: Path, wish: str, behavior: str
) -> None:
    """Half way is the worst place. Afterwards it is followed, in the same run."""
    config, v1, v3 = fleet.config(root), fleet.release("v1"), fleet.release("v3")
    v2 = fleet.release(f"v2{behavior}", behavior)
    clock = FakeClock()
    fleet.on_v1(config, Dependencies(clock=clock))
    newer = {
        "halt": fleet.directive(None, Action.RUN),
        "suspension": fleet.directive(None, Action.HOLD),
        "pin to what ran": fleet.directive(v1),
        "newer release": fleet.directive(v3),
    }[wish]
    later = Later(newer)
    status = api.converge(
        config, fleet.directive(v2), dependencies=Dependencies(clock=clock, effects=later, newest=later)
    )
    ended = v1 if behavior else v2
    expected = {"pin to what ran": v1, "newer release": v3}.get(wish, ended)
    assert (status.phase, status.current) == ("steady", expected)
    outcomes = [row.outcome for row in rows(config)]
    assert outcomes[1] is (Outcome.ROLLED_BACK if behavior else Outcome.SUCCEEDED)
    assert len(outcomes) == (3 if expected not in (ended,) else 2)


def test_what_an_operator_asked_for_is_not_asked_of_a_newer_release(fleet: Fleet, root: Path) -> None:
    """`update_now` tries again what failed here; what arrives meanwhile is no order."""
    config, v1, v2 = fleet.config(root), fleet.release("v1"), fleet.release("v2")
    bad, clock = fleet.release("bad-crash", "crash"), FakeClock()
    fleet.on_v1(config, Dependencies(clock=clock))
    api.converge(config, fleet.directive(bad), dependencies=Dependencies(clock=clock))
    newest = fleet.directive(bad)
    dependencies = Dependencies(clock=clock, newest=lambda: newest)
    assert (
        api.converge(config, fleet.directive(v2), operator_requested=True, dependencies=dependencies).current
        == v1
    )
    assert [row.outcome for row in rows(config)] == [
        Outcome.SUCCEEDED, Outcome.ROLLED_BACK, Outcome.SKIPPED,
    ]  # fmt: skip
