"""What is done, in order. Each step may be repeated at any time."""

from __future__ import annotations

import json
import re
import secrets
import tempfile
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

import psycopg

from fleetctl.client.api import Api
from fleetctl.client.query import where
from fleetctl.client.target import Target
from fleetctl.doctor import read_signing_key
from fleetctl.errors import FleetctlError
from fleetctl.hosted.cli import SupabaseCli
from fleetctl.hosted.project import HostedProject
from fleetctl.migrate import migrate
from fleetctl.stack import dashboard, dashboard_export
from fleetctl.stack.deno import find_deno

_FUNCTIONS = ("enroll", "device-token")
#: One statement, as the CLI sends it; pg_cron is on already where the migrations found it.
_SCHEDULE = "do $$ begin create extension if not exists pg_cron; perform private.schedule_tick(); end $$"


@dataclass(frozen=True)
class Step:
    """`commands` are run by `work`, by the CLI; `by_hand` is what a person does in the project's dashboard.

    `checks` of `fleetctl doctor` say from outside that it is done; a step whose checks are right is skipped
    only if it is done by hand.
    """

    title: str
    commands: Sequence[Sequence[str]] = ()
    work: Callable[[], None] | None = None
    by_hand: str = ""
    checks: Sequence[str] = ()


def steps(project: HostedProject, cli: SupabaseCli, say: Callable[[str], None]) -> list[Step]:
    remote = f"--remote={project.ref}"
    keys = ("projects", "api-keys", remote, "--reveal", "--output", "json")
    env_file = str(project.folder / "functions.env")
    runs = {
        "link": ("link", "--project-ref", project.ref),
        "push": ("db", "push", "--remote", "--yes"),
        "config": ("config", "push", remote, "--yes"),
        "key": ("gen", "signing-key", "--algorithm", "ES256"),
        "deploy": ("functions", "deploy", *_FUNCTIONS, remote, "--use-api"),
        "secrets": ("secrets", "set", "--env-file", env_file, remote),
        "schedule": ("db", "query", "--remote", "--yes", _SCHEDULE),
        "advisors": ("db", "advisors", "--remote", "--fail-on", "error"),
    }

    def run(name: str) -> Callable[[], None]:
        return lambda: cli.run(*runs[name])

    return [
        Step("Look for the Supabase CLI, signed in", [("--version",), ("projects", "list")], cli.require),
        Step("Link this checkout to the project", [runs["link"]], run("link")),
        Step(
            "Apply the migrations", [runs["push"]], lambda: _push(project, cli, runs["push"]),
            checks=("migrations", "baseline", "roles", "grants"),
        ),
        Step("Ask the advisors; errors end it", [runs["advisors"]], run("advisors")),
        Step("Send supabase/config.toml", [runs["config"]], run("config")),
        Step(
            "Read the project's keys", [keys], lambda: _read_keys(project, cli.ask(*keys)), checks=("keys",)
        ),
        Step(
            "Make the key that signs device tokens", [runs["key"]],
            lambda: _make_key(project, cli, runs["key"]),
        ),
        Step(
            "Have the project accept that key",
            by_hand="Project Settings → JWT Keys: Create standby key → Import an existing key (ES256), paste "
            f"the content of {project.signing_key}, then Rotate keys.",
            checks=("signing-key",),
        ),
        Step(
            "Give the key to the functions", [runs["secrets"]],
            lambda: _set_secrets(project, cli, Path(env_file), runs["secrets"]),
        ),
        Step("Deploy the functions", [runs["deploy"]], run("deploy"), checks=("functions",)),
        Step("Have pg_cron run the scheduler", [runs["schedule"]], run("schedule"), checks=("jobs",)),
        Step(
            "Serve only the schema public",
            by_hand="Project Settings → Data API → Exposed schemas: only public (config push sends it).",
            checks=("schemas",),
        ),
        Step(
            "Refuse public channels",
            by_hand="Realtime → Settings: switch off Allow public access. This ends every open connection.",
            checks=("realtime",),
        ),
        Step(
            "Close sign-up to strangers",
            by_hand="Authentication → Sign In / Providers: switch off Allow new users to sign up "
            "(config push sends it).",
            checks=("sign-up",),
        ),
        Step(
            f"Make {project.email} the first admin", work=lambda: _add_admin(project, say), checks=("admin",)
        ),
        Step(f"Build the dashboard into {project.dashboard}", work=lambda: build_dashboard(project, say)),
    ]  # fmt: skip


def _push(project: HostedProject, cli: SupabaseCli, command: Sequence[str]) -> None:
    cli.run(*command)
    # Notes which text made the database, and has PostgREST read the schema again.
    with psycopg.connect(project.db_url, autocommit=True, connect_timeout=30) as connection:
        migrate(connection, project.checkout.migrations)


def _read_keys(project: HostedProject, said: str) -> None:
    """Whatever form the CLI gives its list: both kinds of key are known by how they begin."""
    for kind in ("publishable", "secret"):
        found = re.search(rf"\bsb_{kind}_[A-Za-z0-9_-]+", said)
        if found is None:
            raise FleetctlError(
                "project_keys_missing",
                f"The project {project.ref} has no {kind} key (sb_{kind}_…).",
                hint="Create it in the project's dashboard, Project Settings → API Keys. Then start again.",
            )
        setattr(project, f"{kind}_key", found[0])


def _make_key(project: HostedProject, cli: SupabaseCli, command: Sequence[str]) -> None:
    """Once: a new key would be another one to import."""
    if not project.signing_key.exists():
        said = cli.ask(*command)
        lines = [line for line in said.splitlines() if line.lstrip().startswith(("{", "["))]
        project.keep_private(project.signing_key, "".join(lines[:1]) + "\n")
    read_signing_key(project.signing_key)


def _set_secrets(project: HostedProject, cli: SupabaseCli, env_file: Path, command: Sequence[str]) -> None:
    jwk = json.dumps(read_signing_key(project.signing_key), separators=(",", ":"))
    project.keep_private(env_file, f"FLEET_SIGNING_JWK='{jwk}'\n")
    try:
        cli.run(*command)
    finally:
        env_file.unlink()


def _add_admin(project: HostedProject, say: Callable[[str], None]) -> None:
    api = Api(Target(project.api_url, project.secret_key or ""))
    if api.rows("operators", where(rank="admin"), order="email"):
        say("There is an admin already.")
        return
    # Kept until the rank is given: a run that stops in between would not know it any more.
    kept = project.folder / "first-password"
    if not kept.exists():
        project.keep_private(kept, secrets.token_urlsafe(12))
    password = kept.read_text()
    try:
        user = api.make_user(project.email, password)
    except FleetctlError as error:
        if error.kind == "user_exists":
            error.hint = (
                "Look up their id in the project's dashboard, Authentication → Users. Then run fleetctl "
                f"operator add {project.email} --user-id ID --rank admin, and start again."
            )
            kept.unlink()
        raise
    api.insert("operators", {"user_id": str(user), "email": project.email, "rank": "admin"})
    kept.unlink()
    say(f"Password of {project.email}, shown only once: {password}")


def build_dashboard(project: HostedProject, say: Callable[[str], None]) -> None:
    """`dashboard/` is replaced as a whole; it holds nothing secret, and any static host serves it."""
    checkout = project.checkout
    if dashboard.needs_build(checkout):
        dashboard.build(checkout, find_deno(), project.folder / "dashboard-build.log", say)
    with tempfile.TemporaryDirectory(dir=project.folder) as work:
        made = Path(work) / "dashboard"
        dashboard_export.export(checkout.web / "dist", made, project.api_url, project.publishable_key or "")
        if project.dashboard.exists():
            project.dashboard.rename(Path(work) / "old")
        made.rename(project.dashboard)
