"""`release add` in its whole form, `branch`, and what a rollout of a release that is out already says."""

from __future__ import annotations

import subprocess
from collections.abc import Iterator
from pathlib import Path
from uuid import uuid4

import pytest

from fleetctl.fleet_repo import FleetRepo
from tests.support.fleetctl_runner import Db, Fleetctl, MakeDevices


@pytest.fixture
def lab(db: Db) -> Iterator[str]:
    """A branch of this test's own, by rollout only as every new one."""
    name = f"lab-{uuid4().hex[:8]}"
    db.execute("insert into branches (name) values (%s)", [name])
    yield name
    db.execute("update rollouts set state = 'cancelled' where branch = %s and state = 'running'", [name])


def commit() -> str:
    return uuid4().hex + "00000000"


def test_an_added_release_says_that_it_reaches_nobody(
    fleetctl: Fleetctl, devices: MakeDevices, lab: str
) -> None:
    devices(2, branch=lab)
    answer = fleetctl("release", "add", commit(), "--version", "v1", "--branch", lab)
    assert f"v1 goes to nobody yet: branch {lab} gives by rollout only." in answer.output
    assert "fleetctl rollout create v1" in " ".join(answer.output.split())


def test_stages_start_with_the_release_after_a_question(
    fleetctl: Fleetctl, devices: MakeDevices, lab: str, db: Db
) -> None:
    devices(1, branch=lab, segment="canary")
    given = [
        *("release", "add", commit(), "--version", "v1", "--branch", lab, "--set", "max_in_flight=1"),
        *("--stage", "canary,soak=1h", "--stage", "10%", "--stage", "100%"),
    ]
    dry = fleetctl(*given, "--dry-run")
    assert "v1 is for 1 device in 3 stages." in dry.output
    assert "Nothing was added." in dry.output
    asked = fleetctl(*given)
    assert asked.refusal == ("confirmation_needed", 2)
    assert db.execute("select 1 from releases where branch = %s", [lab]).fetchall() == []
    added = fleetctl(*given, "--yes", "--json").json
    assert (added["version"], added["delivery"], added["devices"]) == ("v1", "rollout", 1)
    row = db.execute("select state::text, max_in_flight from rollouts where id = %s", [added["rollout_id"]])
    assert row.fetchone() == {"state": "running", "max_in_flight": 1}


def test_to_all_is_one_stage_and_goes_with_no_other(
    fleetctl: Fleetctl, lab: str, devices: MakeDevices
) -> None:
    devices(1, branch=lab)
    given = ("release", "add", commit(), "--branch", lab, "--to-all")
    assert fleetctl(*given, "--stage", "canary").refusal == ("stages_said_twice", 2)
    assert fleetctl(*given[:-1], "--label", "a=b").refusal == ("stages_missing", 2)
    added = fleetctl(*given, "--yes", "--json").json
    assert [stage["devices"] for stage in added["stages"]] == [1]


def test_a_branch_says_how_it_delivers_and_is_made_immediate_on_purpose(
    fleetctl: Fleetctl, devices: MakeDevices, lab: str, db: Db
) -> None:
    devices(2, branch=lab)
    row = next(row for row in fleetctl("branch", "list", "--json").json if row["name"] == lab)
    assert (row["delivery"], row["devices"]) == ("rollout_only", 2)
    made = ("branch", "set", lab, "--delivery", "immediate")
    refused = fleetctl(*made)
    assert refused.refusal == ("confirmation_needed", 2)
    assert refused.error is not None
    assert "2 devices" in refused.error.message
    assert fleetctl(*made, "--yes", "--json").json["delivery"] == "immediate"
    given = ("release", "add", commit(), "--version", "v1", "--branch", lab)
    assert fleetctl(*given).refusal == ("confirmation_needed", 2)
    assert f"goes to 2 devices at once: branch {lab} is immediate." in fleetctl(*given, "--yes").output
    said = fleetctl("rollout", "create", "v1", "--on-branch", lab, "--stage", "100%").output
    assert "v1 is out already: branch" in " ".join(said.split())
    assert fleetctl("branch", "set", "no-such", "--delivery", "immediate").refusal == ("branch_unknown", 5)


def test_a_rollout_of_what_devices_run_says_so(
    fleetctl: Fleetctl, devices: MakeDevices, lab: str, db: Db
) -> None:
    (name,) = devices(1, branch=lab)
    made = fleetctl("release", "add", commit(), "--version", "v1", "--branch", lab, "--json").json
    db.execute(
        "insert into device_status (device_id, current_release) select id, %s from devices where name = %s",
        [made["id"], name],
    )
    draft = fleetctl("rollout", "create", made["id"], "--stage", "100%", "--json").json["id"]
    for verb in (("preview",), ("start", "--dry-run")):
        said = fleetctl("rollout", verb[0], draft, *verb[1:]).output
        assert "v1 is out already: 1 device runs it." in " ".join(said.split())


def test_the_signature_is_verified_before_anything_is_added(
    fleetctl: Fleetctl, lab: str, db: Db, tmp_path: Path, site: str
) -> None:
    repo = FleetRepo.create(tmp_path / site)
    role = f"description: {site}\naccess: {{NET_ADMIN: Dials., root: Flashes the modem.}}\n"
    signed = repo.commit("signed", {"roles/kiosk/role.yaml": role})
    given = ("--repository", str(repo.path), "--branch", lab)
    said = fleetctl("release", "add", "HEAD", *given).output
    assert f"signed by {repo.key.principal}" in " ".join(said.split())
    assert (
        "The role kiosk is as good as root on its devices: Flashes the modem. "
        "The role kiosk takes NET_ADMIN of its devices: Dials."
    ) in " ".join(said.split())
    kept = db.execute("select access from releases where branch = %s", [lab]).fetchall()
    assert kept == [{"access": {"kiosk": {"NET_ADMIN": "Dials.", "root": "Flashes the modem."}}}]
    git = ["git", "-C", str(repo.path), "-c", "commit.gpgsign=false"]
    subprocess.run([*git, "commit", "-q", "--allow-empty", "-m", "unsigned"], check=True)
    assert fleetctl("release", "add", "HEAD", *given).refusal == ("signature_missing", 1)
    strangers = tmp_path / "strangers"
    strangers.write_text("")
    refused = fleetctl("release", "add", signed, *given, "--allowed-signers", str(strangers))
    assert refused.refusal == ("signature_invalid", 1)
    assert len(db.execute("select 1 from releases where branch = %s", [lab]).fetchall()) == 1
    assert fleetctl("release", "add", "HEAD", *given, "--unsigned", "--json").json["branch"] == lab


def test_what_was_not_verified_says_so(fleetctl: Fleetctl, lab: str, tmp_path: Path, site: str) -> None:
    repo = FleetRepo.create(tmp_path / site)
    (repo.path / "a").write_text(site)
    head = repo.commit("signed")
    signers = repo.allowed_signers.rename(tmp_path / "elsewhere")
    given = ("release", "add", "HEAD", "--repository", str(repo.path), "--branch", lab)

    def said(*arguments: str) -> str:
        return " ".join(fleetctl(*arguments).output.split())

    unverified = "Its signature was not verified here: "
    dry = said(*given, "--dry-run")
    assert unverified in dry
    assert "names no allowed_signers file, so add --allowed-signers." in dry
    assert f"{unverified}--unsigned was given." in said(*given, "--unsigned", "--dry-run")
    assert f"{unverified}that takes --repository." in said(
        "release", "add", head, "--branch", lab, "--dry-run"
    )
    added = fleetctl(*given, "--allowed-signers", str(signers), "--json").json
    assert added["signer"] == repo.key.principal
