"""Debian's pgbouncer in front of a PostgreSQL server, in place of hosted Supabase's pooler."""

from __future__ import annotations

import os
import shutil
import socket
import subprocess
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import psycopg
from psycopg.conninfo import conninfo_to_dict, make_conninfo

from tests.support.cluster import unprivileged_user
from tests.support.patience import PATIENCE_S

#: Of the package; not on the PATH of people.
PROGRAM = Path("/usr/sbin/pgbouncer")
_SESSIONS = 3


@contextmanager
def pooler(db_url: str, mode: str) -> Iterator[str]:
    """The URL of the same database through a pooler in this mode (`session`, `transaction`, `statement`).

    Three sessions take turns, so that two transactions of one client are hardly ever in the same one.
    """
    user = unprivileged_user()
    folder = Path(tempfile.mkdtemp(prefix="fleet-pooler-"))
    to = conninfo_to_dict(db_url)
    with socket.create_server(("127.0.0.1", 0)) as free:
        port = free.getsockname()[1]
    server = " ".join(
        f"{key}='{value}'" for key, value in to.items() if key in ("host", "port", "password", "user")
    )
    (folder / "pgbouncer.ini").write_text(
        f"""[databases]
* = {server}
[pgbouncer]
listen_addr = 127.0.0.1
listen_port = {port}
unix_socket_dir =
auth_type = any
pool_mode = {mode}
default_pool_size = {_SESSIONS}
server_round_robin = 1
# As Supavisor: what a client leaves in a session, the next one finds.
server_reset_query =
"""
    )
    if user is not None:
        for path in (folder, folder / "pgbouncer.ini"):
            shutil.chown(path, user)
    log = (folder / "log").open("w")
    program = subprocess.Popen(
        [PROGRAM, folder / "pgbouncer.ini"], user=user, cwd=folder, stdout=log, stderr=subprocess.STDOUT,
        env=os.environ | {"LC_ALL": "C"},
    )  # fmt: skip
    try:
        url = make_conninfo(host="127.0.0.1", port=port, user=str(to["user"]), dbname=str(to["dbname"]))
        _wait(program, url, folder / "log")
        _open_sessions(url)
        yield url
    finally:
        program.kill()
        program.wait()
        log.close()
        shutil.rmtree(folder)


def _wait(program: subprocess.Popen[bytes], url: str, log: Path) -> None:
    end = time.monotonic() + PATIENCE_S
    while True:
        try:
            psycopg.connect(url, autocommit=True).close()
            return
        except psycopg.OperationalError:
            if program.poll() is not None or time.monotonic() > end:
                raise RuntimeError(f"pgbouncer does not answer: {log.read_text()[-1000:]}") from None
            time.sleep(0.02)


def _open_sessions(url: str) -> None:
    """A pooler opens another session only while the others are in use."""
    clients = [psycopg.connect(url, autocommit=True) for _ in range(_SESSIONS)]
    for client in clients:
        # Sent and not waited for: all of them are at it at the same time.
        client.pgconn.send_query(b"select pg_sleep(0.05)")
    for client in clients:
        while client.pgconn.get_result() is not None:
            pass
        client.close()
