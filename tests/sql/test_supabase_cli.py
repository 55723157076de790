"""The Supabase CLI itself, on Debian's PostgreSQL: it pushes the migrations, and its advisors look at the result."""

from __future__ import annotations

import json
import re
import socket
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import psycopg
import pytest

from fleetctl.migrate import migrate
from tests.conftest import POSTGRES_15
from tests.support import supabase_cli
from tests.support.cluster import MIGRATIONS, ROOT, bootstrap, running

pytestmark = [pytest.mark.full, pytest.mark.postgres15, pytest.mark.supabase]
HOSTED = ROOT / "docs" / "usage" / "hosted.md"


@dataclass(frozen=True)
class Pushed:
    """A database that `supabase db push` made, and what it printed."""

    url: str
    home: Path
    said: str


@pytest.fixture(scope="module")
def pushed(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Pushed]:
    home = tmp_path_factory.mktemp("supabase-home")
    with socket.create_server(("127.0.0.1", 0)) as free:
        port = free.getsockname()[1]
    with running(POSTGRES_15, {"listen_addresses": "127.0.0.1", "port": str(port)}):
        at = f"127.0.0.1:{port}/postgres?sslmode=disable"
        with psycopg.connect(f"postgresql://supabase_admin@{at}", autocommit=True) as admin:
            bootstrap(admin)
        url = f"postgresql://postgres@{at}"
        done = supabase_cli.run("db", "push", f"--remote={url}", "--yes", home=home)
        assert done.returncode == 0, done.stdout + done.stderr
        yield Pushed(url, home, done.stdout + done.stderr)


def test_db_push_applies_every_file_and_fleetctl_finds_none_of_them_edited(pushed: Pushed) -> None:
    files = [path.name for path in sorted(MIGRATIONS.glob("*.sql"))]
    assert re.findall(r"Applying migration (\S+)\.\.\.", pushed.said) == files
    with psycopg.connect(pushed.url, autocommit=True) as connection:
        outcome = migrate(connection, MIGRATIONS)
        assert (outcome.applied, outcome.already, outcome.changed) == ([], len(files), [])
        assert connection.execute("select count(*) from private.baseline").fetchone() == (1,)
    again = supabase_cli.run("db", "push", f"--remote={pushed.url}", "--yes", home=pushed.home)
    assert again.returncode == 0, again.stderr
    assert "Applying" not in again.stdout + again.stderr


def test_advisors_report_no_error_and_only_what_is_accepted_with_its_reason(pushed: Pushed) -> None:
    """docs/usage/hosted.md has the list, with the schema and the reason; a line that no longer occurs goes."""
    done = supabase_cli.run(
        "db", "advisors", f"--remote={pushed.url}", "--level", "info", "--fail-on", "error", home=pushed.home
    )
    assert done.returncode == 0, done.stdout + done.stderr
    found = json.loads(done.stdout[done.stdout.index("[\n") :])
    reported = {(lint["level"], lint["name"], lint["metadata"]["schema"]) for lint in found}
    listed = re.findall(r"^\| (INFO|WARN) \| `(\w+)` \| `(\w+)` \| \S", HOSTED.read_text(), re.MULTILINE)
    assert reported == set(listed)
