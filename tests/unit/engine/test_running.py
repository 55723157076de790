"""What runs differs from the release: it is repaired once, and reported if that does not help."""

from __future__ import annotations

from pathlib import Path

from fleet_agent.containers.base import ComposeStack
from fleet_agent.containers.simulated import SimulatedRuntime, World
from fleet_agent.engine import api
from fleet_agent.engine.dependencies import Dependencies
from fleet_agent.model import ReportState
from tests.support.engine_harness import COMPOSE_YAML, FakeClock, Fleet


class Stubborn(SimulatedRuntime):
    """Names a container wrongly, however often it is made."""

    recreated = 0
    stubborn = False

    def up(self, stack: ComposeStack) -> None:
        super().up(stack)
        self._misname(stack)

    def recreate(self, stack: ComposeStack, services: object) -> None:
        assert list(services) == ["clock"]  # type: ignore[call-overload]
        super().recreate(stack, ["clock"])
        self.recreated += 1
        self._misname(stack)

    def _misname(self, stack: ComposeStack) -> None:
        if self.stubborn:
            world = World.model_validate_json(self._file.read_bytes())
            world.containers[stack.project]["clock"].name = "0123_clock"
            self._file.write_text(world.model_dump_json())


def test_what_recreating_does_not_help_is_reported_and_left_alone(fleet: Fleet, root: Path) -> None:
    config = fleet.config(root)
    runtime = Stubborn(root / "state" / "simulated.json")
    dependencies = Dependencies(clock=FakeClock(), runtime=runtime)
    assert api.converge(config, fleet.directive(fleet.release("v1")), dependencies=dependencies).state == (
        ReportState.HEALTHY
    )
    runtime.stubborn = True
    runtime._misname(ComposeStack(config.project, root))
    status = api.recover(config, dependencies=dependencies)
    assert (status.state, status.error) == (
        ReportState.DEGRADED,
        "The container fleet-clock-1 is named 0123_clock, and recreating it did not help.",
    )
    before = runtime.recreated
    assert api.recover(config, dependencies=dependencies).state is ReportState.DEGRADED
    assert runtime.recreated == before
    runtime.stubborn = False
    runtime.recreate(ComposeStack(config.project, _compose(root)), ["clock"])
    assert api.recover(config, dependencies=dependencies).state is ReportState.HEALTHY
    assert api.drift(config) == []


def _compose(root: Path) -> Path:
    (file,) = root.glob("state/stacks/*/compose.json")
    return file


def test_only_the_replica_that_differs_is_replaced(fleet: Fleet, root: Path) -> None:
    config = fleet.config(root)
    dependencies = Dependencies(clock=FakeClock())
    compose = COMPOSE_YAML.format(behavior="") + "    deploy: {replicas: 3}\n"
    release = fleet.release("replicas-3", edits={"compose.yaml": compose})
    api.converge(config, fleet.directive(release), dependencies=dependencies)
    file = root / "state" / "simulated.json"
    before = {one.name: one.id for one in SimulatedRuntime(file).services(config.project)}
    world = World.model_validate_json(file.read_bytes())
    world.containers[config.project]["clock#2"].networks = {}
    file.write_text(world.model_dump_json())
    assert api.recover(config, dependencies=dependencies).state is ReportState.HEALTHY
    after = {one.name: one.id for one in SimulatedRuntime(file).services(config.project)}
    assert {name for name in after if after[name] != before.get(name)} == {"fleet-clock-2"}
    assert api.drift(config) == []
