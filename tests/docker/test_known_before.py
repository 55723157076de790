"""What could be known before anything stops is known before: and `secrets:` and `configs:` are files."""

from __future__ import annotations

import hashlib
import io
import json
import stat
import tarfile
from collections.abc import Iterator
from pathlib import Path

import docker
import pytest

from fleet_agent.containers.compose import ComposeRuntime
from fleet_agent.engine import api
from fleet_agent.engine.config import EngineConfig
from fleet_agent.errors import ConfigError
from fleet_agent.model import EngineStatus, Outcome, ReportState
from tests.support.engine_harness import Fleet, rows
from tests.support.own_project import own

pytestmark = pytest.mark.docker

PROJECT, OTHER, FOREIGN = own("before"), own("before-other"), f"{own('foreign')}:1"
SECRET, LATER = "first-hush-7163", "later-hush-8254"
ROLE = """\
description: Uses secrets, a volume and a name with a dollar sign.
variables:
  TOKEN: {secret: true, description: A token.}
health: {grace_s: 1, successes: 2, interval_s: 0.3, watch_s: 0.5, deadline_s: 15, failure_budget: 1}
"""
COMPOSE = """\
services:
  web:
    image: busybox:stable
    command: [sleep, "1000000"]
    user: "1000"
    init: true
    stop_grace_period: 1s
    volumes: ["./price$$:/price:ro", "data:/data"]
    secrets: [token]
    configs: [{source: greeting, target: /greeting.txt}]
  other:
    image: busybox:stable
    command: [sleep, "1000000"]
    init: true
    stop_grace_period: 1s
    volumes: ["./model.bin:/model.bin:ro"]
volumes:
  data: {}
secrets:
  token: {environment: TOKEN}
configs:
  greeting: {content: "hello $$you ${TOKEN}"}
"""


class Device:
    def __init__(self, folder: Path) -> None:
        self.fleet = Fleet(folder / "repo")
        self.root = folder / "device"
        self.config: EngineConfig = self.fleet.config(
            self.root, runtime="docker", project=PROJECT, safe_mode_after=100
        )
        self.set_token(SECRET)
        self.count = 0

    def set_token(self, value: str) -> None:
        (self.root / ".env").write_text(f"TOKEN={value}\n")

    def to(self, compose: str = COMPOSE, **files: str) -> EngineStatus:
        self.count += 1
        edits = {
            "compose.yaml": compose,
            "role.yaml": ROLE,
            "price$/a.txt": "x\n",
            "model.bin": "a model\n",
            "note": str(self.count),
            **files,
        }
        release = self.fleet.release(f"r{self.count}", edits=edits)
        return api.converge(self.config, self.fleet.directive(release))

    def run(self, command: str) -> str:
        return ComposeRuntime().execute(PROJECT, "web", ["sh", "-c", command], 10).output.strip()

    @property
    def ids(self) -> dict[str, str]:
        return {c.service: c.id for c in ComposeRuntime().services(PROJECT)}

    def holding(self, text: str) -> set[str]:
        """Where under the root a text is, by the first folder; Git's own store is compressed."""
        found = (path for path in self.root.rglob("*") if path.is_file() and not path.is_symlink())
        return {path.relative_to(self.root).parts[0] for path in found if text.encode() in path.read_bytes()}


@pytest.fixture(scope="module")
def device(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Device]:
    found = Device(tmp_path_factory.mktemp("before"))
    status = found.to()
    assert status.state is ReportState.HEALTHY, status
    yield found
    runtime = ComposeRuntime()
    for project in (PROJECT, OTHER):
        runtime.down(project)
        runtime.down(f"{project}-safe")
    _remove_volumes()


def _remove_volumes() -> None:
    client = docker.from_env()
    for project in (PROJECT, OTHER):
        for volume in client.volumes.list(filters={"label": f"com.docker.compose.project={project}"}):
            volume.remove(force=True)


def test_secrets_and_configs_are_files_that_only_their_service_reads(device: Device) -> None:
    """A service reads its own as any user; the device's other users read none, and no other file has them."""
    assert device.run("id -u; cat /run/secrets/token") == f"1000\n{SECRET}"
    assert device.run("cat /greeting.txt") == f"hello $you {SECRET}"
    assert device.run("cat /price/a.txt") == "x"
    secrets = device.config.paths.secrets
    assert stat.S_IMODE(secrets.stat().st_mode) == 0o700
    files = [path for path in secrets.rglob("*") if path.is_file()]
    assert [stat.S_IMODE(path.stat().st_mode) for path in files] == [0o444, 0o444]
    assert device.holding(SECRET) == {".env", "secrets"}


def test_only_a_changed_secret_restarts_its_service_and_old_ones_go(device: Device) -> None:
    before = device.ids
    assert device.to().state is ReportState.HEALTHY
    assert device.ids == before
    device.set_token(LATER)
    assert device.to().state is ReportState.HEALTHY
    assert device.run("cat /run/secrets/token /greeting.txt") == f"{LATER}hello $you {LATER}"
    assert device.ids["other"] == before["other"]
    assert device.ids["web"] != before["web"]
    # It went with its container; the release before gets today's.
    assert device.holding(SECRET) == set()
    assert api.rollback(device.config).state is ReportState.HEALTHY
    assert device.run("cat /run/secrets/token") == LATER
    assert device.to().state is ReportState.HEALTHY


def test_secret_of_a_release_that_fails_goes_with_it_and_the_old_one_stays(device: Device) -> None:
    before, secret = device.ids, device.run("cat /run/secrets/token")
    device.set_token("never-seen-again-9365")
    bad = COMPOSE.replace('[sleep, "1000000"]\n    user', '["false"]\n    user')
    assert device.to(bad).state is ReportState.ROLLED_BACK
    assert (device.run("cat /run/secrets/token"), device.ids["other"]) == (secret, before["other"])
    device.set_token(LATER)
    assert device.holding("never-seen-again-9365") == set()
    assert device.to().state is ReportState.HEALTHY


@pytest.mark.parametrize(
    ("old", "new", "kind", "sentence"),
    [
        (
            "configs:\n  greeting",
            "networks: {default: {external: true, name: eng-nobody-made}}\nconfigs:\n  greeting",
            "resource_missing",
            "The external network eng-nobody-made is not on this device.",
        ),
        (
            "  data: {}",
            "  data: {external: true, name: eng-nobody-made}",
            "resource_missing",
            "The external volume eng-nobody-made is not on this device.",
        ),
        (
            '    user: "1000"',
            "    platform: linux/s390x",
            "platform_mismatch",
            "web is for the platform linux/s390x, and this device is linux/",
        ),
        (
            "  data: {}",
            "  data: {driver_opts: {type: tmpfs, device: tmpfs}}",
            "volume_differs",
            "The volume PROJECT_data is on this device with other options (local) than the release asks "
            "for (local, device=tmpfs, type=tmpfs), and Docker does not change a volume.",
        ),
        (
            "{environment: TOKEN}",
            "{environment: ABSENT}",
            "variable_missing",
            "compose.yaml, line 20 (secrets, token, environment): it takes ABSENT, which the role does not",
        ),
        (
            "{environment: TOKEN}",
            "{external: true}",
            "compose_invalid",
            "The compose file is not valid: the secret token is external;",
        ),
        (
            "secrets: [token]",
            "secrets: [{source: token, mode: 0400}]",
            "compose_invalid",
            "The compose file is not valid: web asks for mode 0400 for the secret token, "
            "and the file has 0444.",
        ),
        (
            "target: /greeting.txt}",
            "target: /greeting.txt, uid: '1000'}",
            "compose_invalid",
            "The compose file is not valid: web asks for uid 1000 for the config greeting, "
            "and a mounted file cannot have it.",
        ),
        (
            '    user: "1000"',
            '    devices: ["/dev/video77"]',
            "resource_missing",
            "web needs /dev/video77, which is not on this device.",
        ),
        (
            '    user: "1000"',
            '    ports: ["127.0.0.1:28191:80"]\n    deploy: {replicas: 2}',
            "port_conflict",
            "web has 2 replicas, and only one of them can have port 28191/tcp.",
        ),
    ],
)
def test_what_this_device_cannot_provide_touches_nothing(
    device: Device, old: str, new: str, kind: str, sentence: str
) -> None:
    before = device.ids
    assert old in COMPOSE
    # Parameters are the same in each worker, the project is not.
    sentence = sentence.replace("PROJECT", PROJECT)
    _refused(device, device.to(COMPOSE.replace(old, new, 1)), kind, sentence)
    assert device.ids == before


def test_git_lfs_pointer_touches_nothing(device: Device) -> None:
    before = device.ids
    pointer = "version https://git-lfs.github.com/spec/v1\noid sha256:4d7a\nsize 12345\n"
    status = device.to(**{"model.bin": pointer})
    _refused(
        device,
        status,
        "compose_invalid",
        "The compose file is not valid: other mounts roles/tested/model.bin, which is a Git LFS pointer",
    )
    assert device.ids == before


def test_image_for_another_platform_touches_nothing(device: Device) -> None:
    before, client = device.ids, docker.from_env()
    client.images.load(_foreign_image(FOREIGN))
    status = device.to(COMPOSE.replace("busybox:stable", FOREIGN, 1))
    sentence = f"{FOREIGN} is for the platform linux/s390x, which this device cannot run."
    _refused(device, status, "platform_mismatch", sentence, "pulling")
    assert device.ids == before


def _foreign_image(name: str) -> bytes:
    """An image without files, as `docker save` writes it."""
    layer = io.BytesIO()
    tarfile.open(fileobj=layer, mode="w").close()
    digest = hashlib.sha256(layer.getvalue()).hexdigest()
    config = {
        "architecture": "s390x",
        "os": "linux",
        "config": {},
        "rootfs": {"type": "layers", "diff_ids": [f"sha256:{digest}"]},
    }
    manifest = [{"Config": "config.json", "RepoTags": [name], "Layers": ["layer.tar"]}]
    image = io.BytesIO()
    with tarfile.open(fileobj=image, mode="w") as archive:
        for file, content in {
            "layer.tar": layer.getvalue(),
            "config.json": json.dumps(config).encode(),
            "manifest.json": json.dumps(manifest).encode(),
        }.items():
            entry = tarfile.TarInfo(file)
            entry.size = len(content)
            archive.addfile(entry, io.BytesIO(content))
    return image.getvalue()


def _refused(
    device: Device, status: EngineStatus, kind: str, sentence: str, phase: str = "validating"
) -> None:
    row = rows(device.config)[-1]
    assert (row.outcome, row.error_kind, row.failed_phase) == (Outcome.FAILED, kind, phase), row
    assert row.error is not None
    assert row.error.startswith(sentence)
    assert status.phase == "steady"


def test_another_runtime_is_refused_while_docker_has_anything_left(device: Device) -> None:
    before = device.ids
    with pytest.raises(ConfigError) as refusal:
        api.recover(device.config.model_copy(update={"runtime": "simulated"}))
    assert refusal.value.kind == "config_invalid"
    assert f"still has the container {PROJECT}-other-1, the" in refusal.value.message
    assert f"docker compose --project-name {PROJECT} down" in refusal.value.hint
    assert device.ids == before


def test_another_project_is_refused_while_anything_of_the_old_one_is_left(device: Device) -> None:
    before = device.ids
    moved = device.config.model_copy(update={"project": OTHER})
    current = api.status(device.config).current
    for verb in (api.recover, api.rollback, api.restart):
        with pytest.raises(ConfigError) as refusal:
            verb(moved)
        assert refusal.value.kind == "config_invalid"
        assert refusal.value.message == (
            f"The project {OTHER} is not valid: this device still has the container {PROJECT}-other-1, the "
            f"container {PROJECT}-web-1, the volume {PROJECT}_data and the network {PROJECT}_default of the "
            f"project {PROJECT}, and {OTHER} would start empty."
        )
        assert f'Set "project" back to {PROJECT}.' in refusal.value.hint
    assert device.ids == before
    assert ComposeRuntime().services(OTHER) == ()
    assert api.recover(device.config).state is ReportState.HEALTHY

    ComposeRuntime().down(PROJECT)
    with pytest.raises(ConfigError, match=f"still has the volume {PROJECT}_data of the project"):
        api.recover(moved)
    _remove_volumes()
    status = api.recover(moved)
    assert (status.state, status.current) == (ReportState.HEALTHY, current)
    seen = ComposeRuntime().services(OTHER)
    assert {c.service: (sorted(c.networks), c.mounts.get("/data")) for c in seen} == {
        "web": ([f"{OTHER}_default"], f"{OTHER}_data"),
        "other": ([f"{OTHER}_default"], None),
    }
