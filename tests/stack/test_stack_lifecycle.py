"""Starting, stopping, crashing and starting again: never a lost row, always a clear word.

One data folder for the whole file; each test leaves it stopped.
"""

from __future__ import annotations

import json
import os
import shutil
import signal
import socket
import stat
import subprocess
import sys
import tempfile
import time
import uuid
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path

import httpx
import psutil  # type: ignore[import-untyped]  # ships no types
import psycopg
import pytest

from fleetctl.errors import FleetctlError
from fleetctl.stack.keys import Keys
from fleetctl.stack.layout import DataFolder
from fleetctl.stack.local_stack import LocalStack
from fleetctl.stack.ports import free_ports, is_free
from fleetctl.stack.postgres import SUPERUSER, Postgres
from fleetctl.stack.process import Identity
from tests.support.patience import PATIENCE_S
from tests.support.stack import copy_data


@pytest.fixture(scope="module")
def data() -> Iterator[Path]:
    """A folder in which a stack was started once and stopped again."""
    root = Path(tempfile.mkdtemp(prefix="fleet-lifecycle-"))
    copy_data(root / "data")
    yield root / "data"
    shutil.rmtree(root)


@pytest.fixture
def empty() -> Iterator[Path]:
    root = Path(tempfile.mkdtemp(prefix="fleet-empty-"))
    yield root / "data"
    shutil.rmtree(root)


def start(data: Path, port: int = 0, *, durable: bool = False, table_editor: bool = True) -> LocalStack:
    return LocalStack.start(data=data, port=port, web=False, durable=durable, table_editor=table_editor)


def query(stack: LocalStack, sql: str, *values: object) -> object:
    with psycopg.connect(stack.db_url, autocommit=True) as connection:
        row = connection.execute(sql.encode(), values).fetchone()
        assert row is not None
        return row[0]


def add_segment(stack: LocalStack) -> str:
    name = f"s-{uuid.uuid4().hex[:8]}"
    query(
        stack,
        "insert into public.segments (name, position) "
        "values (%s, (select max(position) + 1 from public.segments)) returning name",
        name,
    )
    return name


def has_segment(stack: LocalStack, name: str) -> bool:
    return query(stack, "select count(*) from public.segments where name = %s", name) == 1


def gone(*processes: Identity | None) -> bool:
    """Wait until each has ended."""
    return all(process is not None and process.wait(PATIENCE_S) for process in processes)


def kill(process: Identity | None) -> None:
    assert process is not None
    os.kill(process.pid, signal.SIGKILL)


# --- data and keys ------------------------------------------------------------------------------------------


def test_second_start_keeps_rows_and_keys(data: Path) -> None:
    with start(data) as stack:
        name = add_segment(stack)
        keys = (stack.publishable_key, stack.secret_key, stack.jwt_secret)
    with start(data) as stack:
        assert has_segment(stack, name)
        assert (stack.publishable_key, stack.secret_key, stack.jwt_secret) == keys


def test_keys_are_random_for_each_folder_and_for_their_owner_alone(empty: Path) -> None:
    first, second = DataFolder.at(empty / "a"), DataFolder.at(empty / "b")
    mine, other = Keys.load_or_create(first), Keys.load_or_create(second)
    assert stat.S_IMODE(first.keys.stat().st_mode) == 0o600
    assert not set(json.loads(first.keys.read_text()).values()) & set(
        json.loads(second.keys.read_text()).values()
    )
    assert mine.publishable_key.startswith("sb_publishable_")
    assert mine.secret_key.startswith("sb_secret_")
    assert mine.jwt_secret not in repr(mine)
    assert Keys.load_or_create(first) == mine != other


def test_no_secret_reaches_the_logs_or_other_users(data: Path) -> None:
    with start(data) as stack:
        httpx.get(f"{stack.api_url}/rest/v1/devices", headers={"apikey": stack.publishable_key})
    folder = DataFolder.at(data)
    logs = list(folder.logs.glob("*.log"))
    assert {"stack.log", "postgres.log", "server.log"} <= {log.name for log in logs}
    text = "\n".join(log.read_text() for log in logs)
    assert [secret for secret in Keys.load(folder).secrets() if secret in text] == []
    assert {stat.S_IMODE(log.stat().st_mode) for log in logs} == {0o600}
    assert stat.S_IMODE(folder.logs.stat().st_mode) == 0o700


def test_database_without_its_keys_is_refused(empty: Path) -> None:
    (empty / "postgres").mkdir(parents=True)
    with pytest.raises(FleetctlError, match="is missing") as caught:
        start(empty)
    assert caught.value.kind == "keys_lost"


# --- crashes ------------------------------------------------------------------------------------------------


def test_stack_that_was_killed_starts_again_with_every_committed_row(data: Path) -> None:
    stack = start(data, durable=True)
    assert query(stack, "select current_setting('fsync') || current_setting('full_page_writes')") == "onon"
    name = add_segment(stack)
    parts = [stack.process_of(part) for part in ("supervisor", "server", "postgres")]
    for part in parts:
        kill(part)
    assert gone(*parts)
    stack.stop()
    with start(data) as again:
        assert has_segment(again, name)


def test_killed_supervisor_leaves_no_process_behind(data: Path) -> None:
    stack = start(data)
    children = stack.process_of("server"), stack.process_of("postgres")
    kill(stack.process_of("supervisor"))
    assert gone(*children)
    assert LocalStack.status_of(data).state == "stopped"
    stack.stop()


def test_stack_ends_with_the_process_that_started_it(data: Path) -> None:
    code = (
        "import pathlib, sys, time\n"
        "from fleetctl.stack.local_stack import LocalStack\n"
        f"stack = LocalStack.start(data=pathlib.Path({str(data)!r}), port=0, web=False, durable=False)\n"
        "print('up', flush=True)\n"
        "time.sleep(600)\n"
    )
    with subprocess.Popen([sys.executable, "-c", code], stdout=subprocess.PIPE, text=True) as parent:
        assert parent.stdout is not None
        assert parent.stdout.readline() == "up\n"
        parts = [LocalStack.find(data).process_of(part) for part in ("supervisor", "server", "postgres")]
        parent.kill()
    assert gone(*parts)


def test_orphaned_postgres_is_taken_over(data: Path) -> None:
    """As after a crash where the kernel did not end the children: the server still runs on our folder."""
    folder = DataFolder.at(data)
    with start(data) as stack:
        port = int(stack.db_url.rsplit(":", 1)[1].split("/")[0])
    orphan = Postgres(folder)
    orphan.start(port)
    assert orphan.child is not None
    with orphan.connect(SUPERUSER, Keys.load(folder).supabase_admin_password) as connection:
        connection.execute("create table if not exists public.written_to_the_orphan ()")
    with start(data) as stack:
        assert orphan.child.wait(PATIENCE_S) is not None
        assert query(stack, "select to_regclass('public.written_to_the_orphan') is not null") is True


def test_stranger_with_a_recycled_process_id_is_left_alone(data: Path) -> None:
    folder = DataFolder.at(data)
    with subprocess.Popen(["sleep", "600"]) as stranger:
        try:
            (folder.postgres / "postmaster.pid").write_text(f"{stranger.pid}\n{folder.postgres}\n")
            started = psutil.Process(stranger.pid).create_time() - 60
            folder.state.write_text(json.dumps({"server": {"pid": stranger.pid, "started": started}}))
            with start(data) as stack:
                assert query(stack, "select 1") == 1
                assert stranger.poll() is None
        finally:
            stranger.kill()


@pytest.mark.parametrize("part", ["server", "postgres"])
def test_part_that_dies_is_started_again(data: Path, part: str) -> None:
    with start(data) as stack:
        name = add_segment(stack)
        before = stack.process_of(part)  # type: ignore[arg-type]
        kill(before)
        assert gone(before)
        # The health page may say "ready" for an instant before anybody has noticed the death.
        for _ in range(400):
            if stack.process_of(part) != before:  # type: ignore[arg-type]
                break
            time.sleep(0.05)
        assert stack.process_of(part) != before  # type: ignore[arg-type]
        with httpx.Client(base_url=stack.api_url, timeout=5) as client:
            assert until_ready(client)["ready"] is True
        assert has_segment(stack, name)


def until_ready(client: httpx.Client) -> dict[str, object]:
    """Ask for the health, as a load balancer would, until every part is ready."""
    body: dict[str, object] = {}
    for _ in range(200):
        try:
            body = client.get("/_fleet/health").json()
        except (httpx.HTTPError, ValueError):
            body = {}
        if body.get("ready"):
            return body
        time.sleep(0.05)
    return body


# --- folders ------------------------------------------------------------------------------------------------


def test_half_made_database_is_made_anew(empty: Path) -> None:
    """Only a folder that initdb finished gets the name `postgres`."""
    unfinished = DataFolder.at(empty).new_unfinished()
    (unfinished / "base").mkdir(parents=True)
    (unfinished / "PG_VERSION").write_text("18\n")
    unfinished.with_name(f"{unfinished.name}.password").write_text("of the start that was cut off")
    with start(empty) as stack:
        assert query(stack, "select 1") == 1
    assert sorted(path.name for path in empty.iterdir()) == [
        "keys.json",
        "logs",
        "postgres",
        "run",
        "stack.lock",
    ]


@pytest.mark.parametrize(
    ("version", "kind", "said"),
    [
        ("15\n", "postgres_too_old", "was created by PostgreSQL 15; this fleetctl has 18"),
        ("19\n", "postgres_too_new", "was created by PostgreSQL 19; this fleetctl has 18"),
        ("", "postgres_damaged", "it has no readable PG_VERSION"),
    ],
)
def test_database_of_another_version_is_refused_untouched(
    empty: Path, version: str, kind: str, said: str
) -> None:
    folder = DataFolder.at(empty)
    Keys.load_or_create(folder)
    folder.postgres.mkdir()
    (folder.postgres / "PG_VERSION").write_text(version)
    (folder.postgres / "row").write_text("precious")
    with pytest.raises(FleetctlError, match=said) as caught:
        start(empty)
    assert caught.value.kind == kind
    assert sorted(path.name for path in folder.postgres.iterdir()) == ["PG_VERSION", "row"]


def test_stack_made_by_another_text_of_the_migrations_is_refused_until_it_starts_over(data: Path) -> None:
    with start(data) as stack:
        query(stack, "update private.baseline set text_hash = 'another' returning text_hash")
    with pytest.raises(FleetctlError) as caught:
        start(data)
    assert caught.value.kind == "baseline_changed"
    assert "`fleetctl reset`" in caught.value.hint
    assert LocalStack.reset(data)
    start(data).stop()


@pytest.mark.parametrize(
    "stage",
    [
        "Creating the database",
        pytest.param("Starting PostgreSQL", marks=pytest.mark.full),
        "Applying migrations",
        pytest.param("Starting the API", marks=pytest.mark.full),
    ],
)
def test_start_that_was_killed_at_any_stage_does_not_hinder_the_next(empty: Path, stage: str) -> None:
    options = {"data": str(empty), "port": 0, "web": False, "durable": False}
    with subprocess.Popen(
        [sys.executable, "-m", "fleetctl.stack"], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    ) as supervisor:
        assert supervisor.stdin is not None
        assert supervisor.stdout is not None
        supervisor.stdin.write(json.dumps(options) + "\n")
        supervisor.stdin.flush()
        try:
            for line in supervisor.stdout:
                message = json.loads(line)
                if message.get("progress") == stage:
                    break
                assert "ready" not in message, f"the start never said {stage!r}"
        finally:
            supervisor.kill()
    with start(empty) as stack:
        name = add_segment(stack)
        assert has_segment(stack, name)
    assert DataFolder.at(empty).all_unfinished() == []


# --- ports and locks ----------------------------------------------------------------------------------------


@pytest.mark.parametrize(("offset", "purpose"), [(0, "the API"), (1, "PostgreSQL"), (2, "the table editor")])
def test_taken_port_is_named_with_its_owner(data: Path, offset: int, purpose: str) -> None:
    with closing(socket.socket()) as listener:
        listener.bind(("127.0.0.1", 0))
        listener.listen()
        taken = listener.getsockname()[1]
        with pytest.raises(FleetctlError) as caught:
            start(data, taken - offset)
    assert caught.value.kind == "port_taken"
    assert caught.value.message.startswith(f"Port {taken}, needed for {purpose}")
    assert f"(process {os.getpid()})" in caught.value.message


def test_free_ports_differ_and_lie_outside_of_what_outgoing_connections_take() -> None:
    lowest = int(Path("/proc/sys/net/ipv4/ip_local_port_range").read_text().split()[0])
    found = free_ports(50)
    assert len(set(found)) == 50
    assert max(found) < lowest
    with closing(socket.socket()) as listener:
        listener.bind(("127.0.0.1", found[0]))
        listener.listen()
        assert not is_free("127.0.0.1", found[0])


def test_second_start_in_a_folder_is_refused_and_names_the_first(data: Path) -> None:
    with start(data) as stack:
        owner = stack.process_of("supervisor")
        assert owner is not None
        with pytest.raises(FleetctlError, match=f"process {owner.pid}") as caught:
            start(data)
        assert caught.value.kind == "already_running"
        assert query(stack, "select 1") == 1


def test_of_starts_at_once_in_a_new_folder_exactly_one_wins(empty: Path) -> None:
    code = (
        "import pathlib, sys\n"
        "from fleetctl.errors import FleetctlError\n"
        "from fleetctl.stack.local_stack import LocalStack\n"
        "try:\n"
        f"    stack = LocalStack.start(data=pathlib.Path({str(empty)!r}), port=0, web=False, durable=False)\n"
        "except FleetctlError as error:\n"
        "    print(error.kind, flush=True)\n"
        "else:\n"
        "    print('up', flush=True)\n"
        "    sys.stdin.read()\n"
        "    stack.stop()\n"
    )
    racers = [
        subprocess.Popen(
            [sys.executable, "-c", code], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
        )
        for _ in range(3)
    ]
    said = [racer.stdout.readline().strip() for racer in racers if racer.stdout is not None]
    for racer in racers:
        racer.communicate()
    assert sorted(said) == ["already_running", "already_running", "up"]


def test_table_editor_can_be_switched_off(data: Path) -> None:
    with start(data, table_editor=False) as stack:
        assert stack.table_editor_url is None
        port = int(stack.api_url.rsplit(":", 1)[1]) + 2
        with pytest.raises(httpx.ConnectError):
            httpx.get(f"http://127.0.0.1:{port}/")
