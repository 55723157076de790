"""Commands to devices, what is recorded, and how fleetctl fails, against a running stack."""

from __future__ import annotations

import json
import subprocess
import sys
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any
from uuid import uuid4

import pytest

from fleetctl.stack.local_stack import LocalStack
from tests.support.fleetctl_runner import Db, Fleetctl, MakeDevices, of


def test_a_command_is_sent_and_its_answer_read(fleetctl: Fleetctl, devices: MakeDevices, db: Db) -> None:
    (name,) = devices()
    sent = fleetctl("command", "send", name, "--do", "tail_logs", "--arg", "lines=50", "--json").json
    assert sent[0]["args"] == {"lines": 50}
    silent = fleetctl("command", "send", name, "--do", "restart", "--wait", "1")
    assert silent.refusal == ("no_answer", 1)
    db.execute(
        "update device_commands set state = 'succeeded', result = %s where id = %s",
        [json.dumps({"lines": ["a", "b"]}), sent[0]["id"]],
    )
    listed = fleetctl("command", "list", name, "--json").json
    assert [(row["kind"], row["state"]) for row in listed] == [
        ("restart", "queued"),
        ("tail_logs", "succeeded"),
    ]
    assert "succeeded" in fleetctl("command", "list", name).output


def test_a_device_that_is_not_active_is_given_no_command(fleetctl: Fleetctl, devices: MakeDevices) -> None:
    (name,) = devices(1, state="suspended")
    assert fleetctl("command", "send", name, "--do", "restart").refusal == ("device_not_active", 1)


def test_history_shows_attempts_newest_first(fleetctl: Fleetctl, devices: MakeDevices, db: Db) -> None:
    (name,) = devices()
    start = datetime(2026, 3, 1, tzinfo=UTC)
    for hour, outcome in enumerate(("succeeded", "rolled_back")):
        db.execute(
            "insert into update_history (id, device_id, to_commit, outcome, error_kind, error, failed_phase,"
            " started_at, finished_at) values (%s, %s, %s, %s, %s, %s, %s, %s, %s)",
            [
                uuid4(), of(db, name)["id"], "a" * 40, outcome,
                *(("unhealthy", "web answered 500", "probation") if hour else (None, None, None)),
                start + timedelta(hours=hour), start + timedelta(hours=hour, seconds=12.5),
            ],
        )  # fmt: skip
    assert [row["outcome"] for row in fleetctl("history", name, "--json").json] == [
        "rolled_back",
        "succeeded",
    ]
    assert len(fleetctl("history", name, "--outcome", "succeeded", "--json").json) == 1
    table = fleetctl("history", name).output
    assert "unhealthy while probation: web answered 500" in table
    assert "12.5 s" in table


def test_audit_says_who_changed_what(fleetctl: Fleetctl, devices: MakeDevices, db: Db) -> None:
    (name,) = devices()
    fleetctl("device", "set", name, "--to", "segment=early")
    newest = fleetctl("audit", "--table", "devices", "--limit", "1", "--json").json[0]
    assert (newest["actor"], newest["action"], newest["row_id"]) == (
        "service_role", "update", str(of(db, name)["id"]),
    )  # fmt: skip
    assert (newest["before"], newest["after"]) == ({"segment": "stable"}, {"segment": "early"})


@pytest.mark.parametrize(
    ("change", "refusal"),
    [
        ({"FLEET_API_URL": "http://127.0.0.1:9"}, ("unreachable", 3)),
        ({"FLEET_KEY": "sb_secret_wrong"}, ("key_refused", 4)),
        ({"FLEET_KEY": "publishable"}, ("permission_denied", 4)),
        ({"FLEET_KEY": ""}, ("target_incomplete", 2)),
    ],
)
def test_a_wrong_address_or_key_is_told_apart(
    stack: LocalStack, change: dict[str, str], refusal: tuple[str, int]
) -> None:
    wrong = Fleetctl(stack)
    change = {
        name: stack.publishable_key if value == "publishable" else value for name, value in change.items()
    }
    wrong.environment |= change
    assert wrong("operator", "list").refusal == refusal


def test_the_program_finds_the_stack_by_its_data_folder_and_exits_as_it_says(
    stack: LocalStack, tmp_path: Path
) -> None:
    def run(*args: str) -> tuple[int, Any, str]:
        done = subprocess.run(
            [sys.executable, "-m", "fleetctl", *args, "--json"],
            capture_output=True, text=True, check=False,
            env={"PATH": "", "PYTHONPATH": ":".join(sys.path), "HOME": str(tmp_path)},
        )  # fmt: skip
        return done.returncode, json.loads(done.stdout), done.stderr

    code, shown, _ = run("settings", "show", "--data", str(stack.data))
    assert (code, shown["id"]) == (0, True)
    code, shown, error = run("device", "show", "nobody", "--data", str(stack.data))
    assert (code, shown["error"]["kind"]) == (5, "device_unknown")
    assert "There is no device nobody." in error
    code, shown, _ = run("settings", "show", "--data", str(tmp_path / "none"))
    assert (code, shown["error"]["kind"]) == (3, "not_running")
