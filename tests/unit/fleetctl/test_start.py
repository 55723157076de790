"""fleetctl starts with what its help needs, and no more."""

from __future__ import annotations

import subprocess
import sys

from fleet_agent.model import CommandKind
from fleetctl.commands.command import Kind

#: Each takes longer to load than all that --help needs of fleetctl itself.
HEAVY = ("docker", "git", "httpx", "psycopg", "pydantic", "supabase", "yaml")


def test_help_loads_no_heavy_library() -> None:
    done = subprocess.run(
        [
            sys.executable,
            "-c",
            "import sys\n"
            "from fleetctl.cli import run\n"
            "try:\n"
            "    run()\n"
            "except SystemExit as end:\n"
            f"    loaded = [name for name in {HEAVY!r} if name in sys.modules]\n"
            "    print(end.code, loaded, file=sys.stderr)\n",
            "--help",
        ],
        capture_output=True,
        text=True,
        timeout=60,
        check=True,
    )
    assert done.stderr.splitlines()[-1] == "0 []"
    assert "rollout" in done.stdout


def test_what_can_be_sent_is_what_agents_know() -> None:
    assert [kind.value for kind in Kind] == [kind.value for kind in CommandKind]
