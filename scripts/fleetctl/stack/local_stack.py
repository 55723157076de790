"""A handle on one embedded stack: start it, find it, stop it, ask how it is."""

from __future__ import annotations

import json
import shutil
import signal
import subprocess
import sys
import tempfile
import time
import urllib.error
import urllib.request
from collections.abc import Callable
from dataclasses import asdict, dataclass
from pathlib import Path
from types import TracebackType
from typing import IO, Any, Literal, Self, cast

from fleetctl.errors import FleetctlError
from fleetctl.stack.keys import Keys
from fleetctl.stack.layout import DEFAULT_PORT, DataFolder
from fleetctl.stack.lock import hold_lock, is_locked, read_owner
from fleetctl.stack.postgres import SUPERUSER, remove_unfinished, url
from fleetctl.stack.process import Identity
from fleetctl.stack.state_file import api_url_of, read_state
from fleetctl.stack.supervisor import Options

State = Literal["running", "stopped", "starting", "broken"]

_STOP_TIMEOUT_S = 90.0


@dataclass(frozen=True)
class Status:
    """What `fleetctl status --json` prints. Addresses are None if nothing runs."""

    state: State
    data: str
    detail: str
    pid: int | None = None
    api_url: str | None = None
    publishable_key: str | None = None
    secret_key: str | None = None
    db_url: str | None = None
    dashboard_url: str | None = None
    table_editor_url: str | None = None


class LocalStack:
    """A running stack. `with LocalStack.start(...) as stack:` stops it at the end.

    The stack runs in a process of its own; when this process ends, however it ends, that one stops too.
    """

    def __init__(self, folder: DataFolder, process: subprocess.Popen[str] | None = None) -> None:
        self._process = process
        self.data = folder.root
        self._folder = folder
        self._keys = Keys.load(folder)
        self._state = read_state(folder)

    @classmethod
    def start(
        cls,
        *,
        data: Path,
        port: int = DEFAULT_PORT,
        host: str = "127.0.0.1",
        table_editor: bool = True,
        web: bool = True,
        durable: bool = True,
        detach: bool = False,
        progress: Callable[[str], None] = lambda text: None,
    ) -> Self:
        """Start a stack and return when it is ready; its data stays from start to start.

        `port` 0 picks free ones. `durable=False` trades safety against power loss for speed. `detach` lets it
        outlive this process. Raises FleetctlError, among them `already_running`, `port_taken`,
        `postgres_too_old`, `migration_failed`.
        """
        folder = DataFolder.at(data)
        options = Options(
            data=str(folder.root), port=port, host=host, table_editor=table_editor, web=web, durable=durable,
            detach=detach,
        )  # fmt: skip
        # A file, not a pipe: nothing reads it while the stack runs.
        with tempfile.TemporaryFile("w+") as stderr:
            process = subprocess.Popen(
                [sys.executable, "-m", "fleetctl.stack"],
                stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=stderr, text=True,
                start_new_session=True,
            )  # fmt: skip
            try:
                _await_ready(process, options, progress)
            except _Silent as error:
                stderr.seek(0)
                raise FleetctlError(
                    "supervisor_died",
                    f"The stack exited while starting (exit code {error}). {stderr.read().strip()}".rstrip(),
                    hint=f"See the logs in {folder.logs}",
                ) from error
            except BaseException:
                # Ctrl-C while it starts: the end of its stdin is what tells the supervisor to stop.
                _end(process)
                raise
        return cls(folder, None if detach else process)

    @classmethod
    def find(cls, data: Path) -> LocalStack:
        """The stack that runs in a folder, also if one of its parts fails (`status_of` names it).

        Raises FleetctlError `not_running`.
        """
        folder = DataFolder.at(data)
        status = cls.status_of(data)
        if status.api_url is None and status.pid is not None:
            raise FleetctlError(
                "unavailable",
                f"The stack in {folder.root} is running, but it cannot be used yet: {status.detail}.",
                hint=f"Try again in a moment. If it persists, see {folder.logs}.",
                exit_code=3,
            )
        if status.api_url is None:
            raise FleetctlError(
                "not_running",
                f"No stack is running in {folder.root}: {status.detail}.",
                hint=f"Start one: fleetctl up --data {data}",
                exit_code=3,
            )
        return LocalStack(folder)

    @staticmethod
    def is_running(data: Path) -> bool:
        """Whether a process owns the folder now, ready or still starting."""
        return is_locked(DataFolder.at(data))

    @staticmethod
    def status_of(data: Path) -> Status:
        """How the folder's stack is. Never raises for a stack that is down or broken."""
        return _status(DataFolder.at(data))

    @staticmethod
    def down(data: Path) -> bool:
        """Stop the folder's stack, or what a killed one left behind; True if something was stopped.

        Raises FleetctlError `not_stopping` if its processes outlive the wait.
        """
        return _stop(DataFolder.at(data))

    @staticmethod
    def reset(data: Path) -> bool:
        """Delete the folder's database and logs for good; the keys stay, so clients go on. True if any.

        Raises FleetctlError `already_running` while a stack runs there.
        """
        folder = DataFolder.at(data)
        if not folder.root.is_dir():
            return False
        with hold_lock(folder):
            _stop_leftovers(folder)
            there = folder.postgres.exists()
            remove_unfinished(folder)
            for path in (folder.postgres, folder.socket, folder.logs):
                if path.exists():
                    shutil.rmtree(path)
        return there

    def stop(self) -> None:
        """Stop it and wait until its last process is gone."""
        if self._process is not None:
            _end(self._process)
            self._process = None
        _stop(self._folder)

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.stop()

    @property
    def api_url(self) -> str:
        return api_url_of(self._state)

    @property
    def dashboard_url(self) -> str:
        return self.api_url + "/"

    @property
    def table_editor_url(self) -> str | None:
        """None when it is switched off."""
        return _table_editor_url(self._state)

    @property
    def publishable_key(self) -> str:
        return self._keys.publishable_key

    @property
    def secret_key(self) -> str:
        return self._keys.secret_key

    @property
    def jwt_secret(self) -> str:
        return self._keys.jwt_secret

    @property
    def db_url(self) -> str:
        """As the superuser `supabase_admin`."""
        return url(SUPERUSER, self._keys.supabase_admin_password, self._state["ports"]["postgres"])

    @property
    def postgres_db_url(self) -> str:
        """As `postgres`, the role that migrations run under: no superuser."""
        return url("postgres", self._keys.postgres_password, self._state["ports"]["postgres"])

    def process_of(self, part: Literal["supervisor", "postgres", "server"]) -> Identity | None:
        """The running process of a part, for tests that kill it."""
        if part == "supervisor":
            return read_owner(self._folder)
        return Identity.parse(read_state(self._folder).get(part))


def health(api_url: str, timeout_s: float = 10.0) -> dict[str, Any]:
    """`/_fleet/health`: readiness of each part. Raises OSError when nothing answers."""
    try:
        with urllib.request.urlopen(f"{api_url}/_fleet/health", timeout=timeout_s) as answer:  # noqa: S310
            body = answer.read()
    except urllib.error.HTTPError as error:
        body = error.read()
    value = json.loads(body)
    return value if isinstance(value, dict) else {}


def _await_ready(process: subprocess.Popen[str], options: Options, progress: Callable[[str], None]) -> None:
    stdin, stdout = cast("IO[str]", process.stdin), cast("IO[str]", process.stdout)
    stdin.write(json.dumps(asdict(options)) + "\n")
    stdin.flush()
    for line in stdout:
        message = json.loads(line)
        if "progress" in message:
            progress(message["progress"])
        elif "error" in message:
            error = message["error"]
            raise FleetctlError(error["kind"], error["message"], hint=error["hint"])
        elif "ready" in message:
            if options.detach:
                stdin.close()
                stdout.close()
            return
    raise _Silent(process.wait())


class _Silent(Exception):  # noqa: N818  # becomes `supervisor_died`
    """The supervisor exited without an error message; its exit code."""


def _end(process: subprocess.Popen[str]) -> None:
    """Close its stdin, which asks a supervisor to stop, and wait."""
    for stream in (process.stdin, process.stdout):
        if stream is not None:
            stream.close()
    try:
        process.wait(_STOP_TIMEOUT_S)
    except subprocess.TimeoutExpired:
        process.kill()
        process.wait()


def _status(folder: DataFolder) -> Status:
    state = read_state(folder)
    data = str(folder.root)
    if not is_locked(folder):
        left = [name for name, identity in _recorded(state) if identity.process() is not None]
        if left:
            names = " and ".join(left)
            return Status(
                "broken",
                data,
                f"the stack was killed, and {names} kept running; fleetctl up or down cleans up",
            )
        there = folder.postgres.exists()
        return Status("stopped", data, "its data is kept" if there else "no stack was started there yet")
    recorded = str(state.get("state", "starting"))
    owner = read_owner(folder)
    pid = owner.pid if owner else None
    if recorded != "running":
        return Status("starting", data, f"it is {recorded}", pid=pid)
    try:
        keys = Keys.load(folder)
        answer = health(api_url_of(state))
    except (OSError, ValueError, FleetctlError) as error:
        return Status("broken", data, f"the API does not respond: {error}", pid=pid)
    failing = [name for name, part in answer.get("parts", {}).items() if part.get("state") == "failed"]
    return Status(
        "broken" if failing else "running",
        data,
        f"not working: {', '.join(failing)}" if failing else "every part responds",
        pid=pid,
        api_url=api_url_of(state),
        publishable_key=keys.publishable_key,
        secret_key=keys.secret_key,
        db_url=url(SUPERUSER, keys.supabase_admin_password, state["ports"]["postgres"]),
        dashboard_url=api_url_of(state) + "/",
        table_editor_url=_table_editor_url(state),
    )


def _stop(folder: DataFolder) -> bool:
    owner = _owner(folder)
    if owner is not None and (process := owner.process()) is not None:
        process.send_signal(signal.SIGTERM)
        if not owner.wait(_STOP_TIMEOUT_S):
            raise FleetctlError(
                "not_stopping",
                f"The stack in {folder.root} (process {owner.pid}) did not stop within "
                f"{_STOP_TIMEOUT_S:.0f} s.",
                hint=f"See {folder.logs / 'stack.log'}. If you kill it, the next start cleans up.",
            )
        return True
    if not folder.root.is_dir():
        return False
    with hold_lock(folder):
        return _stop_leftovers(folder)


def _owner(folder: DataFolder) -> Identity | None:
    """The supervisor that holds the folder, or None. One that just took it may not have signed yet."""
    for _ in range(20):
        if not is_locked(folder):
            return None
        if (owner := read_owner(folder)) is not None and owner.process() is not None:
            return owner
        time.sleep(0.05)
    return None


def _stop_leftovers(folder: DataFolder) -> bool:
    """End what a killed supervisor left; the caller holds the lock."""
    stopped = False
    for name, identity in _recorded(read_state(folder)):
        first = signal.SIGINT if name == "postgres" else signal.SIGTERM
        stopped |= identity.stop(first, timeout_s=30)
    folder.state.unlink(missing_ok=True)
    return stopped


def _recorded(state: dict[str, Any]) -> list[tuple[str, Identity]]:
    found = ((name, Identity.parse(state.get(name))) for name in ("server", "postgres"))
    return [(name, identity) for name, identity in found if identity is not None]


def _table_editor_url(state: dict[str, Any]) -> str | None:
    port = state["ports"]["table_editor"]
    return f"http://127.0.0.1:{port}/" if port else None
