"""What a role mounts: never taken away under a running container, and a link means what it leads to."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from fleet_agent.containers.compose import ComposeRuntime
from fleet_agent.engine import api
from fleet_agent.engine.config import EngineConfig
from fleet_agent.model import EngineStatus, Outcome, ReportState
from tests.support.engine_harness import Fleet, rows
from tests.support.own_project import own

pytestmark = pytest.mark.docker

PROJECT = own("mounts")
ROLE = """\
description: Mounts files and folders.
health: {grace_s: 1, successes: 2, interval_s: 0.3, watch_s: 0.5, deadline_s: 15, failure_budget: 1}
"""
SERVICE = """\
  {name}:
    image: busybox:stable
    command: {command}
    init: true
    stop_grace_period: 1s
    volumes: [{volumes}]
"""
IDLE = "[sleep, '1000000']"
SERVICES = {
    "app": (IDLE, "'./config:/config'"),
    "broker": ("[sh, -c, 'chmod -R 700 /config; exec sleep 100000']", "'./config:/config'"),
    "web": (IDLE, "'./site:/site:ro'"),
    "reader": (IDLE, "'./app.conf:/app.conf:ro'"),
    "changing": (IDLE, ""),
}
COMPOSE = "services:\n" + "".join(
    SERVICE.format(name=name, command=command, volumes=volumes)
    for name, (command, volumes) in SERVICES.items()
)
FILES = {
    "role.yaml": ROLE,
    "config/app.conf": "setting\n",
    "sites/prod/index.html": "one\n",
    "conf/prod.conf": "one\n",
}
LINKS = {"site": "sites/prod", "app.conf": "conf/prod.conf"}


class Device:
    def __init__(self, folder: Path) -> None:
        self.fleet = Fleet(folder / "repo")
        self.config: EngineConfig = self.fleet.config(
            folder / "device", runtime="docker", project=PROJECT, safe_mode_after=100
        )
        self.count = 0

    def to(self, files: dict[str, str] | None = None, *, links: dict[str, str] | None = None) -> EngineStatus:
        """A release that differs in `changing`, and in these files and links."""
        self.count += 1
        role = self.fleet.repo.path / "roles" / self.fleet.role
        role.mkdir(parents=True, exist_ok=True)
        for name, target in {**LINKS, **(links or {})}.items():
            (role / name).unlink(missing_ok=True)
            (role / name).symlink_to(target)
        edits = {
            **FILES,
            "compose.yaml": COMPOSE + f"    environment: {{V: '{self.count}'}}\n",
            **(files or {}),
        }
        release = self.fleet.release(f"r{self.count}", edits=edits)
        return api.converge(self.config, self.fleet.directive(release))

    def read(self, service: str, file: str) -> str:
        return self.run(service, f"cat {file}")

    def run(self, service: str, command: str) -> str:
        done = ComposeRuntime().execute(PROJECT, service, ["sh", "-c", command], 10)
        return done.output.strip()

    @property
    def ids(self) -> dict[str, str]:
        return {c.service: c.id for c in ComposeRuntime().services(PROJECT)}


@pytest.fixture(scope="module")
def device(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Device]:
    found = Device(tmp_path_factory.mktemp("mounts"))
    status = found.to()
    assert status.state is ReportState.HEALTHY, status
    yield found
    runtime = ComposeRuntime()
    runtime.down(found.config.project)
    runtime.down(found.config.safe_project)


def test_what_a_service_wrote_survives_a_release_that_leaves_it_alone(device: Device) -> None:
    """Also what it changed, and modes; and a link to a folder is not emptied."""
    before = device.ids
    device.run("app", "echo mine > /config/state; echo edited > /config/app.conf")
    status = device.to()
    assert (status.state, device.ids["app"]) == (ReportState.HEALTHY, before["app"])
    assert {name for name, found in device.ids.items() if found != before[name]} == {"changing"}
    assert device.run("app", "cd /config; cat state app.conf") == "mine\nedited"
    assert device.run("broker", "stat -c %a /config/app.conf; cat /config/app.conf") == "700\nsetting"
    assert (device.read("web", "/site/index.html"), device.read("reader", "/app.conf")) == ("one", "one")
    assert api.drift(device.config) == []
    api.recover(device.config)
    api.restart(device.config)
    assert device.run("app", "cd /config; cat state app.conf") == "mine\nedited"


def test_changed_content_restarts_the_service_and_going_back_brings_the_old_back(device: Device) -> None:
    """With what the service wrote; and links deliver the content they lead to."""
    device.run("app", "echo mine > /config/state")
    before = device.ids
    changed = {
        "config/app.conf": "setting 2\n",
        "sites/prod/index.html": "two\n",
        "conf/prod.conf": "two\n",
    }
    status = device.to(changed)
    assert status.state is ReportState.HEALTHY
    assert device.run("app", "ls /config; cat /config/app.conf") == "app.conf\nsetting 2"
    assert (device.read("web", "/site/index.html"), device.read("reader", "/app.conf")) == ("two", "two")
    assert not set(before.values()) & set(device.ids.values())
    status = api.rollback(device.config)
    assert status.state is ReportState.HEALTHY, status
    assert device.read("app", "/config/state") == "mine"
    assert (device.read("web", "/site/index.html"), device.read("reader", "/app.conf")) == ("one", "one")


def test_bad_release_with_other_content_behind_a_link_goes_back_to_the_old(device: Device) -> None:
    bad = COMPOSE.replace(IDLE, "['false']", 1) + "    environment: {V: bad}\n"
    status = device.to({"conf/prod.conf": "bad\n", "compose.yaml": bad})
    assert (rows(device.config)[-1].outcome, status.state) == (Outcome.ROLLED_BACK, ReportState.ROLLED_BACK)
    assert device.read("reader", "/app.conf") == "one"


def test_files_changed_behind_a_read_only_mount_are_told_and_kept(device: Device) -> None:
    pages = device.config.paths.content.glob("*/site/index.html")
    (page,) = (page for page in pages if page.read_text() == "one\n")
    page.write_text("by hand\n")
    assert api.drift(device.config) == ["the files that web mounts at /site were changed on this device"]
    before = device.ids
    api.recover(device.config)
    assert (device.ids, device.read("web", "/site/index.html")) == (before, "by hand")
    assert device.to().state is ReportState.HEALTHY
    assert (device.read("web", "/site/index.html"), page.read_text()) == ("one", "by hand\n")
    assert api.drift(device.config) == []


@pytest.mark.parametrize(
    ("link", "target", "sentence"),
    [
        ("site", "sites/none", "a link that leads to sites/none, which is not in the release"),
        ("sites/prod/more", "../../nowhere", "in which the link site/more leads to ../../nowhere"),
        ("sites/prod/more", "../prod", "in which the link site/more leads to a folder that contains it"),
    ],
)
def test_links_without_content_are_refused_before_anything_stops(
    device: Device, link: str, target: str, sentence: str
) -> None:
    before = device.ids
    try:
        status = device.to(links={link: target})
    finally:
        (device.fleet.repo.path / "roles" / device.fleet.role / link).unlink()
    row = rows(device.config)[-1]
    assert (row.outcome, row.failed_phase, status.phase) == (Outcome.FAILED, "validating", "steady")
    assert row.error is not None
    assert f"web mounts roles/tested/site, {sentence}" in row.error
    assert device.ids == before
