"""All checks, in the order in which a control plane is set up."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from functools import partial
from typing import Any

import psycopg

from fleetctl.doctor import in_database, over_http
from fleetctl.doctor.control_plane import ControlPlane
from fleetctl.doctor.finding import Finding, unchecked
from fleetctl.doctor.realtime import realtime

_OVER_HTTP: dict[str, Callable[[ControlPlane, over_http.Http], Iterator[Finding]]] = {
    "keys": over_http.keys,
    "clock": over_http.clock,
    "signing-key": over_http.signing_key,
    "schemas": over_http.schemas,
    "functions": over_http.functions,
    "sign-up": over_http.sign_up,
}
_IN_DATABASE = ("migrations", "baseline", "roles", "grants", "jobs", "admin")
CHECKS: Sequence[str] = (*_OVER_HTTP, "realtime", *_IN_DATABASE)


def examine(plane: ControlPlane, only: Iterable[str] = CHECKS) -> Iterator[Finding]:
    """Findings as they are made. Raises FleetctlError `unreachable` if the API does not answer at all."""
    wanted = set(only)
    http = over_http.Http(plane)
    for name, check in _OVER_HTTP.items():
        if name in wanted:
            yield from check(plane, http)
    if "realtime" in wanted:
        yield from realtime(plane)
    if wanted & set(_IN_DATABASE):
        yield from (finding for finding in _in_database(plane, wanted) if finding.check in wanted)


def _in_database(plane: ControlPlane, wanted: set[str]) -> Iterator[Finding]:
    asked = [name for name in _IN_DATABASE if name in wanted]
    if plane.db_url is None:
        yield from _all_unchecked(
            asked, "No address of the database was given.",
            "Give it with --db-url, or FLEET_DB_URL (the project's dashboard shows it under Connect).",
        )  # fmt: skip
        return
    try:
        # Nothing that the client prepares, so that a pooler in transaction mode will do.
        with psycopg.connect(plane.db_url, connect_timeout=30, prepare_threshold=None) as connection:
            connection.read_only = True
            yield from _all(plane, connection, wanted)
    except psycopg.OperationalError as error:
        sentence = str(error).strip().splitlines()[0].rstrip(".")
        yield from _all_unchecked(asked, f"The database cannot be reached: {sentence}.", "Check --db-url.")


def _all(plane: ControlPlane, connection: psycopg.Connection[Any], wanted: set[str]) -> Iterator[Finding]:
    database = in_database.Database(connection)
    checks: dict[str, Callable[[], Iterator[Finding]]] = {
        "migrations": partial(in_database.migrations, plane, connection),
        "roles": partial(in_database.roles, database),
        "grants": partial(in_database.grants, plane, database),
        "jobs": partial(in_database.jobs, plane, database),
        "admin": partial(in_database.admin, database),
    }
    for name, check in checks.items():
        if name in wanted or (name == "migrations" and "baseline" in wanted):
            try:
                with connection.transaction():
                    yield from check()
            except psycopg.errors.InsufficientPrivilege as error:
                yield unchecked(
                    name, f"The user of --db-url may not look: {error.diag.message_primary}.",
                    "Use the database URL of the user postgres.",
                )  # fmt: skip
            except psycopg.ProgrammingError as error:
                yield unchecked(
                    name, f"A part of the schema is missing: {error.diag.message_primary}.",
                    "Apply the migrations, then run it again.",
                )  # fmt: skip


def _all_unchecked(names: Iterable[str], sentence: str, todo: str) -> Iterator[Finding]:
    for name in names:
        yield unchecked(name, sentence, todo)
