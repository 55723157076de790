"""The agent, whole, against the embedded stack: real processes, simulated containers, a real Git repository.

What an agent does is seen where an operator would see it: in the tables.
"""

from __future__ import annotations

import asyncio
import json
import os
import shutil
import signal
import subprocess
import sys
import threading
import time
import uuid
from collections.abc import Callable, Iterator
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import psycopg
import pytest
from psycopg.rows import dict_row
from psycopg.types.json import Jsonb

from fleetctl.demo.beacon import BeaconRepo, Breakage
from fleetctl.stack.local_stack import LocalStack
from tests.support.patience import PATIENCE_S

#: A poll never comes round in a test that has this interval: what arrives was woken.
NEVER_S = 86_400

Db = psycopg.Connection[dict[str, Any]]


@pytest.fixture(scope="module")
def db(stack: LocalStack) -> Iterator[Db]:
    with psycopg.connect(stack.db_url, autocommit=True, row_factory=dict_row) as connection:
        yield connection


@pytest.fixture(scope="module")
def repo(tmp_path_factory: pytest.TempPathFactory) -> BeaconRepo:
    return BeaconRepo.create(tmp_path_factory.mktemp("fleet") / "repo")


@dataclass
class Agent:
    """One device: its folder, its configuration, and its daemon while that runs."""

    root: Path
    branch: str
    db: Db
    repo: BeaconRepo
    settings: dict[str, Any]
    daemon: subprocess.Popen[bytes] | None = None
    _logs: list[Any] = field(default_factory=list)

    @property
    def config(self) -> Path:
        return self.root / "device.json"

    @property
    def log(self) -> str:
        file = self.root / "agent.log"
        return file.read_text() if file.exists() else ""

    @property
    def id(self) -> str:
        content: dict[str, str] = json.loads((self.root / "state/identity/device.json").read_text())
        return content["device_id"]

    def configure(self, **changes: Any) -> None:
        self.settings |= changes
        self.config.write_text(json.dumps(self.settings))

    def cli(
        self, verb: str, *more: str, env: dict[str, str] | None = None
    ) -> subprocess.CompletedProcess[str]:
        return subprocess.run(
            self._command(verb, *more), capture_output=True, text=True, timeout=PATIENCE_S, check=False,
            env={**os.environ, **(env or {})},
        )  # fmt: skip

    def enroll(self, token: str | None) -> subprocess.CompletedProcess[str]:
        """The token travels in the environment: other users can read a command line."""
        return self.cli("enroll", env={"FLEET_PROVISIONING_TOKEN": token} if token else None)

    def start(self) -> None:
        log = (self.root / "agent.log").open("ab")
        self._logs.append(log)
        self.daemon = subprocess.Popen(
            self._command("run"), stdout=log, stderr=log, stdin=subprocess.DEVNULL, start_new_session=True
        )

    def kill(self, number: int = signal.SIGKILL) -> None:
        """End the daemon, and with SIGKILL its engine too: the power went."""
        if self.daemon is None:
            return
        with suppress(ProcessLookupError):
            if number == signal.SIGKILL:
                os.killpg(self.daemon.pid, number)
            else:
                self.daemon.send_signal(number)
        self.daemon.wait(timeout=PATIENCE_S)
        self.daemon = None

    def release(self, version: str, breakage: Breakage | None = None) -> str:
        """Commit and offer a release on this agent's own branch; returns its id."""
        commit = self.repo.release(version, breakage=breakage)
        row = self.db.execute(
            "insert into releases (commit_sha, branch, version) values (%s, %s, %s) returning id",
            (commit, self.branch, version),
        ).fetchone()
        assert row is not None
        return str(row["id"])

    def status(self) -> dict[str, Any]:
        row = self.db.execute("select * from device_status where device_id = %s", (self.id,)).fetchone()
        return dict(row or {})

    def history(self) -> list[dict[str, Any]]:
        return self.db.execute(
            "select * from update_history where device_id = %s order by started_at", (self.id,)
        ).fetchall()

    def outbox(self) -> list[Path]:
        return list((self.root / "state/outbox").glob("*.json"))

    def command(self, kind: str, **args: Any) -> dict[str, Any]:
        """Send a command and wait for its answer."""
        row = self.db.execute(
            "insert into device_commands (device_id, kind, args) values (%s, %s, %s) returning id",
            (self.id, kind, Jsonb(args)),
        ).fetchone()
        assert row is not None

        def answered() -> dict[str, Any] | None:
            found = self.db.execute("select * from device_commands where id = %s", (row["id"],)).fetchone()
            return found if found and found["state"] != "queued" else None

        answer: dict[str, Any] = self.until(answered, f"an answer to {kind}")
        return answer

    def runs(self, release_id: str) -> Callable[[], bool]:
        return lambda: str(self.status().get("current_release")) == release_id and self.rests()

    def rests(self) -> bool:
        return self.status().get("state") not in (None, "updating")

    def says(self, text: str, times: int = 1) -> Callable[[], bool]:
        return lambda: self.log.count(text) >= times

    def reload(self, **changes: Any) -> None:
        """Change the configuration of the running daemon."""
        self.configure(**changes)
        assert self.daemon is not None
        self.daemon.send_signal(signal.SIGHUP)

    def until(self, seen: Callable[[], Any], what: str) -> Any:
        deadline = time.monotonic() + PATIENCE_S
        while not (found := seen()):
            if time.monotonic() > deadline:
                pytest.fail(f"{what} was not seen within {PATIENCE_S:.0f} s; the agent's log:\n{self.log}")
            time.sleep(0.1)
        return found

    def _command(self, verb: str, *more: str) -> list[str]:
        return [
            sys.executable, "-m", "fleet_agent", verb, "--root", str(self.root), "--config", str(self.config),
            *more,
        ]  # fmt: skip


MakeAgent = Callable[..., Agent]


@pytest.fixture
def make_agent(stack: LocalStack, db: Db, repo: BeaconRepo, tmp_path: Path) -> Iterator[MakeAgent]:
    """An agent on a branch of its own, so that tests do not update each other's devices."""
    made: list[Agent] = []

    def make(*, enrolled: bool = True, **settings: Any) -> Agent:
        name = f"agent-{uuid.uuid4().hex[:8]}"
        db.execute("insert into branches (name, delivery) values (%s, 'immediate')", (name,))
        root = tmp_path / name
        root.mkdir()
        agent = Agent(
            root, name, db, repo,
            {
                "api_url": stack.api_url, "publishable_key": stack.publishable_key, "git_url": repo.url,
                "allowed_signers": str(repo.allowed_signers), "name": name, "runtime": "simulated",
                "poll_interval_s": NEVER_S,
            },
        )  # fmt: skip
        agent.configure(**settings)
        if enrolled:
            done = agent.enroll(provisioning_token(db, name))
            assert done.returncode == 0, done.stderr
        made.append(agent)
        return agent

    yield make
    for agent in made:
        agent.kill()
        for log in agent._logs:
            log.close()


def provisioning_token(db: Db, branch: str) -> str:
    """A token as an operator makes one, bound to `branch`."""
    row = db.execute(
        "select create_provisioning_token(role => 'beacon', segment => 'stable', branch => %s) as made",
        (branch,),
    ).fetchone()
    assert row is not None
    return str(row["made"]["token"])


class Relay:
    """A network that can be cut, whole or for Realtime alone."""

    def __init__(self, target: str) -> None:
        parts = urlsplit(target)
        self._target = (parts.hostname, parts.port)
        self.cut = False
        self.without_realtime = False
        self.without_rest = False
        self._writers: set[asyncio.StreamWriter] = set()
        self._realtime: set[asyncio.StreamWriter] = set()
        self._loop = asyncio.new_event_loop()
        self._ready = threading.Event()
        self._thread = threading.Thread(target=self._serve, daemon=True)
        self.port = 0

    def __enter__(self) -> Relay:
        self._thread.start()
        self._ready.wait()
        return self

    def __exit__(self, *_: object) -> None:
        self._loop.call_soon_threadsafe(self._loop.stop)
        self._thread.join()

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.port}"

    def go_down(self) -> None:
        """From now on connections are dropped, open ones too."""
        self.cut = True
        self._loop.call_soon_threadsafe(self._drop)

    def come_back(self) -> None:
        self.cut = False

    def lose_rest(self) -> None:
        """From now on only Realtime gets through, on the connection that it has, too."""
        self.without_rest = True
        self._loop.call_soon_threadsafe(self._drop_all_but, self._realtime)

    def _drop(self) -> None:
        self._drop_all_but(set())

    def _drop_all_but(self, kept: set[asyncio.StreamWriter]) -> None:
        for writer in self._writers - kept:
            writer.transport.abort()

    def _serve(self) -> None:
        server = self._loop.run_until_complete(self._listen())
        self.port = server.sockets[0].getsockname()[1]
        self._ready.set()
        self._loop.run_forever()

    async def _listen(self) -> asyncio.Server:
        return await asyncio.start_server(self._pass_on, "127.0.0.1", 0)

    async def _pass_on(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        first = await reader.read(65536)
        is_realtime = b"/realtime/" in first.partition(b"\r\n")[0]
        if self.cut or (self.without_realtime if is_realtime else self.without_rest):
            writer.transport.abort()
            return
        up_reader, up_writer = await asyncio.open_connection(*self._target)
        self._writers |= {writer, up_writer}
        if is_realtime:
            self._realtime |= {writer, up_writer}
        up_writer.write(first)
        await asyncio.gather(self._pump(reader, up_writer), self._pump(up_reader, writer))
        self._writers -= {writer, up_writer}

    @staticmethod
    async def _pump(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        with suppress(OSError):
            while data := await reader.read(65536):
                writer.write(data)
                await writer.drain()
            writer.write_eof()


@pytest.fixture
def relay(stack: LocalStack) -> Iterator[Relay]:
    with Relay(stack.api_url) as running:
        yield running


def test_an_enrolled_device_is_woken_by_a_release_converges_and_says_so(make_agent: MakeAgent) -> None:
    """With a poll interval of a day, only the wake can have done it. Then a bad one, undone by itself."""
    agent = make_agent()
    agent.start()
    agent.until(agent.says("realtime subscribed"), "the subscription")
    first = agent.release("1.0.0")
    agent.until(agent.runs(first), "1.0.0")
    status = agent.status()
    assert status["state"] == "healthy"
    assert status["agent_version"]
    assert status["resources"]["memory_total_bytes"] > 0
    assert {container["service"] for container in status["containers"]} == {"web", "clock"}
    (attempt,) = agent.until(agent.history, "the attempt")
    assert (attempt["outcome"], str(attempt["release_id"])) == ("succeeded", first)
    assert attempt["phase_durations_ms"]["fetching"] >= 0

    shown = json.loads(agent.cli("status", "--json").stdout)
    assert shown["current"]["id"] == first
    assert shown["device_id"] == agent.id

    bad = agent.release("2.0.0", Breakage.CRASH)
    agent.until(lambda: len(agent.history()) == 2, "the second attempt")
    agent.until(lambda: agent.status()["state"] == "rolled_back", "the rollback in the status")
    second = agent.history()[1]
    assert (second["outcome"], str(second["release_id"])) == ("rolled_back", bad)
    assert second["error"]
    assert str(agent.status()["current_release"]) == first

    assert agent.daemon is not None
    agent.kill(signal.SIGTERM)
    assert "agent stopped" in agent.log


def test_with_realtime_down_the_poll_alone_converges(make_agent: MakeAgent, relay: Relay) -> None:
    relay.without_realtime = True
    agent = make_agent(api_url=relay.url, poll_interval_s=2)
    agent.start()
    agent.until(agent.says("realtime is not connected"), "the refused subscription")
    wanted = agent.release("1.0.0")
    agent.until(agent.runs(wanted), "1.0.0")
    assert "woken" not in agent.log


def test_with_rest_down_a_wake_still_makes_the_device_ask_and_it_converges_once_rest_is_back(
    make_agent: MakeAgent, relay: Relay
) -> None:
    """A poll comes round once a day here: it is the wakes, and the waits after a failure, that count."""
    agent = make_agent(api_url=relay.url)
    agent.start()
    agent.until(agent.says("realtime subscribed"), "the subscription")
    agent.until(lambda: agent.status().get("state") == "healthy", "the first report")
    relay.lose_rest()
    wanted = agent.release("1.0.0")
    agent.until(agent.says("woken: "), "the wake")
    agent.until(agent.says("unreachable: "), "the question without an answer")
    assert "realtime is not connected" not in agent.log
    relay.without_rest = False
    agent.until(agent.runs(wanted), "1.0.0")
    assert agent.log.count("realtime subscribed") == 1


def test_with_git_down_what_runs_stays_and_the_release_arrives_once_git_is_back(
    make_agent: MakeAgent,
) -> None:
    agent = make_agent(poll_interval_s=1)
    agent.start()
    first = agent.release("1.0.0")
    agent.until(agent.runs(first), "1.0.0")
    git_url = agent.settings["git_url"]
    # Nobody listens there.
    agent.reload(git_url="http://127.0.0.1:9/fleet.git")
    agent.until(agent.says("changed: git_url"), "the changed configuration")
    second = agent.release("2.0.0")
    agent.until(lambda: len(agent.history()) == 2, "the attempt that could not fetch")
    failed = agent.history()[1]
    assert (failed["outcome"], failed["failed_phase"], failed["error_kind"]) == (
        "failed", "fetching", "git_unreachable",
    )  # fmt: skip
    assert str(agent.status()["current_release"]) == first
    # The attempt is in the history a moment before the status.
    agent.until(lambda: agent.status()["state"] == "healthy", "the device healthy again")
    assert str(agent.status()["current_release"]) == first
    agent.reload(git_url=git_url)
    agent.until(agent.says("changed: git_url", times=2), "the mended configuration")
    agent.command("update_now")
    agent.until(agent.runs(second), "2.0.0")


def test_history_waits_on_disk_through_an_outage_and_a_power_cut_and_arrives_once(
    make_agent: MakeAgent, relay: Relay
) -> None:
    agent = make_agent(api_url=relay.url, poll_interval_s=1, wake=False)
    outbox = agent.root / "state/outbox"
    wanted = agent.release("1.0.0")
    agent.start()
    agent.until(agent.says("converging to 1.0.0"), "the start of the update")
    relay.go_down()
    agent.until(lambda: list(outbox.glob("*.json")), "the finished attempt on disk")
    agent.kill()
    agent.start()
    agent.until(agent.says("unreachable"), "the agent without a network")
    assert agent.history() == []
    relay.come_back()
    (attempt,) = agent.until(agent.history, "the attempt in the history")
    assert (attempt["outcome"], str(attempt["release_id"])) == ("succeeded", wanted)
    agent.until(lambda: not list(outbox.glob("*.json")), "an empty outbox")
    agent.until(agent.runs(wanted), "1.0.0 in the status")
    assert len(agent.history()) == 1


def test_a_suspended_device_is_refused_by_name_until_it_is_active_again(make_agent: MakeAgent) -> None:
    agent = make_agent()
    assert agent.cli("once").returncode == 0
    agent.db.execute("update devices set state = 'suspended' where id = %s", (agent.id,))
    agent.release("1.0.0")
    refused = agent.cli("once")
    assert refused.returncode == 4
    assert "device_suspended" in refused.stderr
    assert agent.status()["current_release"] is None
    agent.db.execute("update devices set state = 'active' where id = %s", (agent.id,))
    assert agent.cli("once").returncode == 0
    assert agent.status()["current_release"] is not None


def test_a_device_without_a_token_waits_to_be_accepted(make_agent: MakeAgent) -> None:
    agent = make_agent(enrolled=False)
    assert agent.cli("once").returncode == 2, "not enrolled"
    asked = agent.enroll(None)
    assert asked.returncode == 0
    assert "waiting for an operator to accept it" in asked.stdout
    waiting = agent.cli("once")
    assert waiting.returncode == 4
    assert "device_pending" in waiting.stderr
    agent.db.execute(
        "update devices set state = 'active', role = coalesce(role, 'beacon') where id = %s", (agent.id,)
    )
    assert agent.cli("once").returncode == 0


def test_a_wrong_provisioning_token_is_refused_by_name(make_agent: MakeAgent) -> None:
    agent = make_agent(enrolled=False)
    refused = agent.enroll("fpt_" + "0" * 64)
    assert refused.returncode == 4
    assert "token_invalid" in refused.stderr
    assert "0" * 64 not in refused.stderr


def test_orders_of_an_operator_wake_the_device_and_are_answered(make_agent: MakeAgent) -> None:
    agent = make_agent()
    wanted = agent.release("1.0.0")
    agent.start()
    agent.until(agent.runs(wanted), "1.0.0")
    agent.until(agent.says("realtime subscribed"), "the subscription")

    logs = agent.command("tail_logs", lines=5)
    assert logs["state"] == "succeeded"
    assert set(logs["result"]) == {"lines", "agent"}
    drift = agent.command("check_drift")
    assert drift["result"] == {"drifted": False, "changed": []}
    restarted = agent.command("restart")
    assert restarted["state"] == "succeeded", restarted["result"]
    back = agent.command("rollback")
    assert (back["state"], back["result"]["kind"]) == ("failed", "nothing_to_roll_back")

    page = agent.root / "app_current/roles/beacon/web/index.html"
    page.chmod(0o644)
    page.write_text("edited by hand")
    changed = agent.command("check_drift")
    assert changed["result"]["drifted"] is True
    assert "index.html" in str(changed["result"]["changed"])


def test_a_command_is_carried_out_at_most_once_although_the_power_goes_in_its_middle(
    make_agent: MakeAgent,
) -> None:
    agent = make_agent()
    wanted = agent.release("1.0.0")
    agent.start()
    agent.until(agent.runs(wanted), "1.0.0")
    row = agent.db.execute(
        "insert into device_commands (device_id, kind) values (%s, 'restart') returning id", (agent.id,)
    ).fetchone()
    assert row is not None
    journal = agent.root / "state/commands.json"
    # The log also tells of one that is done already.
    agent.until(lambda: journal.exists() or agent.says("carrying out restart")(), "the command, begun")
    agent.kill()
    agent.start()

    def answered() -> Any:
        return agent.db.execute(
            "select * from device_commands where id = %s and state <> 'queued'", (row["id"],)
        ).fetchone()

    answer = agent.until(answered, "the answer")
    assert agent.log.count("carrying out restart") <= 1
    # Where the power went after it was done and before it was answered, the answer is kept.
    if answer["state"] == "failed":
        assert answer["result"]["kind"] == "interrupted"
    agent.until(lambda: not journal.exists(), "an empty journal of commands")
    agent.until(lambda: agent.status()["state"] == "healthy", "what runs, well")


def test_a_changed_configuration_is_followed_without_a_restart(make_agent: MakeAgent) -> None:
    agent = make_agent()
    agent.start()
    agent.until(agent.rests, "the first report")
    agent.configure(poll_interval_s="often")
    assert agent.daemon is not None
    agent.daemon.send_signal(signal.SIGHUP)
    agent.until(lambda: agent.status()["error_kind"] == "config_invalid", "the complaint in the status")
    assert "poll_interval_s" in agent.status()["error"]
    agent.configure(poll_interval_s=NEVER_S)
    agent.daemon.send_signal(signal.SIGHUP)
    agent.until(lambda: agent.status()["error_kind"] is None, "the mended status")


def test_an_idle_agent_is_small_and_writes_nothing(make_agent: MakeAgent) -> None:
    """The aim is 45 MiB; the bench measures it, this only holds the line on whatever machine it runs."""
    agent = make_agent()
    agent.start()
    agent.until(agent.says("realtime subscribed"), "the subscription")
    agent.until(agent.rests, "the first report")
    assert agent.daemon is not None
    proc = Path("/proc") / str(agent.daemon.pid)

    def written() -> str:
        return next(line for line in (proc / "io").read_text().splitlines() if line.startswith("write_bytes"))

    time.sleep(5)  # settling: the check-in that follows the subscription
    before = written()
    time.sleep(5)
    assert written() == before
    rss = next(line for line in (proc / "smaps_rollup").read_text().splitlines() if line.startswith("Rss"))
    assert int(rss.split()[1]) < 50 * 1024, rss


def test_a_copied_card_is_told_by_an_alert_and_neither_machine_is_harmed(
    make_agent: MakeAgent, db: Db, tmp_path: Path
) -> None:
    """Two machines with one identity: both follow releases as if they were alone."""
    original = make_agent(poll_interval_s=1)
    first = original.release("1.0.0")
    original.start()
    original.until(original.runs(first), "1.0.0")
    original.kill(signal.SIGTERM)
    root = tmp_path / "copied-card"
    shutil.copytree(original.root, root, symlinks=True)
    copy = Agent(root, original.branch, db, original.repo, original.settings)
    told = (
        "select summary from alerts where kind = 'identity_shared' and device_id = %s and resolved_at is null"
    )
    original.start()
    original.until(original.says("agent for device", 2), "the second start")
    assert db.execute(told, (original.id,)).fetchall() == []
    copy.start()
    try:
        original.until(lambda: db.execute(told, (original.id,)).fetchone(), "the alert")
        second = original.release("2.0.0")

        def both_run_it() -> bool:
            shown = [json.loads(agent.cli("status", "--json").stdout) for agent in (original, copy)]
            return all(found["current"]["id"] == second and found["state"] == "healthy" for found in shown)

        original.until(both_run_it, "2.0.0 on both machines")
        original.until(original.runs(second), "2.0.0 in the table")
        original.until(lambda: not (original.outbox() or copy.outbox()), "both outboxes uploaded")
        assert {row["outcome"] for row in original.history()} == {"succeeded"}
        assert [row["release_id"] for row in original.history()].count(uuid.UUID(second)) == 2
        assert original.daemon and copy.daemon
        assert original.daemon.poll() is None and copy.daemon.poll() is None
    finally:
        copy.kill()
        for log in copy._logs:
            log.close()
