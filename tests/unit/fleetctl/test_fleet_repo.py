"""The fleet repository for demo and tests: signed, and broken in the way it says."""

from __future__ import annotations

import json
import subprocess
from pathlib import Path

import pytest
import yaml
from typer.testing import CliRunner

from fleet_agent.errors import ValidationError
from fleet_agent.release import export, fetch, verify
from fleet_agent.roles.role import Role
from fleetctl.commands.repo import app
from fleetctl.demo.beacon import BeaconRepo, Breakage, beacon
from fleetctl.errors import FleetctlError
from fleetctl.fleet_repo import SigningKey
from fleetctl.role_check.check import check_role


@pytest.fixture(scope="module")
def key(tmp_path_factory: pytest.TempPathFactory) -> SigningKey:
    return SigningKey.create(tmp_path_factory.mktemp("key"))


def test_a_release_of_the_beacon_goes_all_the_way_to_a_device(tmp_path: Path, key: SigningKey) -> None:
    repo = BeaconRepo.create(tmp_path / "fleet", key)
    commit = repo.release("v1")
    fetch(tmp_path / "git", repo.url, commit, "beacon")
    assert verify(tmp_path / "git", commit, repo.allowed_signers) == key.principal
    export(tmp_path / "git", commit, "beacon", tmp_path / "releases" / commit)
    role = Role.load(tmp_path / "releases" / commit / "roles" / "beacon")
    assert role.problems({}) == []
    assert role.validate_file is not None
    ran = subprocess.run([str(role.validate_file)], cwd=role.folder, capture_output=True, check=False)
    assert ran.returncode == 0


def test_a_release_changes_only_what_web_sees(tmp_path: Path, key: SigningKey) -> None:
    """So that an update restarts web and leaves clock alone."""
    repo = BeaconRepo.create(tmp_path / "fleet", key)
    repo.release("v1")
    repo.release("v2")
    assert repo.git("diff", "--name-only", "HEAD~1") == "roles/beacon/web/index.html"


@pytest.mark.parametrize("breakage", list(Breakage))
def test_each_breakage_differs_from_a_good_release_and_the_next_one_is_whole(
    tmp_path: Path, key: SigningKey, breakage: Breakage
) -> None:
    repo = BeaconRepo.create(tmp_path / "fleet", key)
    good = repo.release("v1")
    repo.release("v2", breakage=breakage)
    changed = set(repo.git("diff", "--name-only", good).split())
    assert changed - {"roles/beacon/web/index.html"}
    repo.release("v3")
    assert repo.git("diff", "--name-only", good) == "roles/beacon/web/index.html"


@pytest.mark.parametrize(
    ("breakage", "finding"),
    [
        (Breakage.CONFIG_ERROR, "compose_invalid"),
        (Breakage.VARIABLE_MISSING, "variable_unused"),
    ],
)
def test_what_a_check_can_see_is_seen(
    tmp_path: Path, key: SigningKey, breakage: Breakage, finding: str
) -> None:
    repo = BeaconRepo.create(tmp_path / "fleet", key)
    repo.release("v1", breakage=breakage)
    assert finding in [found.kind for found in check_role(repo.path / "roles" / "beacon").findings]


def test_simulated_devices_are_told_how_it_breaks() -> None:
    labels = {
        breakage: yaml.safe_load(files["roles/beacon/compose.yaml"])["services"]["web"].get("labels", {})
        for breakage in (Breakage.UNHEALTHY, Breakage.CRASH, Breakage.CRASH_LATE, Breakage.HTTP_ERROR)
        for files in [beacon("v2", breakage)]
    }
    assert {breakage.value: label["fleet.simulate"] for breakage, label in labels.items()} == {
        "unhealthy": "unhealthy", "crash": "crash", "crash_late": "crash-later=2", "http_error": "unhealthy",
    }  # fmt: skip


def test_the_missing_variable_is_missing(tmp_path: Path, key: SigningKey) -> None:
    repo = BeaconRepo.create(tmp_path / "fleet", key)
    repo.release("v1", breakage=Breakage.VARIABLE_MISSING)
    role = Role.load(repo.path / "roles" / "beacon")
    assert [problem.variable for problem in role.problems({})] == ["BEACON_TOKEN"]
    with pytest.raises(ValidationError):
        Role.load(tmp_path / "fleet" / "roles" / "common")


@pytest.mark.parametrize("port", ["8080", "9000"])
def test_the_beacons_own_check_refuses_one_port_for_both(tmp_path: Path, key: SigningKey, port: str) -> None:
    repo = BeaconRepo.create(tmp_path / "fleet", key)
    folder = repo.path / "roles" / "beacon"
    ran = subprocess.run(
        [str(folder / "validate")], cwd=folder, capture_output=True, text=True, check=False,
        env={"PATH": "/usr/bin:/bin", "BEACON_PORT": port, "BEACON_CLOCK_PORT": port},
    )  # fmt: skip
    assert ran.returncode == 1
    assert ran.stdout == "BEACON_PORT and BEACON_CLOCK_PORT must differ\n"


def test_the_commands_make_a_repository_and_sign_releases(tmp_path: Path) -> None:
    path = tmp_path / "fleet"
    made = CliRunner().invoke(app, ["init", str(path), "--json"])
    assert made.exit_code == 0
    signers = Path(json.loads(made.stdout)["allowed_signers"])
    assert path not in signers.parents
    done = CliRunner().invoke(app, ["commit", str(path), "v1", "--json"])
    answer = json.loads(done.stdout)
    assert (answer["version"], answer["branch"]) == ("v1", "main")
    assert verify(path / ".git", answer["commit_sha"], signers)
    staged = CliRunner().invoke(app, ["commit", str(path), "v2", "--branch", "staging", "--json"])
    assert json.loads(staged.stdout)["branch"] == "staging"


def test_a_folder_in_use_is_not_made_into_a_repository(tmp_path: Path, key: SigningKey) -> None:
    (tmp_path / "mine").write_text("x")
    with pytest.raises(FleetctlError) as caught:
        BeaconRepo.create(tmp_path, key)
    assert (caught.value.kind, caught.value.exit_code) == ("folder_not_empty", 2)
    with pytest.raises(FleetctlError) as caught:
        BeaconRepo.open(tmp_path)
    assert caught.value.kind == "no_repository"
