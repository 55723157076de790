"""Each way in which a container can differ from the compose file, one at a time."""

from __future__ import annotations

from typing import Any

import pytest

from fleet_agent.containers.base import Container
from fleet_agent.containers.comparison import differences

COMPOSE: dict[str, Any] = {
    "services": {
        "web": {
            "image": "web:1",
            "networks": {"default": None},
            "ports": [{"target": 80, "published": "8080", "protocol": "tcp"}],
            "volumes": [
                {"type": "volume", "source": "data", "target": "/data"},
                {
                    "type": "bind",
                    "source": "/kept/page",
                    "target": "/page",
                    "bind": {"create_host_path": False},
                },
                {"type": "bind", "source": "/dev/x", "target": "/x"},
            ],
        }
    },
    "networks": {"default": {"name": "p_default"}},
    "volumes": {"data": {"name": "p_data"}},
}
WEB = Container(
    id="1",
    service="web",
    image="web:1",
    state="running",
    name="p-web-1",
    config_hash="h",
    networks={"p_default": "n1"},
    ports=((8080, "tcp"),),
    mounts={"/data": "p_data", "/page": "/kept/page", "/x": "/dev/x"},
)


def _found(*containers: Container, compose: dict[str, Any] | None = None) -> list[str]:
    found = differences(compose or COMPOSE, "p", containers, {"n1"}, hashes={"web": "h"})
    return [difference.phrase for difference in found]


def test_what_is_as_it_should_be_does_not_differ() -> None:
    assert _found(WEB) == []
    # Created and never started, it has no network yet; and the numbers of replicas may have gaps.
    assert _found(WEB.model_copy(update={"networks": {"p_default": ""}})) == []
    assert _found(WEB.model_copy(update={"number": 3, "name": "p-web-3"})) == []


@pytest.mark.parametrize(
    ("change", "phrase"),
    [
        ({"name": "0123_p-web-1"}, "the container p-web-1 is named 0123_p-web-1"),
        ({"image": "web:2"}, "web runs web:2, which is not in the release"),
        ({"networks": {}}, "web is not on the network p_default"),
        ({"networks": {"p_default": "n0"}}, "web is on a network p_default that no longer exists"),
        (
            {"networks": {"p_default": "n1", "foreign": "n1"}},
            "web is on the network foreign, which is not in the release",
        ),
        ({"ports": ()}, "web does not publish port 8080/tcp"),
        ({"mounts": {**WEB.mounts, "/data": "q_data"}}, "web does not mount what the release says at /data"),
        ({"mounts": {**WEB.mounts, "/page": "/other"}}, "web does not mount what the release says at /page"),
        ({"config_hash": "other"}, "web was started with another configuration"),
        ({"state": "exited"}, "web is exited"),
        ({"service": "old", "name": "p-old-1"}, "old is not part of the release"),
    ],
)
def test_each_difference_is_found(change: dict[str, Any], phrase: str) -> None:
    assert phrase in _found(WEB.model_copy(update=change))


@pytest.mark.parametrize(
    ("replicas", "there", "phrases"),
    [
        (0, 0, []),
        (1, 0, ["web has no container"]),
        (3, 2, ["web has 2 of 3 containers"]),
        (3, 3, []),
        (2, 3, ["web has 3 containers, and should have 2"]),
    ],
)
def test_replicas_are_counted(replicas: int, there: int, phrases: list[str]) -> None:
    service = {**COMPOSE["services"]["web"], "deploy": {"replicas": replicas}}
    containers = [WEB.model_copy(update={"number": n, "name": f"p-web-{n}"}) for n in range(1, there + 1)]
    assert _found(*containers, compose={**COMPOSE, "services": {"web": service}}) == phrases
