"""Another runtime is another device: refused while anything of the old one is left."""

from __future__ import annotations

from pathlib import Path

import pytest

from fleet_agent.engine import api
from fleet_agent.engine.dependencies import Dependencies
from fleet_agent.errors import ConfigError, Kind
from fleet_agent.model import ReportState
from tests.support.engine_harness import FakeClock, Fleet


def test_another_runtime_is_refused_while_the_old_one_has_containers(fleet: Fleet, root: Path) -> None:
    config, dependencies = fleet.config(root), Dependencies(clock=FakeClock())
    v2 = fleet.release("v2")
    fleet.on_v1(config, dependencies)
    world = (root / "state" / "simulated.json").read_bytes()
    changed = config.model_copy(update={"runtime": "docker"})
    for converges in (True, False):
        with pytest.raises(ConfigError) as refused:
            if converges:
                api.converge(changed, fleet.directive(v2), dependencies=dependencies)
            else:
                api.recover(changed, dependencies=dependencies)
        assert refused.value.kind is Kind.CONFIG_INVALID
        assert refused.value.message == (
            "The runtime docker is not valid: this device still has the container fleet-clock-1 and the "
            "container fleet-web-1 in the runtime simulated, and docker would start another."
        )
        assert f"remove {root}/state/simulated.json, and start the agent again" in refused.value.hint
    assert (root / "state" / "simulated.json").read_bytes() == world
    # "auto" is the runtime that was chosen before.
    auto = config.model_copy(update={"runtime": "auto"})
    assert api.converge(auto, fleet.directive(v2), dependencies=dependencies).state is ReportState.HEALTHY
