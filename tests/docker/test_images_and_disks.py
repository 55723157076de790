"""Images that cannot be had or are damaged, disks that are full, for real: what runs stays as it is."""

from __future__ import annotations

import json
import shutil
import subprocess
from collections.abc import Iterator
from pathlib import Path
from random import Random

import pytest

from fleet_agent.containers.compose import ComposeRuntime
from fleet_agent.engine import api
from fleet_agent.engine.config import EngineConfig
from fleet_agent.engine.dependencies import Dependencies, SystemClock
from fleet_agent.errors import Kind
from fleet_agent.model import EngineStatus, Outcome, Release, ReportState
from fleet_agent.support.sizes import MIB
from tests.support.engine_harness import Fleet, rows
from tests.support.own_docker import OwnDocker, own_docker
from tests.support.own_project import own
from tests.support.registry import Registry, base_layer, layer

pytestmark = pytest.mark.docker

#: Of the file system below the Docker of these tests, and of the one below the agent.
DOCKER_MIB, AGENT_MIB = 64, 12
ROLE = """\
description: One service.
health: {grace_s: 0.5, successes: 2, interval_s: 0.2, watch_s: 0.3, deadline_s: 30, failure_budget: 1}
"""
COMPOSE = """\
services:
  web: {image: "%s", init: true, command: [sleep, "1000000"], stop_grace_period: 1s, labels: {v: "%s"}}
"""


class Impatient(SystemClock):
    """Sleeps a hundredth of what it should: only tries are waited for here."""

    def sleep(self, seconds: float) -> None:
        super().sleep(seconds / 100)


class Device:
    """Agent and Docker each on a small file system; running a release of `busybox:stable`."""

    def __init__(self, root: Path, fleet: Fleet, docker: OwnDocker, registry: Registry) -> None:
        self.fleet, self.docker, self.registry = fleet, docker, registry
        self.config: EngineConfig = fleet.config(
            root, runtime="docker", project=own("images"), safe_mode_after=100, docker_patience_s=1.0,
            min_free_bytes=4096, critical_free_bytes=0,
        )  # fmt: skip
        self.base = base_layer("busybox:stable")
        self.count = 0

    def release(self, image: str, **files: str) -> Release:
        self.count += 1
        edits = {"role.yaml": ROLE, "compose.yaml": COMPOSE % (image, self.count), **files}
        return self.fleet.release(f"r{self.count}", edits=edits)

    def update(self, release: Release, *, operator_requested: bool = False) -> EngineStatus:
        directive = self.fleet.directive(release)
        return api.converge(
            self.config,
            directive,
            operator_requested=operator_requested,
            dependencies=Dependencies(clock=Impatient()),
        )

    def good(self) -> Release:
        """The release that runs, made where there is none."""
        found = api.status(self.config)
        if found.current is None:
            found = self.update(self.release("busybox:stable"))
            assert found.state is ReportState.HEALTHY, found
        assert found.current is not None
        return found.current

    def refuses(self, release: Release, kind: Kind, phase: str) -> str:
        """Offer it: it must fail as told and leave what runs as it is. Returns the sentence."""
        good, before = self.good(), self.containers()
        status = self.update(release)
        row = rows(self.config)[-1]
        assert (row.outcome, row.error_kind, row.failed_phase) == (Outcome.FAILED, kind, phase), row
        assert (status.phase, status.current) == ("steady", good)
        assert self.containers() == before
        return row.error or ""

    def containers(self) -> dict[str, tuple[str, str]]:
        return {c.service: (c.id, c.state) for c in ComposeRuntime().services(self.config.project)}

    def top_of(self, image: str) -> Path:
        """Where the upper layer of an image lies."""
        said = self.docker.docker("image", "inspect", image).stdout
        return Path(json.loads(said)[0]["GraphDriver"]["Data"]["UpperDir"])


@pytest.fixture(scope="module")
def device(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Device]:
    folder = tmp_path_factory.mktemp("images")
    disk = folder / "disk"
    registry = Registry()
    with own_docker(DOCKER_MIB) as docker:
        disk.mkdir()
        subprocess.run(["mount", "-t", "tmpfs", "-o", f"size={AGENT_MIB}m", "tmpfs", str(disk)], check=True)
        try:
            yield Device(disk / "device", Fleet(folder / "repo"), docker, registry)
        finally:
            subprocess.run(["umount", "--lazy", str(disk)], check=True)
            registry.down()


@pytest.fixture(autouse=True)
def registry_is_up(device: Device) -> Iterator[None]:
    device.good()
    yield
    device.registry.answer_all = None
    device.registry.down()
    device.registry.up()


def noise(mib: int, seed: int) -> bytes:
    """Nothing that can be packed smaller."""
    return Random(seed).randbytes(mib * MIB)


def test_image_that_its_registry_lacks(device: Device) -> None:
    image = device.registry.name("nobody-pushed-it")
    said = device.refuses(device.release(image), Kind.IMAGE_MISSING, "pulling")
    assert said.startswith(f"{image} is not on this device and cannot be pulled: ")


@pytest.mark.parametrize("status", [None, 503, 429], ids=["refuses", "503", "429"])
def test_registry_that_is_down_and_comes_back(device: Device, status: int | None) -> None:
    image = device.registry.put(f"later-{status or 'down'}", device.base)
    device.registry.answer_all = status
    if status is None:
        device.registry.down()
    release = device.release(image)
    said = device.refuses(release, Kind.REGISTRY_UNREACHABLE, "pulling")
    assert said.startswith(f"{image} is not on this device and its registry does not answer: ")
    device.registry.answer_all = None
    if status is None:
        device.registry.up()
    # Not held against the release.
    assert device.update(release, operator_requested=True).current == release


def test_disk_that_fills_up_while_an_image_is_loaded(device: Device) -> None:
    big = device.registry.put("big", device.base, layer("big", noise(DOCKER_MIB + 16, 1)))
    release = device.release(big)
    said = device.refuses(release, Kind.DISK_FULL, "pulling")
    assert said == f"Not enough disk space: cannot load {big}."
    # What came of it is gone: what fits still comes here.
    half = device.registry.put("half", device.base, layer("half", noise(DOCKER_MIB // 3, 2)))
    release = device.release(half)
    assert device.update(release).current == release


def test_disk_that_fills_up_during_the_fetch(device: Device) -> None:
    image = device.registry.put("plain", device.base)
    words = Random(3)
    big = "".join(chr(words.randrange(32, 127)) for _ in range(AGENT_MIB * MIB * 3 // 2))
    said = device.refuses(device.release(image, **{"page/big": big}), Kind.DISK_FULL, "fetching")
    assert said == "Not enough disk space: the disk filled up while a release was fetched."
    release = device.release(image, **{"page/big": "small"})
    assert device.update(release).current == release


def test_damaged_layer_is_fetched_again(device: Device) -> None:
    image = device.registry.put("torn", device.base, layer("f", b"torn"))
    device.docker.docker("pull", image)
    shutil.rmtree(device.top_of(image).parent)
    release = device.release(image)
    assert device.update(release).current == release


def test_damaged_index_entry_is_fetched_again(device: Device) -> None:
    image = device.registry.put("cut", device.base, layer("f", b"cut"))
    device.docker.docker("pull", image)
    said = device.docker.docker("image", "inspect", "--format", "{{.Id}}", image).stdout.decode()
    entry = device.docker.data / "image/overlay2/imagedb/content/sha256" / said.strip().partition(":")[2]
    entry.write_bytes(b"")
    release = device.release(image)
    assert device.update(release).current == release


def test_damaged_image_that_cannot_be_replaced(device: Device) -> None:
    image = device.registry.put("lost", device.base, layer("f", b"lost"))
    device.docker.docker("pull", image)
    shutil.rmtree(device.top_of(image).parent)
    device.registry.down()
    release = device.release(image)
    said = device.refuses(release, Kind.IMAGE_DAMAGED, "pulling")
    assert said.startswith(f"{image} is damaged on this device and could not be replaced: ")
    device.registry.up()
    assert device.update(release, operator_requested=True).current == release


def test_damaged_layer_that_a_running_container_holds(device: Device) -> None:
    """Docker keeps what is in use, so fetching it again changes nothing: said, and what runs goes on."""
    held = device.registry.put("held", device.base, layer("held", b"held"))
    running = device.release(held)
    assert device.update(running).current == running
    image = device.registry.put("above", device.base, layer("held", b"held"), layer("f", b"above"))
    device.docker.docker("pull", image)
    layer_folder = device.top_of(held).parent
    kept = layer_folder.with_name("kept")
    layer_folder.rename(kept)
    try:
        said = device.refuses(device.release(image), Kind.IMAGE_DAMAGED, "pulling")
    finally:
        shutil.rmtree(layer_folder, ignore_errors=True)
        kept.rename(layer_folder)
    assert said.startswith(f"{image} is damaged on this device and could not be replaced: ")
