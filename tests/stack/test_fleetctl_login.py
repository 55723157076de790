"""Signing in with fleetctl: in whose name things happen, how far a rank reaches, and what is kept on disk."""

from __future__ import annotations

import json
import stat
from collections.abc import Callable, Iterator
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any
from uuid import uuid4

import psycopg
import pytest
import typer
from psycopg.rows import dict_row
from typer.testing import CliRunner

from fleetctl.client import known_fleets
from fleetctl.commands import register
from fleetctl.errors import FleetctlError
from fleetctl.stack.local_stack import LocalStack

Db = psycopg.Connection[dict[str, Any]]
Run = Callable[..., str]
PASSWORD = "correct horse battery"


@pytest.fixture(scope="module")
def db(stack: LocalStack) -> Iterator[Db]:
    with psycopg.connect(stack.db_url, autocommit=True, row_factory=dict_row) as connection:
        yield connection


@pytest.fixture
def kept(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    file = tmp_path / "config" / "session.json"
    monkeypatch.setenv("FLEET_SESSION", str(file))
    for name in ("FLEET_API_URL", "FLEET_KEY", "FLEET_PUBLISHABLE_KEY"):
        monkeypatch.delenv(name, raising=False)
    return file


@pytest.fixture
def run(kept: Path, stack: LocalStack) -> Run:
    app = typer.Typer()
    register(app)

    def run(*args: str, **environment: str) -> str:
        result = CliRunner().invoke(app, list(args), env={"COLUMNS": "200", **environment})
        if result.exception is not None:
            raise result.exception
        return result.stdout

    return run


@pytest.fixture
def person(stack: LocalStack, run: Run) -> Callable[[str | None], str]:
    """Makes somebody of this rank, or of none, and returns their address."""

    def make(rank: str | None) -> str:
        email = f"{uuid4().hex[:10]}@example.com"
        secret = {"FLEET_API_URL": stack.api_url, "FLEET_KEY": stack.secret_key}
        run("operator", "add", email, "--rank", rank or "viewer", "--password", PASSWORD, **secret)
        if rank is None:
            run("operator", "remove", email, **secret)
        return email

    return make


def sign_in(run: Run, stack: LocalStack, email: str, password: str = PASSWORD, fleet: str = "here") -> str:
    return run(
        "login", email, "--api-url", stack.api_url, "--publishable-key", stack.publishable_key,
        "--fleet", fleet, FLEET_PASSWORD=password,
    )  # fmt: skip


def refused(act: Callable[[], object]) -> tuple[str, int]:
    with pytest.raises(FleetctlError) as caught:
        act()
    return caught.value.kind, caught.value.exit_code


def test_what_a_person_changes_is_audited_under_their_name(
    run: Run, stack: LocalStack, person: Callable[[str | None], str], db: Db
) -> None:
    email = person("operator")
    assert f"Signed in as {email}" in sign_in(run, stack, email)
    assert run("whoami") == f"{email} at {stack.api_url} (operator).\n"
    made = json.loads(run("halt", "open", "segment", "early", "smoke", "--json"))
    run("halt", "lift", made["id"], "over", "--yes")
    rows = db.execute(
        "select distinct actor from audit_log where table_name = 'halts' and row_id = %s", [made["id"]]
    ).fetchall()
    assert [row["actor"] for row in rows] == [email]


def test_a_rank_bounds_what_fleetctl_may(
    run: Run, stack: LocalStack, person: Callable[[str | None], str]
) -> None:
    sign_in(run, stack, person("viewer"))
    assert "(viewer)" in run("whoami")
    run("device", "list")
    assert refused(lambda: run("halt", "fleet", "smoke"))[1] == 4
    sign_in(run, stack, person(None))
    assert "not an operator" in run("whoami")
    assert refused(lambda: run("device", "list")) == ("not_an_operator", 4)


def test_the_session_is_for_this_user_alone_and_logout_removes_it(
    run: Run, stack: LocalStack, person: Callable[[str | None], str], kept: Path
) -> None:
    email = person("viewer")
    sign_in(run, stack, email)
    assert stat.S_IMODE(kept.stat().st_mode) == 0o600
    assert PASSWORD not in kept.read_text()
    (found,) = known_fleets.load().sessions.values()
    assert found.access_token not in repr(found) + str(found)
    assert run("logout").startswith("Signed out of ")
    assert not kept.exists()
    assert run("logout") == "You were not signed in.\n"


def test_a_session_that_is_about_to_end_is_renewed(
    run: Run, stack: LocalStack, person: Callable[[str | None], str]
) -> None:
    email = person("viewer")
    sign_in(run, stack, email)
    (old,) = known_fleets.load().sessions.values()
    known_fleets.remember(replace(old, expires_at=datetime.now(UTC) + timedelta(seconds=30)))
    assert email in run("whoami")
    (renewed,) = known_fleets.load().sessions.values()
    assert renewed.expires_at > datetime.now(UTC) + timedelta(minutes=10)
    known_fleets.remember(replace(renewed, expires_at=datetime.now(UTC), refresh_token="gone"))
    assert refused(lambda: run("whoami")) == ("session_ended", 4)


def test_the_secret_key_comes_before_the_session(
    run: Run, stack: LocalStack, person: Callable[[str | None], str]
) -> None:
    sign_in(run, stack, person("viewer"))
    said = run("whoami", FLEET_API_URL=stack.api_url, FLEET_KEY=stack.secret_key)
    assert said == f"service_role at {stack.api_url} (service key: everything).\n"


def test_refusals_have_kinds(
    run: Run, stack: LocalStack, person: Callable[[str | None], str], kept: Path
) -> None:
    email = person("viewer")
    assert refused(lambda: sign_in(run, stack, email, "wrong")) == ("sign_in_refused", 4)
    assert not kept.exists()
    assert refused(lambda: run("login", email, "--api-url", stack.api_url)) == ("target_incomplete", 2)
    assert refused(
        lambda: run("login", email, "--api-url", stack.api_url, "--publishable-key", "x")
    ) == ("password_missing", 2)  # fmt: skip
    nowhere = ("login", email, "--api-url", "http://127.0.0.1:9", "--publishable-key", "x", "--password", "x")
    assert refused(lambda: run(*nowhere)) == ("unreachable", 3)
    kept.parent.mkdir(exist_ok=True)
    kept.write_text("{")
    assert refused(lambda: run("whoami")) == ("session_unreadable", 4)
    assert run("logout") == "You were not signed in.\n"
    assert not kept.exists()


# --- which fleet --------------------------------------------------------------------------------------------


@pytest.fixture
def production(kept: Path, monkeypatch: pytest.MonkeyPatch) -> str:
    """Somebody is signed in to a fleet that does not answer, and the environment names one as well."""
    ends = datetime.now(UTC) + timedelta(hours=1)
    at = "http://127.0.0.1:9"
    known_fleets.remember(
        known_fleets.Session(
            fleet="production", api_url=at, publishable_key="sb_publishable_x", email="ada@example.com",
            user_id=str(uuid4()), access_token="token", refresh_token="token", expires_at=ends,
        ),
        use=True,
    )  # fmt: skip
    monkeypatch.setenv("FLEET_API_URL", "http://127.0.0.1:7")
    monkeypatch.setenv("FLEET_KEY", "sb_secret_production")
    return at


def test_what_is_typed_decides_and_one_fleet_of_several_is_used(
    run: Run, stack: LocalStack, production: str, person: Callable[[str | None], str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:  # fmt: skip
    """A halt that is meant for the test stack does not reach production, whatever is around."""
    data = ("--data", str(stack.data))
    assert run("whoami", *data) == f"service_role at {stack.api_url} (service key: everything).\n"
    email = person("operator")
    sign_in(run, stack, email, fleet="test")
    assert run("whoami", *data).startswith(f"{email} at {stack.api_url}")
    assert json.loads(run("fleet", "list", "--json")) == [
        {"fleet": "production", "api_url": production, "email": "ada@example.com", "in_use": False},
        {"fleet": "test", "api_url": stack.api_url, "email": email, "in_use": False},
        {"fleet": "FLEET_API_URL", "api_url": "http://127.0.0.1:7", "email": None, "in_use": True},
    ]
    assert run("whoami", "--fleet", "test") == f"{email} at {stack.api_url} (operator).\n"
    monkeypatch.delenv("FLEET_API_URL")
    monkeypatch.delenv("FLEET_KEY")
    assert run("whoami").startswith(email)
    run("fleet", "use", "production")
    assert refused(lambda: run("whoami")) == ("unreachable", 3)
    made = json.loads(run("halt", "open", "segment", "early", "smoke", "--fleet", "test", "--json"))
    run("halt", "lift", made["id"], "over", "--yes", *data)
    assert run("logout") == (
        "Signed out of production. Still signed in to test: choose one with fleetctl fleet use.\n"
    )
    assert refused(lambda: run("whoami")) == ("fleet_not_chosen", 2)
    assert "production" not in run("fleet", "list")


def test_the_fleet_is_named_on_stderr_if_there_is_another(stack: LocalStack, production: str) -> None:
    app = typer.Typer()
    register(app)
    shown = CliRunner().invoke(app, ["whoami", "--data", str(stack.data)], env={"COLUMNS": "200"})
    assert shown.stderr == f"fleet: {stack.data} ({stack.api_url}, with a key)\n"


def test_an_admin_makes_no_users_without_the_secret_key(
    run: Run, stack: LocalStack, person: Callable[[str | None], str]
) -> None:
    """Sign-up is closed, to admins as well: they give a rank to a user that Auth has."""
    sign_in(run, stack, person("admin"))
    with pytest.raises(FleetctlError) as refused:
        run("operator", "add", f"{uuid4().hex[:10]}@example.com")
    assert (refused.value.kind, refused.value.exit_code) == ("key_refused", 4)
    assert "secret key" in refused.value.message
