"""`fleetctl up`, `down`, `status`, `reset` as a person or a script calls them."""

from __future__ import annotations

import json
import shutil
import signal
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import psycopg
import pytest

from fleetctl.stack.local_stack import LocalStack
from tests.support.patience import PATIENCE_S
from tests.support.stack import copy_data


@pytest.fixture(scope="module")
def data() -> Iterator[Path]:
    root = Path(tempfile.mkdtemp(prefix="fleet-commands-"))
    yield root / "data"
    LocalStack.down(root / "data")
    shutil.rmtree(root)


def fleetctl(*arguments: str, stdin: str = "") -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-m", "fleetctl", *arguments],
        input=stdin, capture_output=True, text=True, check=False, timeout=2 * PATIENCE_S,
    )  # fmt: skip


def answer(result: subprocess.CompletedProcess[str]) -> Any:
    """The one JSON document on stdout."""
    return json.loads(result.stdout)


def test_folder_in_which_nothing_was_started(data: Path) -> None:
    status = fleetctl("status", "--data", str(data), "--json")
    assert status.returncode == 3
    assert answer(status)["state"] == "stopped"
    down = fleetctl("down", "--data", str(data), "--json")
    assert (down.returncode, answer(down)["stopped"]) == (0, False)
    assert not data.exists()


def test_detached_stack_is_found_refused_twice_and_stopped_by_other_processes(data: Path) -> None:
    copy_data(data)
    up = fleetctl("up", "--port", "0", "--no-web", "--detach", "--data", str(data), "--json")
    assert up.returncode == 0, up.stderr
    status = fleetctl("status", "--data", str(data), "--json")
    assert (status.returncode, answer(status)) == (0, answer(up))
    told = answer(status)
    assert told["state"] == "running"
    assert told["publishable_key"].startswith("sb_publishable_")
    assert told["secret_key"].startswith("sb_secret_")
    assert told["dashboard_url"] == f"{told['api_url']}/"
    assert told["table_editor_url"].startswith("http://127.0.0.1:")
    assert "jwt_secret" not in status.stdout
    with psycopg.connect(told["db_url"]) as connection:
        assert list(connection.execute("select current_user")) == [("supabase_admin",)]
    again = fleetctl("up", "--port", "0", "--no-web", "--detach", "--data", str(data), "--json")
    assert (again.returncode, answer(again)["error"]["kind"]) == (1, "already_running")
    wipe = fleetctl("reset", "--yes", "--data", str(data), "--json")
    assert (wipe.returncode, answer(wipe)["error"]["kind"]) == (1, "already_running")
    down = fleetctl("down", "--data", str(data), "--json")
    assert (down.returncode, answer(down)["stopped"]) == (0, True)
    assert LocalStack.status_of(data).state == "stopped"


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_stack_in_the_foreground_says_where_it_is_and_stops_on_a_signal(
    data: Path, number: signal.Signals
) -> None:
    with subprocess.Popen(
        [sys.executable, "-m", "fleetctl", "up", "--port", "0", "--no-web", "--data", str(data), "--json"],
        stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True,
    ) as process:  # fmt: skip
        assert process.stderr is not None
        for line in process.stderr:
            if line.startswith("Running."):
                break
        assert LocalStack.status_of(data).state == "running"
        process.send_signal(number)
        stdout, stderr = process.communicate(timeout=PATIENCE_S)
    assert (process.returncode, stderr) == (0, "Stopped.\n")
    assert json.loads(stdout)["state"] == "running"
    assert LocalStack.status_of(data).state == "stopped"


def test_reset_asks_then_wipes_the_database_and_keeps_the_keys(data: Path) -> None:
    keys = (data / "keys.json").read_text()
    refused = fleetctl("reset", "--data", str(data), stdin="n\n")
    assert (refused.returncode, "not_confirmed" in refused.stderr) == (1, True)
    assert (data / "postgres").is_dir()
    agreed = fleetctl("reset", "--data", str(data), stdin="y\n")
    assert agreed.returncode == 0
    assert not (data / "postgres").exists()
    assert (data / "keys.json").read_text() == keys
    assert answer(fleetctl("reset", "--yes", "--data", str(data), "--json"))["deleted"] is False
