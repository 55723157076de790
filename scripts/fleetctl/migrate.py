"""Applies `migrations/*.sql` and keeps the Supabase CLI's own history: either may go on from the other.

Rules, as the CLI has them: files `<digits>_<name>.sql`, in the order of their names, each in one transaction,
as role `postgres`; what was applied is a row of `supabase_migrations.schema_migrations`.

A pooler in transaction mode gives each transaction another session, which other clients use before and after.
So each transaction takes the lock and sets what it needs for itself, and nothing is left in the session.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path

import psycopg
from psycopg import sql

from fleetctl import baseline
from fleetctl.errors import FleetctlError
from fleetctl.migration_files import Migration, find_migrations

# Any fixed number: two runners on one database take turns, file by file.
_LOCK = 7_305_422_301
# Migrations name every schema; a search path of the caller's must not change what they mean. Waiting for
# another runner, or for people's locks, has no limit: Ctrl-C ends it, and nothing is half done.
_BECOME_POSTGRES = (
    "set local role postgres; set local search_path = public, extensions; "
    "set local statement_timeout = 0; set local lock_timeout = 0"
)
START_OVER = (
    "Recreate the database from this checkout, which deletes its data (supabase db reset --linked), "
    "or use the checkout that made it."
)


@dataclass(frozen=True)
class Outcome:
    """What a run did."""

    applied: list[str] = field(default_factory=list)
    already: int = 0
    # Applied earlier, and their file has other text today: the database does not follow.
    changed: list[str] = field(default_factory=list)


def migrate(
    connection: psycopg.Connection,
    folder: Path,
    *,
    progress: Callable[[str], None] = lambda label: None,
    start_over: str = START_OVER,
) -> Outcome:
    """Apply what is missing. `connection` is autocommit, logged in as `postgres` or as one who may become it.

    Raises FleetctlError `migration_failed` naming file and line: that file then left nothing behind, the ones
    before it stay. `baseline_changed`: another text of these files made the database (`start_over` is the
    hint). `migration_unknown`: the database is ahead of this folder. `pooler_unusable` and `role_refused`:
    nothing was begun. psycopg.OperationalError if the connection is lost.
    """
    # A statement that the client prepared would be in one session and used in another.
    connection.prepare_threshold = None
    _refuse_unusable(connection)
    migrations = find_migrations(folder)
    run = _Run(connection, migrations, start_over)
    with run.turn():
        changed = _changed(migrations, _history(connection))
    missing = [migration for migration in migrations if migration.version not in run.seen]
    applied = [migration.label for migration in missing if run.apply(migration, progress)]
    with run.turn():
        baseline.note(connection, migrations)
    # PostgREST answers by the schema that it remembers; `supabase db push` may have run before us.
    connection.execute("notify pgrst, 'reload schema'")
    return Outcome(applied, len(run.seen) - len(applied), changed)


def run_script(connection: psycopg.Connection, path: Path, kind: str) -> None:
    """Run a whole file in one transaction; raises FleetctlError `kind` naming file and line."""
    text = path.read_text(encoding="utf-8")
    try:
        with connection.transaction():
            connection.execute(sql.SQL(text))  # a trusted file, not a literal
    except psycopg.Error as error:
        raise _failed(kind, path, text, error) from error


class _Run:
    """One run over these files. `seen` are the versions that the database had when it was last compared."""

    def __init__(
        self, connection: psycopg.Connection, migrations: Sequence[Migration], start_over: str
    ) -> None:
        self.connection = connection
        self.migrations = migrations
        self.start_over = start_over
        self.seen: set[str] = set()
        with self._alone():
            _make_history(connection)

    @contextmanager
    def turn(self) -> Iterator[None]:
        """A transaction as `postgres` in which no other runner works, after a look at what others did."""
        with self._alone():
            rows = self.connection.execute("select version from supabase_migrations.schema_migrations")
            versions = {str(row[0]) for row in rows.fetchall()}
            if versions != self.seen:
                self._compare()
                self.seen = versions
            yield

    def apply(self, migration: Migration, progress: Callable[[str], None]) -> bool:
        """False if another runner did it meanwhile."""
        text = migration.path.read_text(encoding="utf-8")
        try:
            with self.turn():
                if migration.version in self.seen:
                    return False
                progress(migration.label)
                self.connection.execute(sql.SQL(text))  # a trusted file, not a literal
                # A file may have changed these for itself; neither the next one nor the next client of a
                # pooler has them.
                self.connection.execute(f"reset role; reset all; {_BECOME_POSTGRES}")
                self.connection.execute(
                    "insert into supabase_migrations.schema_migrations (version, name, statements) "
                    "values (%s, %s, %s)",
                    (migration.version, migration.name, [text]),
                )
        except psycopg.Error as error:
            if self.connection.closed:
                raise
            raise _failed("migration_failed", migration.path, text, error) from error
        self.seen.add(migration.version)
        return True

    @contextmanager
    def _alone(self) -> Iterator[None]:
        with self.connection.transaction():
            self.connection.execute(f"{_BECOME_POSTGRES}; select pg_advisory_xact_lock({_LOCK})")
            yield

    def _compare(self) -> None:
        history = _history(self.connection)
        baseline.refuse_another(self.connection, self.migrations, history, self.start_over)
        if unknown := sorted(history.keys() - {migration.version for migration in self.migrations}):
            raise FleetctlError(
                "migration_unknown",
                f"The database has migrations that are not in this checkout: {', '.join(unknown)}.",
                hint="Update the checkout: an older one must not work on a newer database.",
            )


def _refuse_unusable(connection: psycopg.Connection) -> None:
    """Before anything is begun: is there a transaction, and may we be `postgres` in it?"""
    try:
        with connection.transaction():
            connection.execute(_BECOME_POSTGRES)
    except (psycopg.errors.InsufficientPrivilege, psycopg.errors.InvalidParameterValue) as error:
        raise FleetctlError(
            "role_refused",
            f"{connection.info.user} cannot become postgres, the role that applies migrations: "
            f"{error.diag.message_primary}.",
            hint="Use the database URL of the user postgres.",
            exit_code=4,
        ) from error
    except psycopg.Error as error:
        if "statement pooling" not in str(error):
            raise
        info = connection.info
        raise FleetctlError(
            "pooler_unusable",
            f"The pooler at {info.host}:{info.port} pools statements, so no file can be applied as a whole. "
            "Nothing was begun.",
            hint="Use the database's own address in --db-url, or a pooler in session or transaction mode. "
            "A Supabase project shows all three under Connect.",
            exit_code=2,
        ) from error


def _make_history(connection: psycopg.Connection) -> None:
    connection.execute("create schema if not exists supabase_migrations")
    connection.execute(
        "create table if not exists supabase_migrations.schema_migrations (version text not null primary key)"
    )
    for column in ("statements text[]", "name text"):
        connection.execute(
            sql.SQL("alter table supabase_migrations.schema_migrations add column if not exists {}").format(
                sql.SQL(column)
            )
        )


def _history(connection: psycopg.Connection) -> dict[str, list[str] | None]:
    rows = connection.execute("select version, statements from supabase_migrations.schema_migrations")
    return dict(rows.fetchall())


def _changed(migrations: Sequence[Migration], history: baseline.History) -> list[str]:
    """Those whose file has another text today than the one that was run."""
    return [
        migration.label
        for migration in migrations
        if (stored := history.get(migration.version))
        and not baseline.is_same(stored, migration.path.read_text(encoding="utf-8"))
    ]


def _failed(kind: str, path: Path, text: str, error: psycopg.Error) -> FleetctlError:
    """The server's words, with the line at which it stopped if the server reports a position."""
    diag = error.diag
    where = path.name
    if diag.statement_position is not None:
        where += f", line {text.count(chr(10), 0, int(diag.statement_position) - 1) + 1}"
    sentence = (diag.message_primary or str(error)).rstrip(".")
    details = "".join(f"\n  {part}" for part in (diag.message_detail, diag.context) if part)
    return FleetctlError(
        kind,
        f"{where}: {sentence} ({diag.sqlstate or 'connection lost'}). The file was rolled back as a whole."
        + details,
        hint=diag.message_hint or "Correct the file and start again; the files before it were applied.",
    )
