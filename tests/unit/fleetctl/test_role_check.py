"""`fleetctl role check`: each finding has a role that earns it, and the beacon earns none."""

from __future__ import annotations

import json
import shutil
import subprocess
from pathlib import Path

import pytest
from typer.testing import CliRunner

from fleetctl.commands.role import app
from fleetctl.errors import FleetctlError
from fleetctl.role_check import compose
from fleetctl.role_check.check import check_role

ROOT = Path(__file__).resolve().parents[3]
SERVICE = """
services:
  web:
    image: busybox:stable
    restart: unless-stopped
    command: [httpd, -f, -p, "${PORT}"]
    volumes: ["./www:/www:ro", "data:/data"]
    healthcheck: {test: [CMD, "true"]}
  clock:
    image: busybox:stable
    restart: unless-stopped
    healthcheck: {test: [CMD, "true"]}
volumes:
  data: {}
"""
ROLE = """
description: A kiosk.
variables:
  PORT: {type: port, default: 8080, description: Port.}
health:
  checks: [{kind: compose}]
"""


@pytest.fixture(params=[True, False], ids=["compose", "plain"])
def kiosk(request: pytest.FixtureRequest, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A role without findings, checked with Compose and without it."""
    if not request.param:
        monkeypatch.setattr(compose, "compose_command", lambda: None)
    elif compose.compose_command() is None:
        pytest.fail("docker-compose is a dependency of fleetctl and is not installed")
    folder = tmp_path / "roles" / "kiosk"
    (folder / "www").mkdir(parents=True)
    (folder / "price$").mkdir()
    (folder / "ok").symlink_to("www")
    (folder / "role.yaml").write_text(ROLE)
    (folder / "compose.yaml").write_text(SERVICE)
    (folder / "validate").write_text("#!/bin/sh\n")
    (folder / "validate").chmod(0o755)
    return folder


def kinds(folder: Path) -> list[str]:
    return [finding.kind for finding in check_role(folder).findings]


def edit(folder: Path, old: str, new: str, name: str = "compose.yaml") -> None:
    file = folder / name
    text = file.read_text()
    assert old in text
    file.write_text(text.replace(old, new, 1))


def test_a_good_role_has_no_findings(kiosk: Path) -> None:
    report = check_role(kiosk)
    assert report.findings == ()
    assert report.ok


@pytest.mark.parametrize(
    ("old", "new", "found"),
    [
        ("image: busybox:stable", "image: busybox", ["image_unpinned"]),
        ("image: busybox:stable", "image: host.example:5000/busybox", ["image_unpinned"]),
        ("image: busybox:stable", "image: busybox:latest", ["image_unpinned"]),
        ("image: busybox:stable", f"image: busybox@sha256:{'a' * 64}", []),
        ("image: busybox:stable", "image: host.example:5000/a/busybox:1.36", []),
        ("image: busybox:stable", "build: .", ["build_used"]),
        ("    healthcheck: {test: [CMD, \"true\"]}\n", "", ["healthcheck_missing"]),
        ("{test: [CMD, \"true\"]}", "{disable: true}", ["healthcheck_missing"]),
        ("{test: [CMD, \"true\"]}", "{test: [NONE]}", ["healthcheck_missing"]),
        ("    restart: unless-stopped\n", "", ["restart_missing"]),
        ("${PORT}", "${PROT}", ["variable_undeclared", "variable_unused"]),
        ("${PORT}", "80", ["variable_unused"]),
        ("${PORT}", "$PORT", []),
        ("${PORT}", "$${PORT}", ["variable_unused"]),
        ("${PORT}", "${PORT:-9090}", ["default_differs"]),
        ("${PORT}", "${PORT:-8080}", []),
        ("${PORT}", "${PORT:-${FALLBACK}}", ["default_differs", "variable_undeclared"]),
        ("./www:/www:ro", "./gone:/www:ro", ["mount_missing"]),
        ("./www:/www:ro", "./www:/www", ["mount_writable"]),
        ("./www:/www:ro", "./www:www:ro", ["compose_invalid"]),
        ('"data:/data"', '"data:data"', ["compose_invalid"]),
        ("./www:/www:ro", "./price$$:/www:ro", []),
        ("./www:/www:ro", "./ok:/www:ro", []),
        ("./www:/www:ro", "../other:/www:ro", ["host_path"]),
        ("./www:/www:ro", "../../../etc:/www:ro", ["host_path"]),
        ("./www:/www:ro", "/etc:/www:ro", ["host_path"]),
        ("./www:/www:ro", "/dev/video0:/dev/video0", []),
        ("./www:/www:ro", "/devious:/x", ["host_path"]),
        ("./www:/www:ro", "/var/run/docker.sock:/s", ["docker_socket"]),
        ("restart: unless-stopped", "restart: always\n    privileged: true", ["privileged"]),
        ("restart: unless-stopped", "restart: always\n    network_mode: host", ["host_network"]),
        ("restart: unless-stopped", "restart: always\n    container_name: web", ["container_name"]),
        ("restart: unless-stopped", "restart: always\n    environment: [SECRET]", ["variable_undeclared"]),
        ("restart: unless-stopped", "restart: always\n    environment: {SECRET: }", ["variable_undeclared"]),
        ("restart: unless-stopped", "restart: always\n    environment: {A: x}", []),
    ],
)  # fmt: skip
def test_each_slip_in_the_compose_file_is_found(kiosk: Path, old: str, new: str, found: list[str]) -> None:
    edit(kiosk, old, new)
    assert sorted(kinds(kiosk)) == found


@pytest.mark.parametrize(
    ("old", "new", "found"),
    [
        ("[{kind: compose}]", "[]", ["checks_missing"]),
        ("[{kind: compose}]", "[{kind: compose, services: [wbe]}]", ["service_unknown"]),
        ("[{kind: compose}]", "[{kind: command, service: gone, command: [x]}]", ["service_unknown"]),
        ("[{kind: compose}]", "[{kind: log, pattern: x, services: [clock]}]", []),
        ("description: A kiosk.", "description: 3", ["role_invalid"]),
        ("health:", "  UNUSED: {description: x}\nhealth:", ["variable_unused"]),
    ],
)
def test_each_slip_in_role_yaml_is_found(kiosk: Path, old: str, new: str, found: list[str]) -> None:
    edit(kiosk, old, new, "role.yaml")
    assert kinds(kiosk) == found


@pytest.mark.parametrize(
    ("link", "target", "sentence"),
    [
        ("site", "nowhere", "The link kiosk/site leads to nowhere, which does not exist."),
        ("www/out", "../../..", "The link kiosk/www/out leads out of the release."),
        ("www/self", ".", "The link kiosk/www/self leads to a folder that contains it."),
        ("circle", "circle", "The link kiosk/circle leads in a circle."),
    ],
)
def test_a_link_without_content_is_found(kiosk: Path, link: str, target: str, sentence: str) -> None:
    (kiosk / link).symlink_to(target)
    (found,) = check_role(kiosk).findings
    assert (found.level, found.kind, found.message) == ("error", "link_broken", sentence)


def test_a_writable_mount_is_explained(kiosk: Path) -> None:
    edit(kiosk, "./www:/www:ro", "./www:/www")
    report = check_role(kiosk)
    (found,) = report.findings
    assert report.ok
    assert "does not survive a release that changes these files; put data into a volume" in found.message


def test_files_in_git_lfs_are_found(kiosk: Path) -> None:
    """As the pointer, and as the file that Git will replace by one."""
    (kiosk / "www" / "a.txt").write_text("version https://git-lfs.github.com/spec/v1\noid sha256:0\nsize 1\n")
    assert kinds(kiosk) == ["git_lfs"]
    (kiosk / "www" / "a.txt").unlink()
    (kiosk / "www" / "b.bin").write_bytes(b"large")
    assert kinds(kiosk) == []
    subprocess.run(["git", "init", "--quiet", str(kiosk)], check=True)
    (kiosk / ".gitattributes").write_text("*.bin filter=lfs diff=lfs merge=lfs -text\n")
    assert kinds(kiosk) == ["git_lfs"]


@pytest.mark.parametrize("section", ["secrets", "configs"])
def test_a_secret_of_a_variable_uses_it(kiosk: Path, section: str) -> None:
    edit(kiosk, "volumes:\n  data", f"{section}: {{tok: {{environment: TOKEN}}}}\nvolumes:\n  data")
    edit(kiosk, "    command", f"    {section}: [tok]\n    command")
    assert kinds(kiosk) == ["variable_undeclared"]
    edit(kiosk, "health:", "  TOKEN: {secret: true, description: x}\nhealth:", "role.yaml")
    assert kinds(kiosk) == []


@pytest.mark.parametrize(
    ("entry", "used", "found"),
    [
        ("{file: ./validate}", "token", []),
        ("{file: ./validate}", "{source: token, target: x}", []),
        ("{content: x}", "{source: token, mode: 0444}", []),
        ("{content: x}", "{source: token, mode: 0400}", ["secret_unsupported"]),
        ("{content: x}", "{source: token, uid: '1000'}", ["secret_unsupported"]),
        ("{external: true}", "token", ["secret_unsupported"]),
    ],
)
def test_secrets_and_configs_that_devices_cannot_provide_are_found(
    kiosk: Path, entry: str, used: str, found: list[str]
) -> None:
    edit(kiosk, "volumes:\n  data", f"configs: {{token: {entry}}}\nvolumes:\n  data")
    edit(kiosk, "    command", f"    configs: [{used}]\n    command")
    assert kinds(kiosk) == found


def test_a_declared_path_may_be_mounted(kiosk: Path) -> None:
    edit(kiosk, "health:", "  DATA: {type: path, required: true, description: x}\nhealth:", "role.yaml")
    edit(kiosk, "./www:/www:ro", "${DATA}/films:/films")
    assert kinds(kiosk) == []


def test_a_service_that_is_meant_to_end_needs_neither_healthcheck_nor_restart(kiosk: Path) -> None:
    edit(kiosk, "volumes:\n  data", "  init:\n    image: busybox:stable\nvolumes:\n  data")
    assert kinds(kiosk) == ["healthcheck_missing", "restart_missing"]
    edit(kiosk, "{kind: compose}", "{kind: container, completed: [init]}", "role.yaml")
    assert kinds(kiosk) == []


def test_a_service_that_others_wait_for_needs_no_word_in_the_role(kiosk: Path) -> None:
    edit(kiosk, "volumes:\n  data", "  init:\n    image: busybox:stable\nvolumes:\n  data")
    waits = (
        "    depends_on: {init: {condition: service_completed_successfully}}\n    restart: unless-stopped\n"
    )
    edit(kiosk, "    restart: unless-stopped\n", waits)
    assert kinds(kiosk) == []


def test_a_role_that_restarts_whole_with_each_release_is_warned_of(kiosk: Path) -> None:
    for _ in range(2):
        edit(kiosk, "restart: unless-stopped", 'restart: always\n    labels: ["v=${FLEET_RELEASE_VERSION}"]')
    report = check_role(kiosk)
    assert [finding.kind for finding in report.findings] == ["all_restart"]
    assert report.ok


@pytest.mark.parametrize(
    "text", ["", "a: [", "services: {}", "services: [a]", "services:\n  web: {image: [}"]
)
def test_a_compose_file_that_is_none_is_one_finding(kiosk: Path, text: str) -> None:
    (kiosk / "compose.yaml").write_text(text)
    assert kinds(kiosk) == ["compose_invalid"]


def test_what_only_compose_can_refuse_is_refused(kiosk: Path) -> None:
    edit(kiosk, "restart: unless-stopped", "restrat: always")
    found = kinds(kiosk)
    assert found == (["compose_invalid"] if compose.compose_command() else ["restart_missing"])


@pytest.mark.parametrize(("content", "mode"), [("#!/bin/sh\n", 0o644), ("echo hi\n", 0o755)])
def test_a_validate_that_cannot_run_is_found(kiosk: Path, content: str, mode: int) -> None:
    (kiosk / "validate").write_text(content)
    (kiosk / "validate").chmod(mode)
    assert kinds(kiosk) == ["validate_not_executable"]


def test_a_folder_name_that_is_no_role_name_is_found(kiosk: Path) -> None:
    assert kinds(kiosk.rename(kiosk.with_name("Kiosk_1"))) == ["name_invalid"]


def test_the_answer_and_the_exit_code_agree(kiosk: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(kiosk.parents[1])
    (kiosk.parent / "common").mkdir()
    good = CliRunner().invoke(app, ["check", "--json"])
    assert good.exit_code == 0
    assert json.loads(good.stdout)["ok"] is True
    assert [role["role"] for role in json.loads(good.stdout)["roles"]] == ["kiosk"]

    shutil.copytree(kiosk, kiosk.with_name("other"))
    edit(kiosk, "busybox:stable", "busybox:latest")
    bad = CliRunner().invoke(app, ["check", "--json"])
    assert bad.exit_code == 1
    document = json.loads(bad.stdout)
    assert [role["ok"] for role in document["roles"]] == [False, True]
    assert document["roles"][0]["findings"][0]["kind"] == "image_unpinned"
    assert "image_unpinned" in CliRunner().invoke(app, ["check", str(kiosk)]).stdout
    assert CliRunner().invoke(app, ["check", "roles/other"]).exit_code == 0
    # As a shell writes `roles/*` out.
    assert CliRunner().invoke(app, ["check", "roles/common", "roles/other/"]).exit_code == 0
    alone = CliRunner().invoke(app, ["check", "roles/common"])
    assert isinstance(alone.exception, FleetctlError)
    assert alone.exception.kind == "roles_missing"


@pytest.mark.parametrize("role", sorted(path.parent.name for path in ROOT.glob("roles/*/role.yaml")))
def test_the_roles_that_we_ship_have_no_findings(role: str) -> None:
    assert check_role(ROOT / "roles" / role).findings == ()
