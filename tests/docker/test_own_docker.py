"""The tests' own Docker engine leaves the machine's one as it found it."""

from __future__ import annotations

import signal
import subprocess

import pytest

from tests.support.own_docker import IMAGE, own_docker

pytestmark = pytest.mark.docker


def test_machines_engine_still_connects_containers_beside_and_after_one_of_the_tests_own() -> None:
    """An engine may delete `docker0` as it starts or starts again: then no container does."""
    with own_docker() as docker:
        docker.docker("network", "create", "own")
        docker.docker("run", "--detach", "--network", "own", IMAGE, "sleep", "60")
        docker.restart(by=signal.SIGKILL)
        beside = subprocess.run(
            ["docker", "--host", "unix:///var/run/docker.sock", "run", "--rm", IMAGE, "true"],
            capture_output=True,
            text=True,
            check=False,
        )
    after = subprocess.run(
        ["docker", "run", "--rm", IMAGE, "true"], capture_output=True, text=True, check=False
    )
    assert (beside.returncode, after.returncode) == (0, 0), beside.stderr + after.stderr
