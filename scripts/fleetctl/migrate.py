"""Applies `migrations/*.sql` and keeps the Supabase CLI's own history: either may go on from the other.

Rules, as the CLI has them: files `<digits>_<name>.sql`, in the order of their names, each in one transaction,
as role `postgres`; what was applied is a row of `supabase_migrations.schema_migrations`.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import psycopg
from psycopg import sql

from fleetctl import baseline
from fleetctl.errors import FleetctlError
from fleetctl.migration_files import Migration, find_migrations

# Any fixed number: two runners on one database take turns.
_LOCK = 7_305_422_301
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
    hint). `migration_unknown`: the database is ahead of this folder.
    """
    _become_postgres(connection)
    connection.execute("select pg_advisory_lock(%s)", (_LOCK,))
    try:
        _make_history(connection)
        migrations = find_migrations(folder)
        history = _history(connection)
        baseline.refuse_another(connection, migrations, history, start_over)
        outcome = _apply_missing(connection, migrations, history, progress)
        baseline.note(connection, migrations)
        return outcome
    finally:
        if not connection.closed:
            connection.execute("select pg_advisory_unlock(%s)", (_LOCK,))


def run_script(connection: psycopg.Connection, path: Path, kind: str) -> None:
    """Run a whole file in one transaction; raises FleetctlError `kind` naming file and line."""
    text = path.read_text(encoding="utf-8")
    try:
        with connection.transaction():
            connection.execute(sql.SQL(text))  # a trusted file, not a literal
    except psycopg.Error as error:
        raise _failed(kind, path, text, error) from error


def _become_postgres(connection: psycopg.Connection) -> None:
    row = connection.execute("select session_user").fetchone()
    if row is not None and row[0] != "postgres":
        connection.execute("set session role postgres")
    # Migrations name every schema; a search path of the caller's must not change what they mean.
    connection.execute("set search_path = public, extensions")
    connection.execute("set statement_timeout = 0")


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


def _apply_missing(
    connection: psycopg.Connection,
    migrations: Sequence[Migration],
    history: baseline.History,
    progress: Callable[[str], None],
) -> Outcome:
    known = {migration.version for migration in migrations}
    if unknown := sorted(set(history) - known):
        raise FleetctlError(
            "migration_unknown",
            f"The database has migrations that are not in this checkout: {', '.join(unknown)}.",
            hint="Update the checkout: an older one must not work on a newer database.",
        )
    outcome = Outcome(already=len(history))
    for migration in migrations:
        text = migration.path.read_text(encoding="utf-8")
        if migration.version not in history:
            progress(migration.label)
            _apply(connection, migration, text)
            outcome.applied.append(migration.label)
        # The CLI stores one element a statement; only what we stored can be compared.
        elif (stored := history[migration.version]) and len(stored) == 1 and stored[0] != text:
            outcome.changed.append(migration.label)
    return outcome


def _apply(connection: psycopg.Connection, migration: Migration, text: str) -> None:
    try:
        with connection.transaction():
            connection.execute(sql.SQL(text))  # a trusted file, not a literal
            # A file may have changed these for itself; the next one starts clean.
            connection.execute("reset role")
            _become_postgres(connection)
            connection.execute(
                "insert into supabase_migrations.schema_migrations (version, name, statements) "
                "values (%s, %s, %s)",
                (migration.version, migration.name, [text]),
            )
    except psycopg.Error as error:
        raise _failed("migration_failed", migration.path, text, error) from error


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
