"""Which fleet a repository is for: written by `repo init`, checked by `role check`."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from uuid import UUID

import pytest
from typer.testing import CliRunner

from fleet_agent.model import FLEET_FILE
from fleetctl.commands import repo, role
from fleetctl.errors import FleetctlError
from fleetctl.fleet_repo import ROLES, FleetRepo, fleet_id_of


def run(*arguments: str) -> dict[str, str]:
    done = CliRunner().invoke(repo.app, [*arguments, "--json"], catch_exceptions=False)
    assert done.exit_code == 0, done.output
    return dict(json.loads(done.output))


def test_each_new_repository_has_an_id_of_its_own_in_its_first_release(tmp_path: Path) -> None:
    ids = {run("init", str(tmp_path / name))["fleet_id"] for name in ("a", "b")}
    assert len(ids) == 2
    assert str(fleet_id_of(ROLES.parent)) not in ids
    made = FleetRepo.open(tmp_path / "a")
    made.commit("v1")
    assert json.loads(made.git("show", f"HEAD:{FLEET_FILE}"))["fleet_id"] in ids


def test_a_repository_is_adopted_once_and_keeps_its_id(tmp_path: Path) -> None:
    """Also one that began as a copy of the examples: their id is nobody's."""
    place = tmp_path / "fleet"
    made = FleetRepo.create(place, roles=None)
    shutil.rmtree(tmp_path / "fleet.keys")
    first = run("init", str(place), "--adopt")["fleet_id"]
    assert run("init", str(place), "--adopt")["fleet_id"] == first == str(fleet_id_of(place))
    assert not (tmp_path / "fleet.keys").exists()
    assert made.git("status", "--porcelain", "--untracked-files=all") == f"?? {FLEET_FILE}"
    shutil.copy(ROLES / "common" / "fleet.json", place / FLEET_FILE)
    assert run("init", str(place), "--adopt")["fleet_id"] not in (first, str(fleet_id_of(ROLES.parent)))
    (place / FLEET_FILE).write_text('{"fleet_id": 7}')
    for arguments in (["init", str(place), "--adopt"], ["init", str(tmp_path / "none"), "--adopt"]):
        with pytest.raises(FleetctlError) as caught:
            run(*arguments)
        assert caught.value.kind in ("fleet_id_invalid", "no_repository")


@pytest.mark.parametrize(
    ("content", "level", "kind"),
    [
        (None, "warning", "fleet_id_missing"),
        ("{}", "error", "fleet_id_invalid"),
        ("[", "error", "fleet_id_invalid"),
        (json.dumps({"fleet_id": str(UUID(int=7))}), None, None),
    ],
)
def test_role_check_tells_of_a_repository_without_one(
    tmp_path: Path, content: str | None, level: str | None, kind: str | None
) -> None:
    shutil.copytree(ROLES / "beacon", tmp_path / "roles" / "beacon")
    if content is not None:
        (tmp_path / FLEET_FILE).parent.mkdir()
        (tmp_path / FLEET_FILE).write_text(content)
    done = CliRunner().invoke(role.app, ["check", str(tmp_path / "roles" / "beacon"), "--json"])
    told = json.loads(done.output)
    assert [(found["level"], found["kind"]) for found in told["fleet"]] == [(level, kind)] * bool(kind)
    assert (told["ok"], done.exit_code) == (level != "error", int(level == "error"))
