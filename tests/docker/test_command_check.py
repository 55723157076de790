"""A command inside a container, against a real engine: its end, its last words, and what has none."""

from __future__ import annotations

import subprocess
from collections.abc import Iterator
from uuid import uuid4

import pytest

from fleet_agent.containers.compose import ComposeRuntime
from fleet_agent.support import processes

pytestmark = pytest.mark.docker


@pytest.fixture(scope="module")
def project() -> Iterator[str]:
    name = f"eng-exec-{uuid4().hex[:8]}"
    labels = {"project": name, "service": "web", "oneoff": "False"}
    flags = [f"--label=com.docker.compose.{key}={value}" for key, value in labels.items()]
    subprocess.run(
        [
            "docker",
            "run",
            "--detach",
            "--rm",
            "--init",
            "--network=none",
            "--name",
            name,
            *flags,
            "busybox:stable",
            "sleep",
            "1000",
        ],
        check=True,
        capture_output=True,
    )
    yield name
    subprocess.run(["docker", "rm", "--force", name], check=True, capture_output=True)


@pytest.mark.parametrize(
    ("script", "code", "says"),
    [
        ("exit 0", 0, ""),
        ("echo one; echo two >&2; exit 3", 3, "one\ntwo\n"),
        ("echo $((40 + 2))", 0, "42\n"),
    ],
)
def test_a_command_that_ends(project: str, script: str, code: int, says: str) -> None:
    done = ComposeRuntime().execute(project, "web", ["sh", "-c", script], 10)
    assert (done.exit_code, sorted(done.output.splitlines())) == (code, sorted(says.splitlines()))


@pytest.mark.parametrize("script", ["sleep 543", "while :; do echo still here; sleep 0.1; done"])
def test_a_command_that_does_not_end_has_failed_and_is_gone(project: str, script: str) -> None:
    """Silent or talking. Docker cannot stop it: left alone, each look would add one to the container."""
    done = ComposeRuntime().execute(project, "web", ["sh", "-c", f"{script}; true"], 0.5)
    assert (done.exit_code, done.output) == (124, "not finished within 0.5 s")
    assert "543" not in _programs(project)
    assert "still here" not in _programs(project)


def test_only_the_end_of_endless_output_is_kept(project: str) -> None:
    done = ComposeRuntime().execute(
        project, "web", ["sh", "-c", "yes | head -c 3000000; echo; echo last"], 60
    )
    assert done.exit_code == 0
    assert len(done.output) == processes.OUTPUT_LIMIT
    assert done.output.endswith("\nlast\n")


def test_a_command_for_a_service_without_a_container(project: str) -> None:
    done = ComposeRuntime().execute(project, "db", ["true"], 10)
    assert (done.exit_code, done.output) == (125, "service db has no container")


def _programs(name: str) -> str:
    return subprocess.run(["docker", "top", name], capture_output=True, text=True, check=True).stdout
