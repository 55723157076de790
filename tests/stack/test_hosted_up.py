"""`fleetctl hosted up`: a step with a verb of the CLI is run, any other is waited for, all can be repeated.

A stand-in `supabase` on the PATH writes down its arguments. With the real CLI, it passes on what that can do
without Supabase's own service; the rest was never run against that service, as docs/usage/hosted.md says.
"""

from __future__ import annotations

import json
import os
import shutil
import socket
import stat
import uuid
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from pathlib import Path

import psycopg
import pytest
from typer.testing import CliRunner

from fleetctl.client.api import Api
from fleetctl.client.target import Target
from fleetctl.commands.hosted import app
from fleetctl.doctor import ControlPlane, Finding, State, examine
from fleetctl.errors import FleetctlError
from fleetctl.hosted import HostedProject, SupabaseCli, bring_up, steps
from fleetctl.stack.layout import Project
from fleetctl.stack.local_stack import LocalStack
from tests.conftest import POSTGRES_15
from tests.support import supabase_cli
from tests.support.cluster import ROOT, bootstrap, running

REF = "abcdefghijklmnopqrst"
STAND_IN = r"""#!/bin/sh
printf '%s\n' "$*" >> "$STAND_IN_LOG"
case "$*" in
  --version) echo 3.1.0; exit 0 ;;
  "projects api-keys "*) printf '%s\n' "$STAND_IN_KEYS" ;;
  "secrets set "*) cat "$4" > "$STAND_IN_LOG.secrets" ;;
esac
case "$1" in db | gen)
  if [ -n "$STAND_IN_REAL" ]; then
    for word; do
      shift
      if [ "$word" = --remote ]; then word="--remote=$STAND_IN_DB_URL"; fi
      set -- "$@" "$word"
    done
    exec "$STAND_IN_REAL" "$@"
  fi
  if [ "$1" = gen ]; then printf '%s\n' "$STAND_IN_JWK"; fi ;;
esac
if [ "$1" = "$STAND_IN_FAILS" ]; then exit 7; fi
"""
JWK = json.dumps(
    {"kty": "EC", "kid": "k1", "alg": "ES256", "key_ops": ["sign", "verify"], "crv": "P-256",
     "d": "fbKgysoUHV23uiUg6_rbtK3nX07z9XdwFoMPZZWjhUc", "x": "oDuwW3cxpb6iSFXIXZZ7IeM7ZHCaOAhkILRIKdnvpNU",
     "y": "dttW7kq8GM04lHg7F0zU5ckYMuvaE9bAN3RfHvJdMUo"}
)  # fmt: skip
DATABASE = {"migrations", "baseline", "roles", "grants", "jobs"}

#: What a build's page has of its policy.
BUILT = '<meta http-equiv="Content-Security-Policy" content="connect-src &#39;self&#39; https:">'


@dataclass
class Desk:
    """A person who sets up a project: the CLI on their PATH, and what the project is like from outside."""

    stack: LocalStack
    tmp: Path
    db_url: str
    email: str
    #: What is not right yet, seen from outside; a person at the dashboard takes it away.
    open: set[str] = field(default_factory=set)
    #: What is asked of the database itself.
    really: set[str] = field(default_factory=set)
    said: list[str] = field(default_factory=list)
    waited: list[float] = field(default_factory=list)

    @property
    def log(self) -> Path:
        return self.tmp / "arguments"

    @property
    def commands(self) -> list[str]:
        if not self.log.exists():
            return []
        return self.log.read_text().splitlines()

    @property
    def project(self) -> HostedProject:
        checkout = self.tmp / "checkout"
        if not checkout.exists():
            (checkout / "web" / "dist").mkdir(parents=True)
            (checkout / "web" / "dist" / "index.html").write_text(BUILT)
            (checkout / "migrations").symlink_to(ROOT / "migrations")
            (checkout / "supabase").symlink_to(ROOT / "supabase")
        return HostedProject(
            ref=REF, folder=self.tmp / "kept" / REF, checkout=Project(checkout), db_url=self.db_url,
            email=self.email, api_url=self.stack.api_url,
        )  # fmt: skip

    def up(self, *, wait_s: float = 0) -> HostedProject:
        project = self.project
        todo = steps(project, SupabaseCli(project.checkout.root, self.said.append), self.said.append)
        bring_up(project, todo, self._examine, self.said.append, wait_s=wait_s, sleep=self._sleep)
        return project

    def _examine(self, plane: ControlPlane, only: Iterable[str]) -> Iterator[Finding]:
        for name in only:
            if name in self.really:
                yield from examine(plane, [name])
            elif name in self.open:
                yield Finding(name, State.FIX, f"{name} is open.", "Do it.")
            else:
                yield Finding(name, State.OK, f"{name} is right.")

    def _sleep(self, seconds: float) -> None:
        """While fleetctl waits, the person does it."""
        self.waited.append(seconds)
        self.open.clear()


@pytest.fixture
def desk(stack: LocalStack, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Desk:
    programs = tmp_path / "bin"
    programs.mkdir()
    (programs / "supabase").write_text(STAND_IN)
    (programs / "supabase").chmod(0o755)
    keys = [
        {"name": "default", "type": "publishable", "api_key": stack.publishable_key},
        {"name": "default", "type": "secret", "api_key": stack.secret_key},
        {"name": "anon", "type": "legacy", "api_key": "eyJhbGciOiJIUzI1NiJ9.e30.x"},
    ]
    for name, value in (
        ("PATH", f"{programs}{os.pathsep}{os.environ['PATH']}"),
        ("STAND_IN_LOG", str(tmp_path / "arguments")),
        ("STAND_IN_KEYS", json.dumps(keys, indent=2)),
        ("STAND_IN_JWK", JWK),
    ):
        monkeypatch.setenv(name, value)
    email = f"first-{uuid.uuid4().hex[:8]}@example.com"
    return Desk(
        stack, tmp_path, stack.postgres_db_url, email, really={"migrations", "baseline", "roles", "grants"}
    )


def admins(stack: LocalStack) -> list[str]:
    with psycopg.connect(stack.db_url) as admin:
        rows = admin.execute("select email from public.operators where rank = 'admin'").fetchall()
    return [row[0] for row in rows]


@pytest.fixture(autouse=True)
def nobody_is_admin(stack: LocalStack) -> None:
    with psycopg.connect(stack.db_url, autocommit=True) as admin:
        admin.execute("set session_replication_role = replica; delete from public.operators where true")


def test_every_step_with_a_verb_is_run_in_order_and_no_secret_is_an_argument(
    desk: Desk, stack: LocalStack
) -> None:
    project = desk.up()
    env_file = project.folder / "functions.env"
    assert desk.commands == [
        "--version",
        "projects list",
        f"link --project-ref {REF}",
        "db push --remote --yes",
        "db advisors --remote --fail-on error",
        f"config push --remote={REF} --yes",
        f"projects api-keys --remote={REF} --reveal --output json",
        "gen signing-key --algorithm ES256",
        f"secrets set --env-file {env_file} --remote={REF}",
        f"functions deploy enroll device-token --remote={REF} --use-api",
        "db query --remote --yes do $$ begin create extension if not exists pg_cron; "
        "perform private.schedule_tick(); end $$",
    ]
    secret = json.loads(JWK)["d"]
    printed = "\n".join(desk.said + desk.commands)
    assert secret not in printed
    assert stack.secret_key not in printed
    assert not env_file.exists()
    given = (desk.tmp / "arguments.secrets").read_text()
    assert json.loads(given.strip().removeprefix("FLEET_SIGNING_JWK='").removesuffix("'")) == json.loads(JWK)
    assert stat.S_IMODE(project.signing_key.stat().st_mode) == 0o600
    assert admins(stack) == [desk.email]
    assert json.loads((project.dashboard / "config.json").read_text()) == {
        "supabaseUrl": stack.api_url,
        "publishableKey": stack.publishable_key,
    }
    assert (
        f"connect-src &#x27;self&#x27; {project.api_url} ws://"
        in (project.dashboard / "index.html").read_text()
    )
    assert (project.dashboard / "_headers").exists()
    with psycopg.connect(stack.db_url) as admin:
        assert admin.execute("select count(*) from private.baseline").fetchone() == (1,)


def test_what_a_person_has_to_do_is_waited_for_and_seen_from_outside(desk: Desk) -> None:
    desk.open = {"signing-key"}
    desk.up(wait_s=60)
    assert desk.waited == [10.0]
    told = "\n".join(desk.said)
    assert "JWT Keys: Create standby key" in told
    assert "Waiting for at most 1 minutes. signing-key is open." in told


def test_run_that_stopped_goes_on_and_what_is_done_stays_done(desk: Desk, stack: LocalStack) -> None:
    desk.open = {"realtime"}
    with pytest.raises(FleetctlError) as caught:
        desk.up()
    assert caught.value.kind == "step_open"
    assert "Refuse public channels. realtime is open." in caught.value.message
    assert "Allow public access" in caught.value.hint
    kept = desk.project.signing_key.read_bytes()
    assert admins(stack) == []

    # Auth made the person, and the connection was lost before they had a rank.
    password = desk.tmp / "kept" / REF / "first-password"
    password.write_text("correct horse battery")
    Api(Target(stack.api_url, stack.secret_key)).make_user(desk.email, password.read_text())

    desk.open = set()
    desk.up()
    desk.up()
    assert not password.exists()
    assert desk.project.signing_key.read_bytes() == kept
    assert desk.commands.count("gen signing-key --algorithm ES256") == 1
    assert admins(stack) == [desk.email]
    assert sum("shown only once" in line for line in desk.said) == 1


@pytest.mark.parametrize(
    ("name", "kind"),
    [("link", "supabase_cli_failed"), ("projects", "supabase_not_signed_in"), ("db", "supabase_cli_failed")],
)
def test_command_that_fails_ends_it_with_the_command(
    desk: Desk, monkeypatch: pytest.MonkeyPatch, name: str, kind: str
) -> None:
    monkeypatch.setenv("STAND_IN_FAILS", name)
    with pytest.raises(FleetctlError) as caught:
        desk.up()
    assert caught.value.kind == kind
    assert "ended with exit code 7" in caught.value.message
    assert desk.commands[-1].startswith(name)


def test_without_the_cli_it_says_how_to_install_it(desk: Desk, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PATH", str(desk.tmp))
    with pytest.raises(FleetctlError) as caught:
        desk.up()
    assert (caught.value.kind, caught.value.exit_code) == ("supabase_cli_missing", 2)


def test_older_cli_which_would_take_the_words_otherwise_is_refused(
    desk: Desk, monkeypatch: pytest.MonkeyPatch
) -> None:
    program = shutil.which("supabase")
    assert program is not None
    Path(program).write_text(Path(program).read_text().replace("3.1.0", "2.98.2"))
    with pytest.raises(FleetctlError) as caught:
        desk.up()
    assert caught.value.kind == "supabase_cli_too_old"
    assert desk.commands == ["--version"]


def test_dry_run_prints_every_command_and_runs_none(desk: Desk) -> None:
    done = CliRunner().invoke(app, ["up", "--project-ref", REF, "--email", "a@example.com", "--dry-run"])
    assert done.exit_code == 0, done.output
    assert desk.commands == []
    for line in (
        f"$ supabase link --project-ref {REF}", "$ supabase db push --remote --yes",
        f"$ supabase config push --remote={REF} --yes", "$ supabase gen signing-key --algorithm ES256",
        f"$ supabase functions deploy enroll device-token --remote={REF} --use-api", "$ supabase secrets set",
        "By hand: Project Settings → JWT Keys", "By hand: Realtime → Settings: switch off Allow public",
        "Make a@example.com the first admin", "Checked by: fleetctl doctor --only jobs",
    ):  # fmt: skip
        assert line in done.output


@pytest.mark.parametrize(
    ("change", "kind"),
    [
        ({"ref": "my-project"}, "project_ref_malformed"),
        ({"db_url": "postgresql://postgres:x@db.tsrqponmlkjihgfedcba.supabase.co:5432/postgres"},
         "project_mismatch"),
        ({"db_url": "postgresql://postgres.tsrqponmlkjihgfedcba:x@aws-0-eu.pooler.supabase.com:5432/postgres"},
         "project_mismatch"),
    ],
)  # fmt: skip
def test_project_and_its_database_belong_together(tmp_path: Path, change: dict[str, str], kind: str) -> None:
    given = {
        "ref": REF,
        "db_url": f"postgresql://postgres.{REF}:x@aws-0-eu.pooler.supabase.com:6543/postgres",
    }
    HostedProject(**given, folder=tmp_path, checkout=Project(ROOT), email="a@example.com")
    with pytest.raises(FleetctlError) as caught:
        HostedProject(**{**given, **change}, folder=tmp_path, checkout=Project(ROOT), email="a@example.com")
    assert caught.value.kind == kind


#: What hosted's supautils does after `create extension pg_cron`, as in tests/sql/test_pg_cron.py.
WITH_CRON = """
create extension pg_cron;
grant usage on schema cron to postgres with grant option;
grant all privileges on all tables in schema cron to postgres with grant option;
revoke all on table cron.job from postgres;
grant select on table cron.job to postgres with grant option;
"""


@pytest.mark.full
@pytest.mark.supabase
@pytest.mark.postgres15
def test_cli_itself_pushes_advises_makes_the_key_and_schedules(
    desk: Desk, monkeypatch: pytest.MonkeyPatch
) -> None:
    with socket.create_server(("127.0.0.1", 0)) as free:
        port = free.getsockname()[1]
    settings = {
        "listen_addresses": "127.0.0.1", "port": str(port), "shared_preload_libraries": "pg_cron",
        "cron.database_name": "postgres", "cron.host": "{socket}",
    }  # fmt: skip
    with running(POSTGRES_15, settings):
        at = f"127.0.0.1:{port}/postgres?sslmode=disable"
        with psycopg.connect(f"postgresql://supabase_admin@{at}", autocommit=True) as admin:
            bootstrap(admin)
            admin.execute(WITH_CRON.encode())
        desk.db_url = f"postgresql://postgres@{at}"
        for name, value in supabase_cli.environment(desk.tmp / "home").items():
            monkeypatch.setenv(name, value)
        monkeypatch.setenv("STAND_IN_REAL", str(supabase_cli.program()))
        monkeypatch.setenv("STAND_IN_DB_URL", desk.db_url)
        desk.really = {"migrations", "baseline", "roles", "grants"}
        project = desk.up()
        assert json.loads(project.signing_key.read_text())["kid"] != "k1"
        with psycopg.connect(desk.db_url, autocommit=True) as owner:
            jobs = owner.execute("select jobname from cron.job where active order by 1").fetchall()
            assert [job for (job,) in jobs] == ["metrica-fleet-forget-runs", "metrica-fleet-tick"]
            # pg_cron 1.4 would run it in the next minute.
            owner.execute("select private.tick(now())")
        assert {one.check: one.state for one in examine(project.control_plane(), DATABASE)} == dict.fromkeys(
            ("migrations", "baseline", "roles", "grants", "jobs"), State.OK
        )
