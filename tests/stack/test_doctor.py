"""`fleetctl doctor` as a person runs it: on the stack of this machine, and at an address."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Mapping

import psycopg
import pytest

from fleetctl.stack.local_stack import LocalStack

CHECKS = [
    "keys", "keys", "clock", "signing-key", "schemas", "functions", "functions", "sign-up", "realtime",
    "migrations", "baseline", "roles", "grants", "jobs", "admin",
]  # fmt: skip


def doctor(*arguments: str, **environment: str) -> tuple[int, list[Mapping[str, str]], str]:
    """Exit code, findings, kind of the control plane."""
    done = subprocess.run(
        [sys.executable, "-m", "fleetctl", "doctor", "--json", *arguments],
        capture_output=True, text=True, check=False, env=os.environ | environment,
    )  # fmt: skip
    assert done.stdout, done.stderr
    said = json.loads(done.stdout)
    return done.returncode, said.get("findings") or [said["error"]], said.get("kind", "")


@pytest.fixture(scope="module", autouse=True)
def somebody_is_admin(stack: LocalStack) -> None:
    with psycopg.connect(stack.db_url, autocommit=True) as admin:
        admin.execute(
            "insert into public.operators (user_id, email, rank) "
            "values (gen_random_uuid(), 'doctor@example.com', 'admin')"
        )


def test_stack_on_this_machine_is_as_it_has_to_be(stack: LocalStack) -> None:
    """What is around belongs to another project, and is not asked."""
    code, findings, kind = doctor("--data", str(stack.data), FLEET_DB_URL="postgresql://nobody@127.0.0.1:1/x")
    assert [finding["sentence"] for finding in findings if finding["state"] != "ok"] == []
    assert (code, kind, [finding["check"] for finding in findings]) == (0, "embedded", CHECKS)


def test_project_at_an_address_is_asked_as_one_and_what_is_missing_is_not_right(stack: LocalStack) -> None:
    around = {
        "FLEET_API_URL": stack.api_url, "FLEET_KEY": stack.secret_key,
        "FLEET_PUBLISHABLE_KEY": stack.publishable_key,
    }  # fmt: skip
    code, findings, kind = doctor(**around)
    states = {finding["check"]: finding["state"] for finding in findings}
    assert (code, kind) == (1, "self-hosted")
    assert {check for check, state in states.items() if state == "unchecked"} == {
        "signing-key", "migrations", "baseline", "roles", "grants", "jobs", "admin",
    }  # fmt: skip
    assert {state for state in states.values() if state != "unchecked"} == {"ok"}
    assert stack.secret_key not in json.dumps(findings)

    code, findings, _ = doctor(
        "--db-url", stack.postgres_db_url, "--only", "grants", "--only", "jobs", **around
    )
    assert [finding["state"] for finding in findings] == ["ok", "fix"]
    assert "create extension if not exists pg_cron" in findings[1]["todo"]


def test_check_that_does_not_exist_and_project_that_does_not_answer(stack: LocalStack) -> None:
    assert doctor("--data", str(stack.data), "--only", "moon")[:2][0] == 2
    code, (error,), _ = doctor(FLEET_API_URL="http://127.0.0.1:1", FLEET_KEY="sb_secret_x")
    assert (code, error["kind"]) == (3, "unreachable")
