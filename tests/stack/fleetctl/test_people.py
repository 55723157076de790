"""The commands about tokens, operators and settings against a running stack."""

from __future__ import annotations

import json
import shlex
from datetime import UTC, datetime, timedelta
from pathlib import Path
from uuid import uuid4

import httpx
import pytest

from fleet_agent.cli.main import main as agent
from fleetctl.fleet_repo import FleetRepo, adopt, fleet_id_of
from fleetctl.stack.local_stack import LocalStack
from tests.support.fleetctl_runner import Db, Fleetctl


def test_a_token_is_shown_once_and_never_again(fleetctl: Fleetctl) -> None:
    made = fleetctl(
        "token", "create", "--role", "beacon", "--segment", "early", "--uses", "5", "--valid-for", "12h",
        "--json",
    ).json  # fmt: skip
    assert made["token"].startswith("fpt_")
    expires = datetime.fromisoformat(made["expires_at"]) - datetime.now(UTC)
    assert timedelta(hours=11, minutes=59) < expires <= timedelta(hours=12)
    listed = fleetctl("token", "list", "--json")
    assert made["token"] not in listed.output
    row = next(row for row in listed.json if row["id"] == made["id"])
    assert (row["segment"], row["max_uses"], row["uses"]) == ("early", 5, 0)
    assert fleetctl("token", "revoke", made["id"][:8]).exit_code == 0
    row = next(row for row in fleetctl("token", "list", "--json").json if row["id"] == made["id"])
    assert row["revoked_at"] is not None
    assert fleetctl("token", "revoke", str(uuid4())).refusal == ("token_unknown", 5)


def test_the_printed_line_makes_a_device_with_nothing_written_by_hand(
    fleetctl: Fleetctl, db: Db, stack: LocalStack, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """As typed: what `token create` prints, in the device's shell."""
    repo = FleetRepo.create(tmp_path / "repo", roles=None)
    adopt(repo.path)
    printed = fleetctl(
        "token", "create", "--role", "beacon", "--label", "site=rome", "--label", "shop=7",
        "--repository", str(repo.path), "--publishable-key", stack.publishable_key,
    )  # fmt: skip
    program, *words = shlex.split(printed.output)
    assert program == "fleet-agent"
    folder, name = tmp_path / "device", f"printed-{uuid4().hex[:8]}"
    here = ["--root", str(folder), "--config", str(folder / "device.json"), "--name", name]
    capsys.readouterr()
    spoilt = [word if words[at - 1] != "--key" else f"{word}x" for at, word in enumerate(words)]
    assert agent(spoilt + here) == 4
    assert "not one of this project" in capsys.readouterr().err
    assert not (folder / "device.json").exists()
    assert agent(words + here) == 0, "the wrong key spent the token"
    assert agent(["validate-config", *here[:4]]) == 0
    assert (folder / "allowed_signers").read_bytes() == repo.allowed_signers.read_bytes()
    # Of this fleet alone, so the first release of another one is not trusted, either.
    assert json.loads((folder / "device.json").read_text())["fleet_id"] == str(fleet_id_of(repo.path))
    # The same line again is the same device; labels of the file come on top of the token's.
    assert agent(words + here) == 0
    assert agent([*words, *here, "--git-url", "https://elsewhere.example/repo"]) == 2
    token = next(row for row in fleetctl("token", "list", "--json").json if row["devices"] == [name])
    assert name in fleetctl("token", "show", token["id"]).output
    row = db.execute("select labels, state from devices where name = %s", [name]).fetchone()
    assert row == {"labels": {"site": "rome", "shop": "7"}, "state": "active"}


def test_labels_of_device_json_come_on_top_of_the_tokens(
    fleetctl: Fleetctl, db: Db, stack: LocalStack, tmp_path: Path
) -> None:
    asked = ["token", "create", "--role", "beacon", "--label", "site=rome", "--label", "shop=7"]
    assert fleetctl(*asked).refusal == ("publishable_key_needed", 2)
    line = fleetctl(*asked, "--publishable-key", stack.publishable_key).output
    (tmp_path / "device.json").write_text(
        json.dumps({"labels": {"site": "oslo"}, "git_url": "/var/repo", "verify_signatures": False})
    )
    name = f"labels-{uuid4().hex[:8]}"
    words = [*shlex.split(line)[1:], "--root", str(tmp_path), "--config", str(tmp_path / "device.json")]
    assert agent([*words, "--name", name]) == 0
    row = db.execute("select labels from devices where name = %s", [name]).fetchone()
    assert row == {"labels": {"site": "oslo", "shop": "7"}}


def test_an_operator_is_made_can_sign_in_and_is_removed(fleetctl: Fleetctl, stack: LocalStack) -> None:
    # The last admin stays, and this stack may have no other yet.
    assert fleetctl("operator", "add", f"{uuid4().hex[:8]}@fleet.example", "--rank", "admin").exit_code == 0
    email = f"{uuid4().hex[:8]}@fleet.example"
    made = fleetctl("operator", "add", email, "--rank", "operator", "--json").json
    session = httpx.post(
        f"{stack.api_url}/auth/v1/token?grant_type=password",
        headers={"apikey": stack.publishable_key},
        json={"email": email, "password": made["password"]},
    )
    assert session.status_code == 200
    assert session.json()["user"]["id"] == made["user_id"]
    assert fleetctl("operator", "add", email).refusal == ("operator_exists", 1)
    assert fleetctl("operator", "rank", email, "admin", "--json").json[0]["rank"] == "admin"
    assert fleetctl("operator", "remove", email).exit_code == 0
    assert fleetctl("operator", "remove", email).refusal == ("operator_unknown", 5)
    # The Auth user stayed: with its password it can be made an operator again, without one it cannot.
    assert fleetctl("operator", "add", email).refusal == ("user_exists", 1)
    again = fleetctl("operator", "add", email, "--password", made["password"], "--json").json
    assert again["user_id"] == made["user_id"]


def test_a_short_password_is_refused(fleetctl: Fleetctl) -> None:
    answer = fleetctl("operator", "add", f"{uuid4().hex[:8]}@fleet.example", "--password", "abc")
    assert answer.refusal == ("password_refused", 2)


def test_settings_are_changed_by_name_and_keep_their_range(fleetctl: Fleetctl) -> None:
    before = fleetctl("settings", "show", "--json").json
    try:
        changed = fleetctl(
            "settings", "set", "default_poll_interval_s=600", "offline_after_intervals=5", "--json"
        ).json
        assert (changed["default_poll_interval_s"], changed["offline_after_intervals"]) == (600, 5)
        refused = fleetctl("settings", "set", "default_poll_interval_s=3")
        assert refused.refusal == ("value_refused", 2)
        assert refused.error is not None
        assert refused.error.message == "default_poll_interval_s must be 30 to 604800 seconds."
        assert fleetctl("settings", "set", "color=red").refusal == ("setting_unknown", 2)
    finally:
        fleetctl(
            "settings", "set", f"default_poll_interval_s={before['default_poll_interval_s']}",
            f"offline_after_intervals={before['offline_after_intervals']}",
        )  # fmt: skip
