"""A throwaway PostgreSQL cluster for tests: unix socket only, no durability, gone at the end."""

from __future__ import annotations

import os
import pwd
import shutil
import subprocess
import tempfile
import uuid
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import psycopg
from psycopg import sql

from fleetctl import migrate

ROOT = Path(__file__).resolve().parents[2]
SUPERUSER = "supabase_admin"
# Speed over safety: nothing here outlives the run.
SETTINGS = {
    "listen_addresses": "",
    "max_connections": "400",
    "shared_buffers": "64MB",
    "fsync": "off",
    "synchronous_commit": "off",
    "full_page_writes": "off",
    "autovacuum": "off",
    # The race tests ask in which order transactions committed.
    "track_commit_timestamp": "on",
    "timezone": "UTC",
}

type_of_connection = psycopg.Connection[tuple[Any, ...]]


def _unprivileged_user() -> str | None:
    """PostgreSQL refuses to run as root: the user to run it as, None for whoever we are."""
    if os.geteuid() != 0:
        return None
    for name in ("postgres", "embedded_postgres", "nobody"):
        try:
            return pwd.getpwnam(name).pw_name
        except KeyError:
            continue
    raise RuntimeError("root needs a user named postgres or nobody to run PostgreSQL as")


@dataclass
class Cluster:
    """A running server; `template` names a database with bootstrap and all migrations applied."""

    socket: Path
    template: str = "fleet_template"

    def connect(self, database: str, user: str = SUPERUSER) -> type_of_connection:
        return psycopg.connect(host=str(self.socket), dbname=database, user=user, autocommit=True)

    def url(self, database: str, user: str = SUPERUSER) -> str:
        return f"host={self.socket} dbname={database} user={user}"

    def clone(self, template: str) -> str:
        """A new database that is a copy of the template; returns its name."""
        name = f"t_{uuid.uuid4().hex[:12]}"
        with self.connect("postgres") as admin:
            admin.execute(
                sql.SQL("create database {} template {} owner postgres").format(
                    sql.Identifier(name), sql.Identifier(template)
                )
            )
        return name

    def drop(self, name: str) -> None:
        with self.connect("postgres") as admin:
            admin.execute(sql.SQL("drop database {} with (force)").format(sql.Identifier(name)))

    def make_template(self) -> None:
        with self.connect("postgres") as admin:
            admin.execute(sql.SQL("create database {}").format(sql.Identifier(self.template)))
        with self.connect(self.template) as admin:
            bootstrap(admin)
        with self.connect(self.template) as admin:
            migrate.migrate(admin, ROOT / "migrations")


def bootstrap(admin: type_of_connection) -> None:
    text = (ROOT / "supabase" / "local" / "bootstrap.sql").read_text(encoding="utf-8")
    with admin.transaction():
        admin.execute(text.encode())


@contextmanager
def running(binaries: Path, settings: Mapping[str, str] | None = None) -> Iterator[Cluster]:
    """Start a cluster with these binaries; stop and delete it afterwards.

    `settings` win over ours; `{socket}` in a value is the folder of the socket.
    """
    user = _unprivileged_user()
    base = Path(os.environ.get("FLEET_TEST_DATA", "/dev/shm" if os.access("/dev/shm", os.W_OK) else "/tmp"))
    folder = Path(tempfile.mkdtemp(prefix="fleet-sql-", dir=base))
    try:
        if user is not None:
            shutil.chown(folder, user)
        data, socket = folder / "data", folder

        def run(*command: str) -> None:
            done = subprocess.run(
                command, user=user, cwd=folder, capture_output=True, text=True, check=False, timeout=120
            )
            if done.returncode != 0:
                log = folder / "log"
                tail = log.read_text()[-2000:] if log.exists() else ""
                raise RuntimeError(f"{command[0]}: {done.stdout}{done.stderr}{tail}")

        run(
            str(binaries / "initdb"), "--pgdata", str(data), "--username", SUPERUSER,
            "--auth", "trust", "--encoding", "UTF8", "--locale", "C", "--no-sync",
        )  # fmt: skip
        chosen = SETTINGS | dict(settings or {})
        options = " ".join(f"-c {key}='{value.format(socket=socket)}'" for key, value in chosen.items())
        control = [str(binaries / "pg_ctl"), "--pgdata", str(data), "--wait"]
        run(*control, "--log", str(folder / "log"), "-o", f"-k {socket} {options}", "start")
        try:
            yield Cluster(socket)
        finally:
            run(*control, "--mode", "immediate", "stop")
    finally:
        shutil.rmtree(folder, ignore_errors=True)
