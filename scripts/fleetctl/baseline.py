"""Which text of the migrations made a database.

Until the first tagged release `migrations/` is edited in place, so nothing leads from a database made by an
older text to the present one. The text's hash is noted in `private.baseline`; a database that was made by
another text is refused. `supabase db push` runs the files without us and notes nothing: there the statements
in the CLI's history are compared.
See docs/decisions/2026-11-28-the-baseline-is-edited-until-the-first-tag.md.
"""

from __future__ import annotations

import hashlib
import re
from collections.abc import Iterable, Mapping, Sequence
from functools import lru_cache

import psycopg

from fleetctl.errors import FleetctlError
from fleetctl.migration_files import Migration

# The CLI stores one element a statement, without the `;` and the space between them. What stands in quotes is
# compared as it is; within a function's body the same holds.
_COMMENT_OR_QUOTED = re.compile(r"""(--[^\n]*|/\*.*?\*/|'(?:[^']|'')*'|"(?:[^"]|"")*")""", re.DOTALL)
_BETWEEN = re.compile(r"[\s;]+")

# What was applied, by version; None if the history does not say what it was.
History = Mapping[str, list[str] | None]


def fingerprint(texts: Iterable[tuple[str, str]]) -> str:
    """SHA-256 of (version, text) in order of version, without comments; spaces and `;` count in quotes."""
    digest = hashlib.sha256()
    for version, text in sorted(texts):
        digest.update(f"{version}\n{_what_runs(text)}\n".encode())
    return digest.hexdigest()


def is_same(statements: Sequence[str], text: str) -> bool:
    """Whether these are the file's statements and comments, however either was split or indented."""
    stored = "\n".join(statements)
    return stored == text or _what_runs(stored, comments=True) == _what_runs(text, comments=True)


@lru_cache(maxsize=256)
def _what_runs(text: str, *, comments: bool = False) -> str:
    parts = _COMMENT_OR_QUOTED.split(text)
    for i, part in enumerate(parts):
        if i % 2 == 0:
            parts[i] = _BETWEEN.sub("", part)
        elif not comments and part[0] in "-/":
            parts[i] = ""
    return "".join(parts)


def refuse_another(
    connection: psycopg.Connection, migrations: Sequence[Migration], history: History, start_over: str
) -> None:
    """Raises FleetctlError `baseline_changed` if another text made it; `start_over` is the way out."""
    if made_by(connection, migrations, history) is not False:
        return
    raise FleetctlError(
        "baseline_changed",
        "The database was created by another version of the migrations than the one in this checkout. "
        "Before the first release, there is no upgrade between the two.",
        hint=start_over,
    )


def made_by(connection: psycopg.Connection, migrations: Sequence[Migration], history: History) -> bool | None:
    """Whether the text of these files made it; None if it is empty, not ours, or does not say."""
    if not history or not _exists(connection, "public.fleet_settings"):
        return None
    files = {migration.version: migration for migration in migrations}
    noted = _noted(connection) or _of_history(history)
    if not history.keys() <= files.keys():
        return False
    return None if noted is None else noted == _of_files(files[version] for version in history)


def note(connection: psycopg.Connection, migrations: Sequence[Migration]) -> None:
    """Note in the database that all of these made it."""
    if _exists(connection, "private.baseline"):
        connection.execute(
            "insert into private.baseline as b (text_hash) values (%s) "
            "on conflict (id) do update set text_hash = excluded.text_hash, noted_at = now() "
            "where b.text_hash <> excluded.text_hash",
            (_of_files(migrations),),
        )


def _of_files(migrations: Iterable[Migration]) -> str:
    return fingerprint((m.version, m.path.read_text(encoding="utf-8")) for m in migrations)


def _of_history(history: History) -> str | None:
    """None if the history lacks the text of any of them, as after `supabase migration repair`."""
    texts = [(version, "\n".join(statements)) for version, statements in history.items() if statements]
    return fingerprint(texts) if len(texts) == len(history) else None


def _noted(connection: psycopg.Connection) -> str | None:
    if not _exists(connection, "private.baseline"):
        return None
    row = connection.execute("select text_hash from private.baseline").fetchone()
    return None if row is None else str(row[0])


def _exists(connection: psycopg.Connection, table: str) -> bool:
    row = connection.execute("select to_regclass(%s) is not null", (table,)).fetchone()
    return row is not None and bool(row[0])
