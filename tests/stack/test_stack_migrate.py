"""The migration runner, against a real database of its own, with the history that the Supabase CLI keeps."""

from __future__ import annotations

import re
import tomllib
import uuid
from collections.abc import Iterator
from pathlib import Path

import psycopg
import pytest

from fleetctl.errors import FleetctlError
from fleetctl.migrate import migrate
from fleetctl.migration_files import find_migrations
from fleetctl.stack.layout import Project
from fleetctl.stack.local_stack import LocalStack
from tests.support.sql_statements import migrations

ROOT = Path(__file__).resolve().parents[2]


@pytest.fixture
def database(stack: LocalStack, admin: psycopg.Connection) -> Iterator[psycopg.Connection]:
    """An empty database of the stack's cluster, as `postgres`."""
    name = f"migrate_{uuid.uuid4().hex[:8]}"
    admin.execute(f"create database {name} owner postgres".encode())
    url = stack.postgres_db_url.rsplit("/", 1)[0]
    with psycopg.connect(f"{url}/{name}", autocommit=True) as connection:
        yield connection
    admin.execute(f"drop database {name}".encode())


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    (tmp_path / "20260101000000_make_a.sql").write_text("create table public.a (id int);\n")
    (tmp_path / "20260102000000_make_b.sql").write_text(
        "create table public.b (id int);\ninsert into public.b values (1);\n"
    )
    return tmp_path


def tables(connection: psycopg.Connection) -> list[str]:
    rows = connection.execute("select tablename from pg_tables where schemaname = 'public' order by 1")
    return [row[0] for row in rows]


def history(connection: psycopg.Connection) -> list[tuple[str, str, list[str]]]:
    rows = connection.execute(
        "select version, name, statements from supabase_migrations.schema_migrations order by version"
    )
    return [(row[0], row[1], row[2]) for row in rows]


def test_files_apply_in_order_and_once(database: psycopg.Connection, folder: Path) -> None:
    seen: list[str] = []
    first = migrate(database, folder, progress=seen.append)
    second = migrate(database, folder, progress=seen.append)
    assert seen == first.applied == ["20260101000000_make_a.sql", "20260102000000_make_b.sql"]
    assert (second.applied, second.already) == ([], 2)
    assert tables(database) == ["a", "b"]


def test_history_is_what_the_supabase_cli_reads(database: psycopg.Connection, folder: Path) -> None:
    migrate(database, folder)
    assert history(database)[0] == ("20260101000000", "make_a", ["create table public.a (id int);\n"])
    columns = database.execute(
        "select column_name, data_type, is_nullable from information_schema.columns "
        "where table_schema = 'supabase_migrations' and table_name = 'schema_migrations' order by 1"
    )
    assert list(columns) == [
        ("name", "text", "YES"),
        ("statements", "ARRAY", "YES"),
        ("version", "text", "NO"),
    ]


def test_stack_applied_every_migration_as_postgres(stack: LocalStack, admin: psycopg.Connection) -> None:
    """Not as the superuser: what applies here applies on hosted Supabase."""
    applied = admin.execute("select version from supabase_migrations.schema_migrations order by 1")
    assert [row[0] for row in applied] == [
        migration.version for migration in find_migrations(Project.find().migrations)
    ]
    owners = admin.execute(
        "select distinct tableowner from pg_tables where schemaname in ('public', 'private')"
    )
    assert list(owners) == [("postgres",)]
    superuser = admin.execute(
        "select rolsuper, rolbypassrls, rolcreaterole from pg_roles where rolname = 'postgres'"
    )
    assert list(superuser) == [(False, True, True)]


def test_supabase_folder_is_what_the_cli_expects() -> None:
    supabase = ROOT / "supabase"
    assert (supabase / "migrations").readlink() == Path("../migrations")
    config = tomllib.loads((supabase / "config.toml").read_text())
    assert "private" not in config["api"]["schemas"]
    assert config["db"]["migrations"]["enabled"]
    assert [(supabase / path).is_file() for path in config["db"]["seed"]["sql_paths"]] == [True]


def test_every_function_is_named_to_the_cli_with_its_entrypoint() -> None:
    """Without its section the CLI would look in supabase/functions, and ask devices for a Supabase token."""
    functions = tomllib.loads((ROOT / "supabase" / "config.toml").read_text())["functions"]
    sources = ROOT.glob("edge_functions/*/index.ts")
    assert functions == {
        source.parent.name: {
            "enabled": True,
            "verify_jwt": False,
            "entrypoint": f"../edge_functions/{source.parent.name}/index.ts",
        }
        for source in sources
    }


def test_failing_migration_leaves_nothing_and_names_file_and_line(
    database: psycopg.Connection, folder: Path
) -> None:
    (folder / "20260103000000_break.sql").write_text(
        "create table public.c (id int);\n\ninsert into public.no_such_table values (1);\n"
    )
    with pytest.raises(FleetctlError) as caught:
        migrate(database, folder)
    assert caught.value.kind == "migration_failed"
    assert caught.value.message.startswith(
        '20260103000000_break.sql, line 3: relation "public.no_such_table" does not exist (42P01).'
    )
    assert tables(database) == ["a", "b"]
    assert [row[0] for row in history(database)] == ["20260101000000", "20260102000000"]
    (folder / "20260103000000_break.sql").write_text("create table public.c (id int);\n")
    assert migrate(database, folder).applied == ["20260103000000_break.sql"]


def test_settings_of_one_file_do_not_reach_the_next(database: psycopg.Connection, tmp_path: Path) -> None:
    (tmp_path / "1_quiet.sql").write_text("set search_path = ''; set role anon;")
    (tmp_path / "2_make.sql").write_text("create table here (id int);")
    migrate(database, tmp_path)
    assert tables(database) == ["here"]


def test_file_edited_after_it_was_applied_is_told(database: psycopg.Connection, folder: Path) -> None:
    migrate(database, folder)
    (folder / "20260101000000_make_a.sql").write_text("create table public.a (id bigint);\n")
    assert migrate(database, folder).changed == ["20260101000000_make_a.sql"]


def test_database_ahead_of_the_folder_is_refused(database: psycopg.Connection, folder: Path) -> None:
    migrate(database, folder)
    (folder / "20260102000000_make_b.sql").unlink()
    with pytest.raises(FleetctlError, match="20260102000000") as caught:
        migrate(database, folder)
    assert caught.value.kind == "migration_unknown"


@pytest.mark.parametrize(
    ("name", "kind"),
    [("make_c.sql", "migration_name"), ("20260101000000_again.sql", "migration_version")],
)
def test_file_that_the_cli_would_skip_or_confuse_is_refused(folder: Path, name: str, kind: str) -> None:
    (folder / name).write_text("select 1;")
    with pytest.raises(FleetctlError, match=name) as caught:
        find_migrations(folder)
    assert caught.value.kind == kind


# --- the baseline, edited in place until the first tag ---------------------------------------------------

(TABLE,) = [statement.text for statement in migrations() if statement.key == "table private.baseline"]
GROUND = f"create schema private;\n{TABLE}\ncreate table public.fleet_settings (id int);\n"


@pytest.fixture
def baseline(folder: Path) -> Path:
    """A folder whose databases are ours, with the files of `folder` after it."""
    (folder / "20250101000000_ground.sql").write_text(GROUND)
    return folder


def refusal(database: psycopg.Connection, folder: Path) -> FleetctlError:
    with pytest.raises(FleetctlError) as caught:
        migrate(database, folder, start_over="The way out.")
    return caught.value


def noted(database: psycopg.Connection) -> list[str]:
    return [row[0] for row in database.execute("select text_hash from private.baseline")]


def test_database_made_by_another_text_is_refused_in_one_sentence_with_the_way_out(
    database: psycopg.Connection, baseline: Path
) -> None:
    migrate(database, baseline)
    (baseline / "20260101000000_make_a.sql").write_text("create table public.a (id bigint);\n")
    (baseline / "20260103000000_make_c.sql").write_text("create table public.c (id int);\n")
    error = refusal(database, baseline)
    assert (error.kind, error.hint) == ("baseline_changed", "The way out.")
    assert error.message == (
        "The database was created by another version of the migrations than the one in this checkout. "
        "Before the first release, there is no upgrade between the two."
    )
    assert tables(database) == ["a", "b", "fleet_settings"]


def test_file_that_is_gone_or_renamed_is_another_text(database: psycopg.Connection, baseline: Path) -> None:
    """Not "the database is ahead": a file may be split or renamed while the baseline is edited in place."""
    migrate(database, baseline)
    (baseline / "20260102000000_make_b.sql").rename(baseline / "20260102000001_make_b.sql")
    assert refusal(database, baseline).kind == "baseline_changed"


def test_file_that_is_added_is_applied_and_noted(database: psycopg.Connection, baseline: Path) -> None:
    migrate(database, baseline)
    first = noted(database)
    (baseline / "20260103000000_make_c.sql").write_text("create table public.c (id int);\n")
    assert migrate(database, baseline).applied == ["20260103000000_make_c.sql"]
    assert len(first) == 1
    assert noted(database) != first
    assert migrate(database, baseline).applied == []


def test_comments_and_spaces_are_no_other_text(database: psycopg.Connection, baseline: Path) -> None:
    migrate(database, baseline)
    (baseline / "20260101000000_make_a.sql").write_text("-- Why.\ncreate  table public.a\n  (id int);\n")
    assert migrate(database, baseline).changed == ["20260101000000_make_a.sql"]


def test_file_that_failed_may_be_corrected_and_those_before_it_may_not(
    database: psycopg.Connection, baseline: Path
) -> None:
    broken = baseline / "20260102000000_make_b.sql"
    broken.write_text("create table public.b (id no_such_type);\n")
    assert refusal(database, baseline).kind == "migration_failed"
    (baseline / "20260101000000_make_a.sql").write_text("create table public.a (id bigint);\n")
    assert refusal(database, baseline).kind == "baseline_changed"
    (baseline / "20260101000000_make_a.sql").write_text("create table public.a (id int);\n")
    broken.write_text("create table public.b (id int);\n")
    assert migrate(database, baseline).applied == [broken.name]


def as_db_push_does(database: psycopg.Connection, folder: Path) -> None:
    """The Supabase CLI runs the files and notes one element a statement, without its `;`."""
    migrate(database, folder)
    database.execute("delete from private.baseline")
    database.execute(
        "update supabase_migrations.schema_migrations set statements = "
        "array(select btrim(s, E' \\n') from unnest(string_to_array(statements[1], ';')) s "
        "where btrim(s, E' \\n') <> '')"
    )


def test_database_that_db_push_made_is_compared_by_the_history_of_the_cli(
    database: psycopg.Connection, baseline: Path
) -> None:
    as_db_push_does(database, baseline)
    edited = baseline / "20260102000000_make_b.sql"
    text = edited.read_text()
    edited.write_text(text.replace("values (1)", "values (2)"))
    assert refusal(database, baseline).kind == "baseline_changed"
    edited.write_text(text)
    assert migrate(database, baseline).applied == []
    assert len(noted(database)) == 1


@pytest.mark.parametrize("text", ["create table public.x (id int);\n", "select 'a;  b';\n-- The end.\n"])
def test_file_that_db_push_ran_is_untouched_however_the_cli_split_it(
    database: psycopg.Connection, tmp_path: Path, text: str
) -> None:
    """The CLI notes a file of one statement as one element, as fleetctl does, but without its `;`."""
    path = tmp_path / "20260101000000_one.sql"
    path.write_text(text)
    migrate(database, tmp_path)
    statements = [part for part in re.split(r";\s*\n", text.strip() + "\n") if part]
    database.execute("update supabase_migrations.schema_migrations set statements = %s", (statements,))
    assert migrate(database, tmp_path).changed == []
    path.write_text(f"-- Why.\n{text}")
    assert migrate(database, tmp_path).changed == [path.name]


def test_space_in_a_text_is_another_text(database: psycopg.Connection, baseline: Path) -> None:
    file = baseline / "20260103000000_say.sql"
    file.write_text("insert into public.b values (length('a b'));\n")
    migrate(database, baseline)
    file.write_text("insert into public.b values (length('ab'));\n")
    assert refusal(database, baseline).kind == "baseline_changed"


def test_schema_cache_of_postgrest_is_told_to_reload(database: psycopg.Connection, folder: Path) -> None:
    """Also if nothing is missing: `supabase db push`, which does not tell it, may have run before."""
    url = database.info.dsn
    with psycopg.connect(url, password=database.info.password, autocommit=True) as listener:
        listener.execute("listen pgrst")
        for _ in range(2):
            migrate(database, folder)
            (told,) = listener.notifies(timeout=60, stop_after=1)
            assert told.payload == "reload schema"


def test_history_without_statements_says_nothing(database: psycopg.Connection, baseline: Path) -> None:
    """As after `supabase migration repair`: no text to compare, so it is taken for ours."""
    as_db_push_does(database, baseline)
    database.execute("update supabase_migrations.schema_migrations set statements = null")
    assert migrate(database, baseline).applied == []
