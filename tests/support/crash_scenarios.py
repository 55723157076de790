"""What the crash lab kills: kinds of move, the releases in them, and what happens to Compose meanwhile."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import TypeVar

from fleet_agent.engine.dependencies import Direct, Effects
from fleet_agent.errors import ContainerError, Kind
from tests.support.engine_harness import COMPOSE_YAML

T = TypeVar("T")


@dataclass(frozen=True)
class Scenario:
    """`before` is converged to in peace, one after the other; then `action` is what gets killed.

    `ahead:v3` prefetches v3 and leaves the device on what it runs; while it moves to `killed:v3` Compose is
    killed twice, and to `hung:v3` it hangs once. `ends` are the versions that may run at the end (None: no
    release, so safe mode).
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
        Scenario("one-shot", ("once-1",), "once-2", ("once-1", "once-2")),
        Scenario("compose-killed", ("v1",), "killed:networked", ("v1", "networked")),
        Scenario("compose-hangs", ("once-1",), "hung:v2", ("once-1", "v2")),
        Scenario("come-back", ("v1", "stranded"), "come-back", (None, "v1")),
        Scenario("leave-safe-mode", ("v1", "enter_safe_mode"), "leave_safe_mode", (None, "v1")),
    )
}

BEHAVIOR = {"crashes": "crash-later=2"}
SUBNET = "networks: {default: {ipam: {config: [{subnet: 10.217.1.0/24}]}}}\n"
ONCE = (
    COMPOSE_YAML.format(behavior="")
    + """\
    depends_on: {migrate: {condition: service_completed_successfully}}
  migrate:
    image: busybox:stable
    command: [migrate, "%s"]
    labels: {fleet.simulate: done}
"""
)
EDITS = {
    "refuses": {"validate": "#!/bin/sh\nexit 1\n"},
    "once-1": {"compose.yaml": ONCE % "a"},
    "once-2": {"compose.yaml": ONCE % "b"},
    "networked": {"compose.yaml": COMPOSE_YAML.format(behavior="") + "    deploy: {replicas: 3}\n" + SUBNET},
}


class KillsCompose(Direct):
    """Compose is killed whenever it starts something, once something was given up."""

    given_up = False

    def perform(self, name: str, action: Callable[[], T]) -> T:
        self.given_up = self.given_up or name == "docker logs"
        if name == "compose up" and self.given_up:
            raise ContainerError(Kind.COMPOSE_KILLED, "Compose was killed (signal 9).", retryable=True)
        return action()


class FailsFirst:
    """The first times that Compose starts something it is killed, or it hangs."""

    def __init__(self, effects: Effects, kind: Kind, times: int) -> None:
        self._effects, self._kind, self._left = effects, kind, times

    def perform(self, name: str, action: Callable[[], T]) -> T:
        if name == "compose up" and self._left:
            self._left -= 1
            raise ContainerError(self._kind, "Compose did not end by itself.", retryable=True)
        return self._effects.perform(name, action)


def version_of(what: str) -> str:
    """The version in `ahead:v3`, `killed:v3`, `hung:v3`."""
    return what.rpartition(":")[2]


def failing(what: str, effects: Effects) -> Effects:
    """`effects`, with what is to happen to Compose in `what`."""
    match what.partition(":")[0]:
        case "killed":
            return FailsFirst(effects, Kind.COMPOSE_KILLED, 2)
        case "hung":
            return FailsFirst(effects, Kind.COMPOSE_HUNG, 1)
        case _:
            return effects
