"""What can go wrong on a device: break it for real, then check how it ended.

A new scenario is a new file here, or a new line in `bad_releases` if the release itself is what is broken.
"""

from __future__ import annotations

from fleetctl.demo.faults.scenarios import (
    bad_releases,
    compose_hangs,
    disk_full,
    docker_away,
    first_release,
    image_missing,
    kill,
    port_conflict,
)

#: In the order in which they run.
SCENARIOS = (
    bad_releases.NO_START,
    bad_releases.CRASH,
    bad_releases.CRASH_LATE,
    bad_releases.HTTP_ERRORS,
    bad_releases.CONFIG_ERROR,
    bad_releases.VARIABLE_MISSING,
    port_conflict.SCENARIO,
    image_missing.SCENARIO,
    bad_releases.REGISTRY_DOWN,
    disk_full.SCENARIO,
    compose_hangs.SCENARIO,
    docker_away.SCENARIO,
    bad_releases.IGNORES_TERM,
    kill.SCENARIO,
    first_release.SCENARIO,
)

#: What would do more to a machine than a demo may, and the tests that do it.
ELSEWHERE = {
    "the disk fills up while an image is loaded": "tests/docker/test_images_and_disks.py",
    "an image is damaged on the device": "tests/docker/test_images_and_disks.py",
    "Docker is restarted during an update": "tests/docker/test_docker_restarts.py",
    "the machine loses power": "tests/docker/test_systemd.py, tests/faults",
}
