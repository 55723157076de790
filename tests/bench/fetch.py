"""Bytes that a device fetches for a one-line change in a 50 MB repository of 20 roles, beside a full clone.

Counted on the wire, both ways, at a Git host on loopback (`git http-backend`, protocol v2).
"""

from __future__ import annotations

import random
import subprocess
import tempfile
import time
from argparse import Namespace
from pathlib import Path

from fleet_agent.release import fetch
from fleetctl.fleet_repo import FleetRepo, SigningKey
from tests.bench.table import Row
from tests.support.git_server import GitServer

ROLES, FILES, FILE_BYTES = 20, 50, 50_000
CONFIG_LINES = 200


def run(options: Namespace | None = None) -> list[Row]:
    """Make the repository, fetch a first release and then a one-line change; once: bytes do not scatter."""
    with (
        tempfile.TemporaryDirectory(prefix="fleet-bench-") as folder,
        GitServer(Path(folder)).running() as server,
    ):
        root = Path(folder)
        repo = _repository(root / "fleet", root / "key")
        url, first = server.url(repo.path), repo.commit("v1")
        changed = repo.commit("v2", {"roles/role-00/app.conf": _config("one other line")})
        how = f"{ROLES} roles, {ROLES * FILES * FILE_BYTES // 1_000_000} MB of files, wire bytes both ways"

        clone = _measured(server, lambda: _clone(url, root / "clone", []))
        shallow = _measured(server, lambda: _clone(url, root / "shallow", ["--depth=1"]))
        start = _measured(server, lambda: fetch(root / "device", url, first, "role-00"))
        change = _measured(server, lambda: fetch(root / "device", url, changed, "role-00"))
        same = _measured(server, lambda: fetch(root / "device", url, changed, "role-00"))
    return [
        Row("full clone", _size(clone), how),
        Row("shallow clone (depth 1)", _size(shallow), how),
        Row(
            "first release of one role",
            _size(start),
            f"{how}; 1/{ROLES} of the files is {_mb(FILES * FILE_BYTES)}",
        ),
        Row(
            "one-line change",
            _size(change),
            f"{how}; {clone[0] / change[0]:,.0f} times less than a full clone",
        ),
        Row("the same release again", _size(same), how, "0 bytes"),
    ]


def _repository(path: Path, key: Path) -> FleetRepo:
    """Files that do not compress, like the models, fonts and pictures of real roles, and one to edit."""
    repo = FleetRepo.create(path, SigningKey.create(key), roles=None)
    # No search for deltas in noise: a Git host has its packs ready and would not spend minutes on it either.
    repo.git("config", "pack.window", "0")
    noise = random.Random(1)
    for role in range(ROLES):
        folder = path / f"roles/role-{role:02}"
        (folder / "data").mkdir(parents=True)
        for number in range(FILES):
            (folder / "data" / f"{number:02}.bin").write_bytes(noise.randbytes(FILE_BYTES))
        (folder / "app.conf").write_text(_config("a line"))
    return repo


def _config(line: str) -> str:
    return (
        "".join(f"setting_{number} = {number * 7919 % 10007}\n" for number in range(CONFIG_LINES))
        + line
        + "\n"
    )


def _clone(url: str, target: Path, options: list[str]) -> None:
    subprocess.run(
        ["git", "clone", "--quiet", "--bare", *options, url, str(target)], check=True, capture_output=True
    )


def _measured(server: GitServer, action) -> tuple[int, float]:  # type: ignore[no-untyped-def]
    """Wire bytes and seconds of `action`."""
    before, started = server.bytes_sent + server.bytes_received, time.monotonic()
    action()
    return server.bytes_sent + server.bytes_received - before, time.monotonic() - started


def _size(measured: tuple[int, float]) -> str:
    return f"{measured[0]:,} bytes in {measured[1]:.2f} s"


def _mb(size: int) -> str:
    return f"{size / 1_000_000:.1f} MB"


if __name__ == "__main__":
    for row in run():
        print(f"{row.measure:<30} {row.value:<32} {row.how}")
