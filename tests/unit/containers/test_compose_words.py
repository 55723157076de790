"""What Docker and Compose say, and which kind the device makes of it."""

from __future__ import annotations

import pytest

from fleet_agent.containers.docker_errors import compose_failed, pull_failed
from fleet_agent.support.processes import CompletedProcess, StoppedError, run
from tests.support.patience import PATIENCE_S


@pytest.mark.parametrize(
    ("said", "kind", "retryable"),
    [
        (
            "Cannot connect to the Docker daemon at unix:///x. Is the docker daemon running?",
            "docker_unavailable",
            True,
        ),
        ("Error response from daemon: write /var/lib/docker/x: no space left on device", "disk_full", True),
        (
            "Bind for 127.0.0.1:80 failed: port is already allocated",
            "port_conflict",
            # Docker's own word for its own ports.
            True,
        ),
        ("Error response from daemon: No such image: app:1", "image_missing", True),
        ('Error response from daemon: exec: "/x": no such file', "compose_failed", False),
    ],
)
def test_compose_failures_have_kinds(said: str, kind: str, retryable: bool) -> None:
    error = compose_failed("start the services", CompletedProcess(1, "", f"noise\n{said}\n"))
    assert (error.kind, error.retryable) == (kind, retryable)
    assert said.rstrip(".") in error.message
    assert error.evidence["exit_code"] == 1


@pytest.mark.parametrize(
    ("said", "kind"),
    [
        ("failed to register layer: write /x: no space left on device", "disk_full"),
        ("manifest unknown", "image_missing"),
        ("pull access denied for app, repository does not exist", "image_missing"),
        ("dial tcp 10.0.0.1:443: connect: connection refused", "registry_unreachable"),
        ("dial tcp: lookup registry.example: no such host", "registry_unreachable"),
        ("net/http: TLS handshake timeout", "registry_unreachable"),
        ('Get "https://registry.example/v2/": EOF', "registry_unreachable"),
        ("received unexpected HTTP status: 503 Service Unavailable", "registry_unreachable"),
        ("toomanyrequests: slow down", "registry_unreachable"),
    ],
)
@pytest.mark.parametrize("damage", [None, "stat /data/overlay2/1: no such file or directory"])
def test_why_an_image_could_not_be_pulled_is_named(said: str, kind: str, damage: str | None) -> None:
    error = pull_failed("app:1", said, damage)
    wanted = kind if damage is None or kind == "disk_full" else "image_damaged"
    assert (error.kind, error.retryable) == (wanted, True)


def test_program_that_hangs_is_killed_with_its_children() -> None:
    with pytest.raises(StoppedError) as hung:
        run(["sh", "-c", "echo started; sleep 300 & sleep 300"], timeout_s=0.3)
    assert hung.value.output == "started\n"


def test_program_gets_only_the_environment_it_is_given() -> None:
    assert run(
        ["env"], timeout_s=PATIENCE_S, environment={"ONLY": "this", "PATH": "/usr/bin:/bin"}
    ).stdout.split() == [
        "ONLY=this",
        "PATH=/usr/bin:/bin",
    ]
