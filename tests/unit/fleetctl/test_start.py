"""fleetctl starts with what a call needs, and no more."""

from __future__ import annotations

import os
import subprocess
import sys

import pytest
import typer
from typer.main import get_command

from fleet_agent.model import CommandKind
from fleetctl.commands import GROUPS, VERBS, register
from fleetctl.commands.command import Kind

#: Each takes longer to load than all that --help needs of fleetctl itself.
HEAVY = ("docker", "git", "httpx", "psycopg", "pydantic", "supabase", "yaml")
#: What a command that asks the control plane does without. Typer loads pydantic to read the arguments.
UNUSED = (
    "docker", "git", "h2.connection", "postgrest", "psutil", "psycopg", "pygments", "supabase", "yaml",
    "fleetctl.stack.supervisor", "fleetctl.commands.release",
)  # fmt: skip


@pytest.mark.parametrize(
    ("arguments", "unused", "code"),
    [(("--help",), HEAVY, 0), (("device", "list"), UNUSED, 3)],
    ids=["help", "read"],
)
def test_no_heavy_library_is_loaded(arguments: tuple[str, ...], unused: tuple[str, ...], code: int) -> None:
    done = subprocess.run(
        [
            sys.executable,
            "-c",
            "import sys\n"
            "from fleetctl.cli import run\n"
            "try:\n"
            "    run()\n"
            "except SystemExit as end:\n"
            f"    loaded = [name for name in {unused!r} if name in sys.modules]\n"
            "    print(end.code, loaded, file=sys.stderr)\n",
            *arguments,
        ],
        capture_output=True,
        text=True,
        timeout=60,
        check=True,
        env={**os.environ, "FLEET_API_URL": "http://127.0.0.1:9", "FLEET_KEY": "sb_secret_x"},
    )
    assert done.stderr.splitlines()[-1] == f"{code} []"
    assert ("rollout" in done.stdout) == (code == 0)


@pytest.mark.parametrize("name", [*GROUPS, *VERBS])
def test_each_command_is_found_where_the_table_says(name: str) -> None:
    app = typer.Typer()
    app.callback()(lambda: None)
    register(app, only=name)
    assert name in get_command(app).commands  # type: ignore[attr-defined]


def test_no_command_is_missing_in_the_table() -> None:
    app = typer.Typer()
    register(app)
    assert set(get_command(app).commands) == GROUPS.keys() | VERBS.keys()  # type: ignore[attr-defined]


def test_what_can_be_sent_is_what_agents_know() -> None:
    assert [kind.value for kind in Kind] == [kind.value for kind in CommandKind]
