"""Each object is defined once in `migrations/`, in its final form, beside what belongs to it: from the files and the catalog."""

from __future__ import annotations

import re
from collections import Counter

import pytest

from tests.support.identities import Fleet
from tests.support.sql_statements import ROOT, Statement, classify, migrations, split

PARTITIONS = "^update_history_[0-9]{4}_[0-9]{2}$"
DEFINITIONS = ("schema", "table", "type", "function", "view")
FILES = list(dict.fromkeys(statement.file for statement in migrations()))


def of_kind(*kinds: str) -> list[Statement]:
    return [statement for statement in migrations() if statement.kind in kinds]


def where(kind: str) -> dict[str, str]:
    """Object -> the file that defines it."""
    return {statement.about: statement.file for statement in of_kind(kind)}


def test_files_are_named_by_time_and_concept() -> None:
    assert [file for file in FILES if not re.fullmatch(r"[0-9]{14}_[a-z_]+\.sql", file)] == []


def test_the_readme_is_a_table_of_all_files() -> None:
    rows = re.findall(r"^\| (`.+?) \|", (ROOT / "migrations" / "README.md").read_text(), re.MULTILINE)
    named = re.findall(r"`(\w+)`", " ".join(rows))
    assert sorted(named) == sorted(file.partition("_")[2].removesuffix(".sql") for file in FILES)


def test_every_object_comment_grant_and_row_security_stands_once() -> None:
    counted = Counter(statement.key for statement in migrations() if statement.kind not in ("block", "rows"))
    assert {key: times for key, times in counted.items() if times > 1} == {}


def test_nothing_is_replaced_altered_or_dropped() -> None:
    """A foreign key that closes a cycle of tables is the one thing that has to come later."""
    later = r"alter table [\w.]+ add constraint .* foreign key"
    assert [
        str(statement) for statement in of_kind("other") if not re.match(later, statement.text, re.DOTALL)
    ] == []


def test_blocks_define_no_object_of_ours() -> None:
    """What a loop creates is found by nobody who looks for its name."""
    ours = re.compile(
        r"create (or replace )?(table|function|view|type|policy|trigger|index)|alter table|comment on"
    )
    assert [str(statement) for statement in of_kind("block") if ours.search(statement.text)] == []


def test_what_belongs_to_an_object_stands_in_its_file() -> None:
    at = {name: file for kind in DEFINITIONS for name, file in where(kind).items()}
    indexes = {statement.key.split(" ")[1]: statement.file for statement in of_kind("index")}
    apart = [
        str(statement)
        for statement in of_kind("comment", "grant", "revoke", "row security", "index", "policy", "rows")
        if (home := at.get(statement.about) or indexes.get(statement.about.removeprefix("public.")))
        and home != statement.file
    ]
    assert apart == []


def test_a_trigger_stands_in_the_later_of_its_tables_and_its_functions_file() -> None:
    tables, functions = where("table"), where("function")
    wrong = []
    for trigger in of_kind("trigger"):
        function = re.search(r"execute function ([\w.]+)\(", trigger.text)
        assert function is not None, trigger.text
        if trigger.file != max(tables[trigger.about], functions[function[1]]):
            wrong.append(str(trigger))
    assert wrong == []


def test_files_and_catalog_name_the_same_objects(bare: Fleet) -> None:
    """So the parser misses nothing, and nothing is made in another way. Partitions are made at run time."""
    ours = "in ('public'::regnamespace, 'private'::regnamespace)"
    catalog = {
        "table": "select relnamespace::regnamespace || '.' || relname from pg_class "
        f"where relkind in ('r', 'p') and relnamespace {ours} and relname !~ '{PARTITIONS}'",
        "view": f"select relnamespace::regnamespace || '.' || relname from pg_class where relkind = 'v' and relnamespace {ours}",
        "type": "select t.typnamespace::regnamespace || '.' || t.typname from pg_type t left join pg_class c on c.oid = t.typrelid "
        f"where t.typnamespace {ours} and (t.typtype = 'e' or c.relkind = 'c')",
        "function": f"select pronamespace::regnamespace || '.' || proname from pg_proc where pronamespace {ours}",
        "index": "select 'index ' || c.relname || ' on ' || r.relnamespace::regnamespace || '.' || r.relname "
        "from pg_index i join pg_class c on c.oid = i.indexrelid join pg_class r on r.oid = i.indrelid "
        f"where r.relnamespace {ours} and not c.relispartition and r.relname !~ '{PARTITIONS}' "
        "and not exists (select from pg_constraint k where k.conindid = c.oid)",
        "trigger": "select 'trigger ' || t.tgname || ' on ' || r.relnamespace::regnamespace || '.' || r.relname "
        "from pg_trigger t join pg_class r on r.oid = t.tgrelid "
        f"where r.relnamespace {ours} and not t.tgisinternal and t.tgparentid = 0 and r.relname !~ '{PARTITIONS}'",
        "policy": "select 'policy \"' || p.polname || '\" on ' || r.relnamespace::regnamespace || '.' || r.relname "
        "from pg_policy p join pg_class r on r.oid = p.polrelid",
    }  # fmt: skip
    for kind, query in catalog.items():
        there = [row[0] for row in bare.sql(query)]
        named = [s.key if kind in ("index", "trigger", "policy") else s.about for s in of_kind(kind)]
        assert sorted(named) == sorted(there), kind


def test_files_and_catalog_have_the_same_comments(bare: Fleet) -> None:
    """Those of tables, columns, views, types, functions and indexes; months of history repeat their parent's."""
    ours = "in ('public'::regnamespace, 'private'::regnamespace)"
    there = bare.sql(
        "select d.classoid::regclass::text, d.objsubid > 0, count(*) from pg_description d "
        f"where (d.classoid = 'pg_class'::regclass and d.objoid in (select oid from pg_class where relnamespace {ours} "
        "  and not (relispartition and relname <> 'update_history_default'))) "
        f"or (d.classoid = 'pg_type'::regclass and d.objoid in (select oid from pg_type where typnamespace {ours})) "
        f"or (d.classoid = 'pg_proc'::regclass and d.objoid in (select oid from pg_proc where pronamespace {ours})) "
        "group by 1, 2"
    )
    named = Counter(
        {"column": "column", "function": "function"}.get(statement.key.split(" ")[2], "type")
        if statement.key.split(" ")[2] in ("column", "function", "type")
        else "relation"
        for statement in of_kind("comment")
        if statement.key.split(" ")[2] not in ("role", "schema")
    )
    counted = {(row[0], row[1]): row[2] for row in there}
    assert counted == {
        ("pg_class", False): named["relation"],
        ("pg_class", True): named["column"],
        ("pg_type", False): named["type"],
        ("pg_proc", False): named["function"],
    }


def test_no_function_is_overloaded(bare: Fleet) -> None:
    """Then a function's name alone says which one is meant."""
    assert (
        bare.sql(
            "select proname from pg_proc where pronamespace in ('public'::regnamespace, 'private'::regnamespace) "
            "group by pronamespace, proname having count(*) > 1"
        )
        == []
    )


@pytest.mark.parametrize(
    ("text", "kind"),
    [
        ("create or replace function private.f() returns int return 1;", "other"),
        ("drop table public.a;", "other"),
        ("alter table public.a add column b int;", "other"),
        ("alter function private.f() parallel safe;", "other"),
        ("create function private.f() returns int as $$ select 1; -- it's $$;", "function"),
        ("-- it's a comment; with an end\ncreate table public.a (b text default 'x;y');", "table"),
    ],
)
def test_the_parser_sees_what_is_refused(text: str, kind: str) -> None:
    assert [statement.kind for part in split(text) for statement in classify("file", part)] == [kind]


def test_the_parser_counts_each_object_and_role_of_a_grant() -> None:
    text = "grant select, update (a, b) on public.a, public.b to authenticated, service_role;"
    assert [statement.key for statement in classify("file", text)] == [
        "grant on public.a to authenticated",
        "grant on public.b to authenticated",
        "grant on public.a to service_role",
        "grant on public.b to service_role",
    ]
