"""Checks that need the database. They only read: everything is one read-only transaction."""

from __future__ import annotations

import re
from collections.abc import Iterator
from datetime import timedelta
from typing import Any

import psycopg

from fleetctl import baseline
from fleetctl.doctor.control_plane import ControlPlane, Kind
from fleetctl.doctor.finding import Finding, fix, ok
from fleetctl.migration_files import find_migrations

#: The scheduler runs every 20 seconds, with an old pg_cron every minute.
_TICK_WITHIN = timedelta(minutes=5)
_JOBS = ("metrica-fleet-tick", "metrica-fleet-forget-runs")
_GRANT = re.compile(r"^grant ([a-z ,_()]+?) on (function |schema |)(.+?)\s+to ([a-z_, ]+);", re.M | re.S)


class Database:
    """Questions to the database, in one transaction that cannot write."""

    def __init__(self, connection: psycopg.Connection[Any]) -> None:
        self._connection = connection

    def rows(self, query: str, *values: Any) -> list[tuple[Any, ...]]:
        return list(self._connection.execute(query.encode(), values).fetchall())

    def one(self, query: str, *values: Any) -> Any:
        return self.rows(query, *values)[0][0]


def migrations(plane: ControlPlane, connection: psycopg.Connection[Any]) -> Iterator[Finding]:
    """Which files were applied, and whether they had the text that they have here."""
    files = find_migrations(plane.migrations)
    history = _history(connection)
    push = "Run: fleetctl up" if plane.kind is Kind.EMBEDDED else "Run: supabase db push --remote"
    missing = [file.label for file in files if file.version not in history]
    unknown = sorted(set(history) - {file.version for file in files})
    if missing:
        yield fix(
            "migrations",
            f"{len(missing)} of {len(files)} migrations are missing, the first is {missing[0]}.",
            push,
        )
    elif unknown:
        yield fix(
            "migrations",
            f"The database has migrations that are not in this checkout: {', '.join(unknown)}.",
            "Update this checkout: an older one must not work on a newer database.",
        )
    else:
        yield ok("migrations", f"All {len(files)} migrations are applied.")
    made_by_these = baseline.made_by(connection, files, history)
    if made_by_these is None:
        yield fix(
            "baseline", "The database does not say which text of the migrations made it.",
            "Run: fleetctl migrate --db-url …, which notes it.",
        )  # fmt: skip
    elif made_by_these:
        yield ok("baseline", "The database was made by the text of the migrations in this checkout.")
    else:
        yield fix(
            "baseline",
            "The database was made by another text of the migrations than the one in this checkout.",
            "Use the checkout that made it, or start over, which deletes the data: "
            + ("fleetctl reset" if plane.kind is Kind.EMBEDDED else "supabase db reset --remote"),
        )


def _history(connection: psycopg.Connection[Any]) -> dict[str, list[str] | None]:
    there = connection.execute("select to_regclass('supabase_migrations.schema_migrations')").fetchone()
    if there is None or there[0] is None:
        return {}
    return dict(connection.execute("select version, statements from supabase_migrations.schema_migrations"))


def roles(database: Database) -> Iterator[Finding]:
    found = database.rows(
        "select rolcanlogin, rolsuper, rolbypassrls, rolcreaterole, "
        "  exists (select from pg_auth_members m join pg_roles a on a.oid = m.member "
        "    where m.roleid = r.oid and a.rolname = 'authenticator') "
        "from pg_roles r where rolname = 'fleet_device'"
    )
    todo = "The first migration makes it as it has to be; undo what was changed by hand, or run it again."
    if not found:
        yield fix("roles", "The role fleet_device, with which devices come, does not exist.", todo)
        return
    can_login, is_super, bypasses, creates, is_member = found[0]
    wrong = [
        what
        for is_wrong, what in (
            (can_login, "may log in"),
            (is_super, "is a superuser"),
            (bypasses, "bypasses row-level security"),
            (creates, "may make roles"),
            (not is_member, "is not granted to authenticator, so the API cannot act as a device"),
        )
        if is_wrong
    ]
    if wrong:
        yield fix("roles", f"The role fleet_device {', and '.join(wrong)}.", todo)
    else:
        yield ok("roles", "The role fleet_device is as narrow as it has to be.")


def grants(plane: ControlPlane, database: Database) -> Iterator[Finding]:
    """What the migrations grant is there, strangers have nothing, and every table has row-level security."""
    wrong = [
        f"{table} has no row-level security"
        for (table,) in database.rows(
            "select c.oid::regclass::text from pg_class c join pg_namespace n on n.oid = c.relnamespace "
            "where n.nspname in ('public', 'private') and c.relkind in ('r', 'p') and not c.relrowsecurity "
            "order by 1"
        )
    ]
    wrong += [
        f"{role} may {right} {thing}"
        for role, right, thing in database.rows(
            "select r.rolname, lower(p.privilege_type), c.oid::regclass::text "
            "from pg_class c join pg_namespace n on n.oid = c.relnamespace "
            "cross join lateral aclexplode(c.relacl) p "
            "left join pg_roles g on g.oid = p.grantee "
            "cross join lateral (select coalesce(g.rolname, 'PUBLIC') as rolname) r "
            "where n.nspname in ('public', 'private') and c.relkind in ('r', 'p', 'v', 'm') "
            "  and (r.rolname in ('anon', 'PUBLIC') or r.rolname = 'fleet_device' and not "
            "    c.oid::regclass::text = any (%s)) order by 3, 1, 2",
            _tables_of_devices(plane),
        )
    ]
    wrong += [
        f"{role} may call {function}"
        for role, function in database.rows(
            "select r.rolname, p.oid::regprocedure::text from pg_proc p "
            "join pg_namespace n on n.oid = p.pronamespace cross join pg_roles r "
            "where n.nspname in ('public', 'private') and r.rolname = 'anon' "
            "  and p.prorettype <> 'trigger'::regtype "
            "  and has_function_privilege(r.oid, p.oid, 'execute') "
            "  and not exists (select from pg_depend d where d.objid = p.oid and d.deptype = 'e') order by 2"
        )
    ]
    wrong += [f"{role} lacks {right} on {thing}" for role, right, thing in _missing(plane, database)]
    if wrong:
        more = f", and {len(wrong) - 5} more" if len(wrong) > 5 else ""
        yield fix(
            "grants", f"Rights are not as the migrations make them: {'; '.join(wrong[:5])}{more}.",
            "Grant or revoke these by hand (docs/usage/hosted.md), and find out who changed them.",
        )  # fmt: skip
    else:
        yield ok("grants", "Rights are as the migrations make them, and strangers have none.")


def _granted(plane: ControlPlane) -> Iterator[tuple[str, str, str, str]]:
    """(role, right, kind, object) of every grant in the files."""
    for file in find_migrations(plane.migrations):
        for rights, kind, things, to in _GRANT.findall(file.path.read_text(encoding="utf-8")):
            for thing in [things] if kind else re.split(r",\s*", things):
                for right in re.findall(r"[a-z]+(?= *\(|,|$| *,)", re.sub(r"\([^)]*\)", "(", rights)):
                    for role in to.split(","):
                        yield role.strip(), right, kind.strip() or "table", " ".join(thing.split())


def _tables_of_devices(plane: ControlPlane) -> list[str]:
    """As `regclass` writes them, whether public is in the search path or not."""
    names = {thing for role, _, kind, thing in _granted(plane) if role == "fleet_device" and kind == "table"}
    return sorted(names | {name.removeprefix("public.") for name in names})


def _missing(plane: ControlPlane, database: Database) -> list[tuple[str, str, str]]:
    wanted = sorted(set(_granted(plane)))
    there = {name for (name,) in database.rows("select rolname from pg_roles")}
    asked = [grant for grant in wanted if grant[0] in there]
    held = database.rows(
        "select case "
        "  when g.kind = 'schema' then to_regnamespace(g.thing) is not null "
        "    and has_schema_privilege(g.role, to_regnamespace(g.thing)::oid, g.privilege) "
        "  when g.kind = 'function' then to_regprocedure(g.thing) is not null "
        "    and has_function_privilege(g.role, to_regprocedure(g.thing)::oid, g.privilege) "
        "  else to_regclass(g.thing) is not null and (has_table_privilege(g.role, to_regclass(g.thing)::oid, "
        "    g.privilege) or case when g.privilege in ('select', 'insert', 'update', 'references') then "
        "    has_any_column_privilege(g.role, to_regclass(g.thing)::oid, g.privilege) else false end) end "
        "from unnest(%s::text[], %s::text[], %s::text[], %s::text[]) with ordinality "
        "  as g (role, privilege, kind, thing, position) order by position",
        *([list(column) for column in zip(*asked, strict=True)] if asked else [[], [], [], []]),
    )
    return [
        (role, right, thing)
        for (role, right, _, thing), (is_held,) in zip(asked, held, strict=True)
        if not is_held
    ]


def jobs(plane: ControlPlane, database: Database) -> Iterator[Finding]:
    """`tick()` ran lately, whoever calls it; with pg_cron, both jobs are there."""
    switch_on = (
        "See fleetctl status, and server.log." if plane.kind is Kind.EMBEDDED
        else "In the SQL editor: create extension if not exists pg_cron; select private.schedule_tick();"
    )  # fmt: skip
    if not database.one("select to_regclass('private.tick_state') is not null"):
        yield fix("jobs", "The scheduler's table does not exist.", "Apply the migrations.")
        return
    if database.one("select to_regclass('cron.job') is not null"):
        active = {
            name
            for (name,) in database.rows(
                "select jobname from cron.job where active and jobname = any (%s)", list(_JOBS)
            )
        }
        if missing := [job for job in _JOBS if job not in active]:
            yield fix("jobs", f"pg_cron does not run {' and '.join(missing)}.", switch_on)
            return
    elif plane.kind is not Kind.EMBEDDED:
        yield fix("jobs", "pg_cron is not on, so nothing happens by the clock.", switch_on)
        return
    ago = database.one(
        "select now() - max(last_run) from private.tick_state where job not like 'out of time%%'"
    )
    if ago is None or ago > _TICK_WITHIN:
        when = "never" if ago is None else f"{ago.total_seconds() / 60:.0f} minutes ago"
        yield fix(
            "jobs",
            f"The scheduler ran last {when}.",
            "If it was just switched on, wait for a minute. Otherwise: select * from cron.job_run_details "
            "order by start_time desc limit 5"
            if plane.kind is not Kind.EMBEDDED
            else switch_on,
        )
        return
    failing = database.rows(
        "select summary from public.alerts where kind = 'tick_failing' and resolved_at is null "
        "order by opened_at"
    )
    if failing:
        yield fix("jobs", str(failing[0][0]), "The alert has the error: fleetctl alert list")
    else:
        yield ok("jobs", f"The scheduler ran {ago.total_seconds():.0f} s ago.")


def admin(database: Database) -> Iterator[Finding]:
    if not database.one("select to_regclass('public.operators') is not null"):
        yield fix("admin", "The table of operators does not exist.", "Apply the migrations.")
        return
    count = database.one("select count(*) from public.operators where rank = 'admin'")
    if count:
        yield ok("admin", f"{count} {'person is' if count == 1 else 'people are'} admin.")
    else:
        yield fix("admin", "Nobody is admin.", "Run: fleetctl operator add you@example.com --rank admin")
