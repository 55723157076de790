"""What the demo takes away after a device that runs real containers."""

from __future__ import annotations

import secrets
import subprocess

import pytest

from fleetctl.demo.docker import remove_project

pytestmark = pytest.mark.docker


@pytest.mark.parametrize("suffix", ["", "-safe"])
def test_containers_of_a_device_and_of_its_safe_mode_are_removed(suffix: str) -> None:
    """Safe mode is a Compose project of its own: it stayed behind, with its port, when a demo was cut off."""
    project = f"fleet-{secrets.token_hex(4)}"
    label = f"com.docker.compose.project={project}{suffix}"
    subprocess.run(
        ["docker", "run", "-d", "--label", label, "busybox:stable", "sleep", "60"],
        capture_output=True, check=True,
    )  # fmt: skip
    remove_project(project)
    left = subprocess.run(
        ["docker", "ps", "-aq", "--filter", f"label={label}"], capture_output=True, text=True, check=True
    )
    assert left.stdout == ""
