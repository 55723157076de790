"""The process that owns a running stack: starts its parts in order, keeps them up, stops them in order."""

from __future__ import annotations

import base64
import contextlib
import json
import os
import signal
import threading
import time
from collections.abc import Callable
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from fleetctl.errors import FleetctlError
from fleetctl.stack import dashboard, ports
from fleetctl.stack.deno import find_deno
from fleetctl.stack.keys import Keys
from fleetctl.stack.layout import DataFolder, Project
from fleetctl.stack.lock import hold_lock
from fleetctl.stack.postgres import SUPERUSER, Postgres, url
from fleetctl.stack.process import Child, Identity, last_lines, rotating_log
from fleetctl.stack.state_file import read_state, write_state

Progress = Callable[[str], None]

# Generous: it loads a thousand modules, and a server that dies is noticed at once.
_SERVER_START_TIMEOUT_S = 300.0
# More restarts than this within a minute: something is wrong that another restart does not cure.
_RESTARTS_A_MINUTE = 5


@dataclass(frozen=True)
class Options:
    """What `fleetctl up` was asked for. `port` 0 picks free ports."""

    data: str
    port: int = 54321
    host: str = "127.0.0.1"
    table_editor: bool = True
    web: bool = True
    durable: bool = True
    detach: bool = False


@dataclass(frozen=True)
class Ports:
    """Where the parts listen; `table_editor` 0 is off. Postgres and the table editor: loopback only."""

    api: int
    postgres: int
    table_editor: int


class Supervisor:
    """One start of a stack, from taking the folder's lock to giving it back."""

    def __init__(self, options: Options, progress: Progress) -> None:
        self.options = options
        self.folder = DataFolder.at(Path(options.data))
        self.project = Project.find()
        self.progress = progress
        self.ports = Ports(0, 0, 0)
        self.state = "starting"
        self.server: Child | None = None
        self._stop = threading.Event()
        self._restarts: list[float] = []
        self._problem: FleetctlError | None = None

    def request_stop(self) -> None:
        """Make `run` end; safe from a signal handler or another thread."""
        self._stop.set()

    def run(self, ready: Callable[[], None]) -> None:
        """Start everything, call `ready`, keep it running until `request_stop`, then stop everything.

        Raises FleetctlError; whatever was started by then is stopped again.
        """
        _make_folder(self.folder)
        with hold_lock(self.folder):
            self.log = rotating_log(
                "fleet.supervisor", self.folder.logs / "stack.log", "%(asctime)s %(levelname)s %(message)s"
            )
            self.postgres = Postgres(self.folder, durable=self.options.durable)
            try:
                self._start()
                self._record("running")
                self.log.info("ready on port %s", self.ports.api)
                ready()
                self._watch()
            except _StopAsked:
                self.log.info("asked to stop while starting")
            except FleetctlError as error:
                self.log.error("%s: %s", error.kind, error.message)  # noqa: TRY400  # the sentence says it all
                raise
            finally:
                self._shut_down()

    # --- start ----------------------------------------------------------------------------------------------

    def _start(self) -> None:
        self._stop_orphans()
        self.keys = Keys.load_or_create(self.folder)
        self.ports = self._choose_ports()
        self._record("starting")
        build = self._build_dashboard()
        if not self.folder.postgres.exists():
            self._say("Creating the database")
        self.postgres.make(self.keys.supabase_admin_password)
        self._say("Starting PostgreSQL")
        self.postgres.start(self.ports.postgres, tick=self._check_stop)
        self._record("starting")
        self._prepare_database()
        build()
        self._say("Starting the API")
        self._start_server()

    def _stop_orphans(self) -> None:
        """End the server of a supervisor that was killed; Postgres looks after its own."""
        orphan = Identity.parse(read_state(self.folder).get("server"))
        if orphan is not None and orphan.stop(signal.SIGTERM, timeout_s=5):
            self.log.info("stopped process %s, which a killed stack had left running", orphan.pid)

    def _choose_ports(self) -> Ports:
        host, wanted = self.options.host, self.options.port
        api = wanted or ports.pick_base(host)
        chosen = Ports(api, api + 1, api + 2 if self.options.table_editor else 0)
        hint = "Stop that process, or choose another port: fleetctl up --port 54331"
        wanted_for = [
            (host, chosen.api, "the API"),
            ("127.0.0.1", chosen.postgres, "PostgreSQL (API port + 1)"),
        ]
        for address, port, purpose in wanted_for:
            ports.require_free(address, port, purpose, hint, waiting=self._say)
        if chosen.table_editor:
            hint += ", or start without the table editor: --no-table-editor"
            purpose = "the table editor (API port + 2)"
            ports.require_free("127.0.0.1", chosen.table_editor, purpose, hint, waiting=self._say)
        return chosen

    def _build_dashboard(self) -> Callable[[], None]:
        """Build beside the database's start; the returned function waits for it."""
        if not self.options.web or not dashboard.needs_build(self.project):
            return lambda: None
        self._say("Building the dashboard (only the first time, which also downloads its packages)")
        failed: list[FleetctlError] = []

        def say(line: str) -> None:
            # Not the table of files that Vite prints: that is in the log.
            if not line.startswith("dist/"):
                self._say(f"dashboard: {line}")

        def work() -> None:
            try:
                log = self.folder.logs / "dashboard-build.log"
                dashboard.build(self.project, find_deno(), log, say)
            except FleetctlError as error:
                failed.append(error)

        thread = threading.Thread(target=work, daemon=True, name="dashboard")
        thread.start()

        def wait() -> None:
            while thread.is_alive():
                self._check_stop()
                thread.join(0.1)
            if failed:
                raise failed[0]

        return wait

    def _prepare_database(self) -> None:
        """Superuser part, migrations as `postgres`, and seed data if the database is new."""
        from fleetctl.migrate import migrate, run_script

        keys = self.keys
        with self.postgres.connect(SUPERUSER, keys.supabase_admin_password) as admin:
            run_script(admin, self.project.bootstrap, "bootstrap_failed")
            for role, password in (
                ("postgres", keys.postgres_password),
                ("authenticator", keys.authenticator_password),
                ("supabase_auth_admin", keys.supabase_auth_admin_password),
            ):
                _set_password(admin, role, password)
        with self.postgres.connect("postgres", keys.postgres_password) as connection:
            self._say("Applying migrations")
            outcome = migrate(
                connection,
                self.project.migrations,
                progress=lambda label: self._say(f"migration {label}"),
                start_over="Start over with `fleetctl reset`, which deletes the fleet database, "
                "or use the checkout that made it.",
            )
            for label in outcome.changed:
                self._say(
                    f"warning: {label} was edited after it was applied; the database has the old version"
                )
            if outcome.applied and not outcome.already and self.project.seed.is_file():
                run_script(connection, self.project.seed, "seed_failed")

    def _start_server(self) -> None:
        ready = threading.Event()

        def on_line(line: str) -> None:
            if line.startswith("fleet: ready"):
                ready.set()

        local = self.project.local
        self.server = Child(
            "server",
            [find_deno(), "run", "--quiet", "--no-prompt", "--frozen", "--config", str(local / "deno.json"),
             *_PERMISSIONS, str(local / "server.ts")],
            log=self.folder.logs / "server.log", env=self._server_environment(), cwd=local, on_line=on_line,
        )  # fmt: skip
        self._record("starting")
        deadline = time.monotonic() + _SERVER_START_TIMEOUT_S
        while not ready.wait(0.02):
            self._check_stop()
            if self.server.returncode is not None or time.monotonic() > deadline:
                self.server.stop(timeout_s=1)
                raise FleetctlError(
                    "server_not_starting",
                    "The API server did not start. Its log ends with:\n"
                    + last_lines(self.folder.logs / "server.log"),
                    hint=f"See {self.folder.logs / 'server.log'}. The first start downloads the server's "
                    "packages from the npm registry.",
                )

    def _server_environment(self) -> dict[str, str]:
        keys, port = self.keys, self.ports.postgres
        public = "127.0.0.1" if self.options.host in ("0.0.0.0", "::") else self.options.host  # noqa: S104
        signing = {
            "kty": "oct",
            "k": base64.urlsafe_b64encode(keys.jwt_secret.encode()).decode().rstrip("="),
            "alg": "HS256",
        }
        kept = {key: value for key, value in os.environ.items() if not key.startswith(("PG", "FLEET_"))}
        return kept | {
            "FLEET_PORT": str(self.ports.api),
            "FLEET_HOST": self.options.host,
            "FLEET_DB_URL": url(SUPERUSER, keys.supabase_admin_password, port),
            "FLEET_REST_DB_URL": url("authenticator", keys.authenticator_password, port),
            "FLEET_AUTH_DB_URL": url("supabase_auth_admin", keys.supabase_auth_admin_password, port),
            "FLEET_POSTGRES_DB_URL": url("postgres", keys.postgres_password, port),
            "FLEET_JWT_SECRET": keys.jwt_secret,
            "FLEET_PUBLISHABLE_KEY": keys.publishable_key,
            "FLEET_SECRET_KEY": keys.secret_key,
            "FLEET_TABLE_EDITOR_PORT": str(self.ports.table_editor),
            "FLEET_WEB_DIR": str(self.project.web / "dist"),
            "FLEET_FUNCTIONS_DIR": str(self.project.functions),
            "FLEET_SIGNING_JWK": json.dumps(signing),
            "SUPABASE_URL": f"http://{public}:{self.ports.api}",
            "SUPABASE_PUBLISHABLE_KEYS": json.dumps({"default": keys.publishable_key}),
            "SUPABASE_SECRET_KEYS": json.dumps({"default": keys.secret_key}),
            "SUPABASE_DB_URL": url("postgres", keys.postgres_password, port),
            # No telemetry, no update check: nothing leaves this machine.
            "DO_NOT_TRACK": "1",
            "LITE_TELEMETRY": "0",
            "DENO_NO_UPDATE_CHECK": "1",
            "NO_COLOR": "1",
        }

    # --- run and stop ---------------------------------------------------------------------------------------

    def _watch(self) -> None:
        """Restart what dies, until asked to stop. Raises `keeps_crashing`."""
        while not self._stop.wait(0.2):
            if self.postgres.child is not None and (code := self.postgres.child.returncode) is not None:
                self._count_restart("PostgreSQL", code, "postgres.log")
                self.postgres.start(self.ports.postgres, tick=self._check_stop)
                self._record("running")
            if self.server is not None and (code := self.server.returncode) is not None:
                self._count_restart("The API server", code, "server.log")
                self._start_server()
                self._record("running")

    def _count_restart(self, part: str, code: int, log: str) -> None:
        now = time.monotonic()
        self._restarts = [at for at in self._restarts if now - at < 60] + [now]
        self.log.error("%s exited with code %s; restart %s", part, code, len(self._restarts))
        if len(self._restarts) > _RESTARTS_A_MINUTE:
            raise FleetctlError(
                "keeps_crashing",
                f"{part} exited {len(self._restarts)} times within a minute. Its log ends with:\n"
                + last_lines(self.folder.logs / log),
                hint=f"See {self.folder.logs / log}",
            )

    def _shut_down(self) -> None:
        with contextlib.suppress(OSError):
            self._record("stopping")
        if self.server is not None:
            self.server.stop(signal.SIGTERM, timeout_s=10)
        self.postgres.stop()
        with contextlib.suppress(OSError):
            self.folder.state.unlink(missing_ok=True)
        self.log.info("stopped")

    def _say(self, text: str) -> None:
        self._check_stop()
        self.log.info("%s", text)
        self.progress(text)

    def _check_stop(self) -> None:
        if self._stop.is_set():
            raise _StopAsked

    def _record(self, state: str) -> None:
        """Write who runs what, so that status, down and the next start can find it."""
        self.state = state
        postgres = self.postgres.child.identity if self.postgres.child else None
        server = self.server.identity if self.server else None
        content = {
            "state": state,
            "host": self.options.host,
            "ports": asdict(self.ports),
            "postgres": asdict(postgres) if postgres else None,
            "server": asdict(server) if server else None,
        }
        write_state(self.folder, content)


class _StopAsked(Exception):  # noqa: N818  # not an error: the way out of a start
    pass


# Deno gets what it needs, not everything: no files written, no programs run, no native code.
_PERMISSIONS = ("--allow-net", "--allow-env", "--allow-read", "--allow-sys")


def _make_folder(folder: DataFolder) -> None:
    try:
        folder.root.mkdir(mode=0o700, parents=True, exist_ok=True)
        folder.logs.mkdir(mode=0o700, exist_ok=True)
    except OSError as error:
        raise FleetctlError(
            "data_unwritable",
            f"{folder.root} cannot be created or written to: {error.strerror}.",
            hint="Choose another folder: fleetctl up --data DIR",
        ) from error


def _set_password(admin: Any, role: str, password: str) -> None:
    from psycopg import sql

    with admin.transaction():
        # Statement logging, if it is switched on, must not see passwords.
        admin.execute("set local log_statement = 'none'")
        admin.execute(
            sql.SQL("alter role {} password {}").format(sql.Identifier(role), sql.Literal(password))
        )
