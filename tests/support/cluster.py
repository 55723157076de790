"""A throwaway PostgreSQL cluster for tests: unix socket only, no durability, gone at the end."""

from __future__ import annotations

import os
import pwd
import shutil
import stat
import subprocess
import tempfile
import uuid
from collections.abc import Iterator, Mapping
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from datetime import UTC, datetime
from functools import cached_property
from pathlib import Path
from typing import Any

import psycopg
from psycopg import sql

from fleetctl import migrate
from tests.support.cached import cached, copy, digest

ROOT = Path(__file__).resolve().parents[2]
MIGRATIONS = ROOT / "migrations"
BOOTSTRAP = ROOT / "supabase" / "local" / "bootstrap.sql"
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
    # A crowd on a slow machine is not a person who keeps a lock: see test_held_lock.py.
    "fleet.lock_patience": "60s",
    "timezone": "UTC",
}

#: For what takes a moment: it ends a test only where something hangs, however busy the machine is.
PATIENCE_S = 900
#: The roles have hosted's timeouts of some seconds, too short for a busy machine. No test here is about them.
PATIENT = f"-c statement_timeout={PATIENCE_S}s -c lock_timeout={PATIENCE_S}s"

type_of_connection = psycopg.Connection[tuple[Any, ...]]


def unprivileged_user() -> str | None:
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
    """A running server with two databases to clone, `cast` being `template` with rows (`make_cast`)."""

    socket: Path
    template: str = "fleet_template"
    cast: str = "cast_template"
    #: By template: a clone that nothing was written to.
    _unchanged: dict[str, str] = field(default_factory=dict, repr=False)

    @cached_property
    def _admin(self) -> type_of_connection:
        return self.connect("postgres")

    @contextmanager
    def copy_of(self, template: str) -> Iterator[str]:
        """The name of a database that is as the template is. Nobody else uses it; it is gone afterward.

        Another block may get the same one if nothing was written: to make and drop it is half of what a small
        test costs.
        """
        database = self._unchanged.pop(template, None) or self.clone(template)
        before = self._next_transaction()
        try:
            yield database
        finally:
            if self._next_transaction() == before:
                self._unchanged[template] = database
            else:
                self.drop(database)

    def _next_transaction(self) -> int:
        """Whatever writes, on the whole server, takes one of these numbers."""
        row = self._admin.execute("select pg_snapshot_xmax(pg_current_snapshot())::text::bigint").fetchone()
        assert row is not None
        return int(row[0])

    def connect(self, database: str, user: str = SUPERUSER) -> type_of_connection:
        return psycopg.connect(
            host=str(self.socket), dbname=database, user=user, autocommit=True, options=PATIENT
        )

    def url(self, database: str, user: str = SUPERUSER) -> str:
        return f"host={self.socket} dbname={database} user={user}"

    def clone(self, template: str) -> str:
        """A new database that is a copy of the template; returns its name.

        File by file: half the work of `wal_log`, the default, for a database as small as this.
        """
        name = f"t_{uuid.uuid4().hex[:12]}"
        self._admin.execute(
            sql.SQL("create database {} template {} owner postgres strategy file_copy").format(
                sql.Identifier(name), sql.Identifier(template)
            )
        )
        return name

    def drop(self, name: str) -> None:
        self._admin.execute(sql.SQL("drop database {} with (force)").format(sql.Identifier(name)))

    def make_template(self) -> None:
        with self.connect("postgres") as admin:
            admin.execute(sql.SQL("create database {}").format(sql.Identifier(self.template)))
        with self.connect(self.template) as admin:
            bootstrap(admin)
        with self.connect(self.template) as admin:
            migrate.migrate(admin, MIGRATIONS)

    def make_cast(self, rows: str) -> None:
        name = self.clone(self.template)
        with self.connect(name) as admin:
            admin.execute(rows.encode())
        with self.connect("postgres") as admin:
            admin.execute(
                sql.SQL("alter database {} rename to {}").format(
                    sql.Identifier(name), sql.Identifier(self.cast)
                )
            )


def bootstrap(admin: type_of_connection) -> None:
    with admin.transaction():
        admin.execute(BOOTSTRAP.read_bytes())


@contextmanager
def running(
    binaries: Path,
    settings: Mapping[str, str] | None = None,
    *,
    template: Path | None = None,
    keep: Path | None = None,
) -> Iterator[Cluster]:
    """Start a cluster with these binaries; stop and delete it afterwards.

    `settings` win over ours; `{socket}` in a value is the folder of the socket. It starts from a copy of the
    data folder `template` if there is one, and leaves a copy of its own at `keep` in the end.
    """
    user = unprivileged_user()
    base = Path(os.environ.get("FLEET_TEST_DATA", "/dev/shm" if os.access("/dev/shm", os.W_OK) else "/tmp"))
    folder = Path(tempfile.mkdtemp(prefix="fleet-sql-", dir=base))
    try:
        if user is not None:
            shutil.chown(folder, user)
            binaries = _within_reach(binaries, user, folder)
        data, socket = folder / "data", folder

        def run(*command: str) -> None:
            done = subprocess.run(
                command, user=user, cwd=folder, capture_output=True, text=True, check=False,
                timeout=2 * PATIENCE_S,
            )  # fmt: skip
            if done.returncode != 0:
                log = folder / "log"
                tail = log.read_text()[-2000:] if log.exists() else ""
                raise RuntimeError(f"{command[0]}: {done.stdout}{done.stderr}{tail}")

        if template is not None:
            copy(template, data)
        else:
            run(
                str(binaries / "initdb"), "--pgdata", str(data), "--username", SUPERUSER,
                "--auth", "trust", "--encoding", "UTF8", "--locale", "C", "--no-sync", "--no-instructions",
            )  # fmt: skip
        chosen = SETTINGS | dict(settings or {})
        options = " ".join(f"-c {key}='{value.format(socket=socket)}'" for key, value in chosen.items())
        control = [
            str(binaries / "pg_ctl"), "--pgdata", str(data), "--wait", "--timeout", str(PATIENCE_S)
        ]  # fmt: skip
        run(*control, "--log", str(folder / "log"), "-o", f"-k {socket} {options}", "start")
        try:
            yield Cluster(socket)
        finally:
            run(*control, "--mode", "immediate" if keep is None else "fast", "stop")
        if keep is not None:
            copy(data, keep)
    finally:
        shutil.rmtree(folder, ignore_errors=True)


def _within_reach(binaries: Path, user: str, folder: Path) -> Path:
    """`binaries`, or a copy in `folder` where `user` may not go to them: a checkout in /root, for example."""
    uid = pwd.getpwnam(user).pw_uid
    ways = [(way.stat().st_uid == uid, way.stat().st_mode) for way in binaries.parents]
    if all(mode & (stat.S_IXUSR if owner else stat.S_IXOTH) for owner, mode in ways):
        return binaries
    # The programs find their libraries and files beside themselves.
    shutil.copytree(binaries.parent, folder / "programs", symlinks=True)
    return folder / "programs" / binaries.name


@contextmanager
def from_templates(binaries: Path, cast: str) -> Iterator[Cluster]:
    """A cluster with two databases to clone: migrated, and migrated with the rows of `cast`.

    The first comes from a folder that is kept while migrations, bootstrap and server stay the same, and for a
    day at most: the bootstrap makes partitions for today.
    """
    said = subprocess.run([binaries / "postgres", "--version"], capture_output=True, text=True, check=True)
    version, today = said.stdout.split()[2], datetime.now(UTC).date().isoformat()
    key = digest(MIGRATIONS, BOOTSTRAP, Path(migrate.__file__), Path(__file__), said.stdout, today)

    def make(folder: Path) -> None:
        with running(binaries, keep=folder / "data") as server:
            server.make_template()

    with ExitStack() as stack:
        with cached(f"postgres-{version.partition('.')[0]}", key, make) as folder:
            server = stack.enter_context(running(binaries, template=folder / "data"))
        # Writes what a first connection to a database works out; the copies then have it, too.
        server.connect(server.template).close()
        # Not kept: these rows are as old as the session.
        server.make_cast(cast)
        yield server
