"""An image is tried by making a container of it: several agents at once, and one that was killed in a try."""

from __future__ import annotations

import subprocess
from concurrent.futures import ThreadPoolExecutor

import docker
import pytest

from fleet_agent.containers.compose import ComposeRuntime
from fleet_agent.containers.docker_images import TRIES

pytestmark = pytest.mark.docker

IMAGE = "busybox:stable"


def test_agents_that_share_an_engine_do_not_see_each_others_tries() -> None:
    """One name for all of them made the second one believe that the image was missing."""

    def look(_: int) -> list[str]:
        return ComposeRuntime().missing_images([IMAGE], thoroughly=True)

    with ThreadPoolExecutor(8) as pool:
        assert list(pool.map(look, range(24))) == [[]] * 24


def test_what_a_killed_try_left_goes_with_the_next() -> None:
    dead = subprocess.Popen(["true"])
    dead.wait()
    client = docker.from_env()
    left = client.api.create_container(IMAGE, ["true"], labels={TRIES: str(dead.pid)})["Id"]
    assert ComposeRuntime().missing_images([IMAGE], thoroughly=True) == []
    with pytest.raises(docker.errors.NotFound):
        client.api.inspect_container(left)


def test_an_image_that_is_not_here_is_missing() -> None:
    assert ComposeRuntime().missing_images(["fleet.invalid/none:1", "NO NAME"], thoroughly=True) == [
        "fleet.invalid/none:1", "NO NAME",
    ]  # fmt: skip
