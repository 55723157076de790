"""Whoever runs the Git host, or is in its place. It has no signing key, and needs no trust."""

from __future__ import annotations

import hashlib
import json
import os
import shutil
import socketserver
import struct
import subprocess
import threading
import tracemalloc
import zlib
from collections.abc import Callable, Iterable, Iterator
from contextlib import suppress
from pathlib import Path

import pytest

from fleet_agent.config import git_url_problem
from fleet_agent.engine import api, failure_memory
from fleet_agent.engine.config import EngineConfig
from fleet_agent.engine.dependencies import Dependencies
from fleet_agent.engine.git_source import GitSource
from fleet_agent.errors import Kind, ReleaseError
from fleet_agent.model import Outcome, ReportState
from fleet_agent.release import Limits, fetch, git_command
from fleet_agent.release import repository as repository_module
from fleet_agent.release.fetch_errors import failure
from fleet_agent.release.git_command import LINE_LIMIT, LINES_KEPT, Transfer, _Watch
from tests.support.engine_harness import FakeClock, Fleet, rows
from tests.support.git_server import GitServer

INDEX_PACK = '{"event":"cmd_name","sid":"x","name":"index-pack"}'


def data(value: object) -> str:
    return json.dumps(
        {"event": "data", "sid": "x", "key": "total_bytes", "value": value}, separators=(",", ":")
    )


#: What a host says as progress before a good pack of a signed commit, in the shape of Git's own trace events.
WORDS = {
    "no session": ['{"event":"cmd_name"}'],
    "a count that is a word": [INDEX_PACK, data("many")],
    "deeply nested": ['{"event":[' + "[" * 30_000 + "}"],
    "a number without end": [INDEX_PACK, data("9" * 23)],
    "an infinite number": [INDEX_PACK, '{"event":"data","sid":"x","key":"total_bytes","value":1e999}'],
    "less than nothing": [INDEX_PACK, data(-1)],
    "no object": ['{"event":', '{"event":1}', '{"event":[]}'],
    "no characters": ["\0\x1b[2J\x7f\u202e", "\udcff\udcfe"],
    "progress of its own": [f"Receiving objects: {n}% (1/0), \x1b[2J" for n in ("9" * 30, "-1", "100")],
}


def known_bad(config: EngineConfig) -> list[str]:
    return [bad.message for bad in failure_memory.load(config.paths.known_bad).bad.values()]


@pytest.mark.parametrize("words", WORDS.values(), ids=WORDS)
def test_its_words_are_words(
    fleet: Fleet, root: Path, dependencies: Dependencies, host: GitServer, words: list[str]
) -> None:
    """What it says is neither an event nor a number: the good release runs, and the row can be stored."""
    host.says = [f"{line}\n".encode(errors="surrogateescape") for line in words]
    config = fleet.config(root, git_url=host.url(fleet.repo.path))
    status = api.converge(config, fleet.directive(fleet.release("v1")), dependencies=dependencies)
    assert (status.state, status.error) == (ReportState.HEALTHY, None), status
    assert known_bad(config) == []
    (row,) = rows(config)
    assert 0 < row.bytes_fetched < 10_000


@pytest.mark.parametrize("kind", ["an unexpected error", "a refusal", "a lie", "a crash"])
def test_nothing_it_does_makes_a_release_known_bad(  # noqa: PLR0917  fixtures
    fleet: Fleet,
    root: Path,
    clock: FakeClock,
    dependencies: Dependencies,
    host: GitServer,
    kind: str,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Before a signature was verified, every failure passes: no safe mode, and the release is tried again."""
    config = fleet.config(root, git_url=host.url(fleet.repo.path))
    directive = fleet.directive(fleet.release("v1"))
    with monkeypatch.context() as patch:
        match kind:
            case "an unexpected error":

                def fetch(*_: object) -> int:
                    raise ZeroDivisionError

                patch.setattr(GitSource, "fetch", fetch)
            case "a refusal":
                host.password_wanted = True
            case "a lie":
                host.commits = set()
            case _:
                # The engine is killed again and again while it fetches.
                def fetch(*_: object) -> int:
                    raise SystemExit

                patch.setattr(GitSource, "fetch", fetch)
        for _ in range(4):
            try:
                status = api.converge(config, directive, dependencies=dependencies)
            except SystemExit:
                status = api.recover(config, dependencies=dependencies)
            assert known_bad(config) == []
            assert status.state is not ReportState.SAFE_MODE, status
            clock.passed += 7200
    assert {row.outcome for row in rows(config)} <= {Outcome.FAILED, Outcome.SKIPPED}
    host.password_wanted, host.commits = False, None
    status = api.converge(config, directive, dependencies=dependencies)
    assert (status.state, status.current) == (ReportState.HEALTHY, directive.release)


@pytest.fixture
def small_disk(tmp_path: Path) -> Iterator[Path]:
    """A file system of its own, of 24 MiB."""
    place = tmp_path / "disk"
    place.mkdir()
    made = subprocess.run(
        ["mount", "-t", "tmpfs", "-o", "size=24m", "none", str(place)], capture_output=True, check=False
    )
    if made.returncode != 0:
        pytest.skip("cannot mount a file system here")
    try:
        yield place
    finally:
        subprocess.run(["umount", "--lazy", str(place)], check=True)


def blob_pack(pieces: Iterable[bytes], kind: int, size: int) -> Iterator[bytes]:
    """A pack that claims a thousand objects; the first has `size` bytes and is a commit (1) or a blob (3)."""
    yield b"PACK" + struct.pack(">II", 2, 1_000)
    head, left = (kind << 4) | (size & 15), size >> 4
    while left:
        yield bytes([head | 0x80])
        head, left = left & 127, left >> 7
    yield bytes([head])
    squeeze = zlib.compressobj(1)
    for piece in pieces:
        yield squeeze.compress(piece)
    yield squeeze.flush()


def difference_pack(size: int) -> list[bytes]:
    """A file of 64 KiB, and another one given as its difference: the first again and again, up to `size`."""

    def number(value: int) -> bytes:
        digits = []
        while value > 127:
            digits.append(value & 127 | 128)
            value >>= 7
        return bytes([*digits, value])

    base = bytes(1 << 16)
    # One byte each: copy 64 KiB from the start.
    delta = number(len(base)) + number(size) + b"\x80" * (size >> 16)
    head = b"PACK" + struct.pack(">II", 2, 2)
    first = b"".join(blob_pack([base], 3, len(base)))[12:]
    kind = bytes([(6 << 4) | (len(delta) & 15) | 128]) + number(len(delta) >> 4)
    back, distance = [len(first) & 127], len(first) >> 7
    while distance:
        distance -= 1
        back.insert(0, distance & 127 | 128)
        distance >>= 7
    pack = head + first + kind + bytes(back) + zlib.compress(delta)
    return [pack + hashlib.sha1(pack, usedforsecurity=False).digest()]


def size_of(folder: Path) -> int:
    return sum(file.stat().st_size for file in folder.rglob("*") if file.is_file())


def noise(mebibytes: int) -> Iterator[bytes]:
    """What cannot be compressed."""
    return (os.urandom(1 << 20) for _ in range(mebibytes))


def test_it_cannot_fill_the_disk(fleet: Fleet, host: GitServer, small_disk: Path) -> None:
    """What must stay free stays free while a pack without end flows, and nothing is left of it: not over
    many tries, either."""
    host.pack = lambda: blob_pack(noise(40), 3, 40 << 20)
    least = shutil.disk_usage(small_disk).free
    stop = threading.Event()

    def look() -> None:
        nonlocal least
        while not stop.wait(0.005):
            least = min(least, shutil.disk_usage(small_disk).free)

    watching = threading.Thread(target=look)
    watching.start()
    limits = Limits(min_free=8 << 20, attempts=1)
    url = host.url(fleet.repo.path)
    try:
        for _ in range(2):
            with pytest.raises(ReleaseError) as caught:
                fetch(small_disk / "git", url, fleet.release("v1").commit_sha, fleet.role, limits=limits)
            assert (caught.value.kind, caught.value.retryable) == (Kind.DISK_FULL, False)
            assert shutil.disk_usage(small_disk).used < 1 << 20
    finally:
        stop.set()
        watching.join()
    assert least >= 8 << 20


def test_it_cannot_send_more_than_a_fetch_may_bring(
    fleet: Fleet, host: GitServer, root: Path, dependencies: Dependencies
) -> None:
    """On a large disk, too; the device tries again later, and the release is not blamed."""
    config = fleet.config(root, git_url=host.url(fleet.repo.path))
    host.pack = lambda: blob_pack(noise(40), 3, 40 << 20)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(GitSource, "_limits", lambda self: Limits(min_free=0, fetch_size=4 << 20))
        status = api.converge(config, fleet.directive(fleet.release("v1")), dependencies=dependencies)
    assert (status.error_kind, status.state) == (Kind.RELEASE_TOO_LARGE, ReportState.DEGRADED)
    assert status.error == "The release is refused: the Git host sends more than 4 MiB for it."
    assert host.bytes_sent < 20 << 20
    assert known_bad(config) == []
    assert size_of(root / "git") < 1 << 20


def test_what_it_sends_with_a_good_answer_does_not_pile_up(fleet: Fleet, host: GitServer, root: Path) -> None:
    """Junk in a pack with a good commit is taken; what piles up is thrown away by the next fetch."""
    limits = Limits(min_free=0, fetch_size=2 << 20, attempts=1)
    url = host.url(fleet.repo.path)
    git = root / "git"
    fetch(git, url, fleet.release("v1").commit_sha, fleet.role, limits=limits)
    (git / "objects" / "pack" / "pack-junk.pack").write_bytes(b"x" * (3 << 20))
    (git / "objects" / "pack" / "pack-junk.idx").write_bytes(b"x")
    fetch(git, url, fleet.release("v1").commit_sha, fleet.role, limits=limits)
    assert size_of(git) < 1 << 20


#: Packs of a few kilobytes that become hundreds of megabytes in Git's memory.
BOMBS: dict[str, Callable[[], Iterable[bytes]]] = {
    "a commit": lambda: blob_pack((bytes(1 << 20) for _ in range(400)), 1, 400 << 20),
    "a folder": lambda: blob_pack((bytes(1 << 20) for _ in range(400)), 2, 400 << 20),
    "a difference": lambda: difference_pack(400 << 20),
    "a number of objects": lambda: [b"PACK" + struct.pack(">II", 2, 0xFFFFFFF0)],
}


@pytest.mark.parametrize("bomb", BOMBS.values(), ids=BOMBS)
def test_it_cannot_fill_memory(
    fleet: Fleet, host: GitServer, root: Path, bomb: Callable[[], Iterable[bytes]]
) -> None:
    """Git has a limit of memory, and reaching it is told as what it is: the release is too large."""
    host.pack = bomb
    with pytest.raises(ReleaseError) as caught:
        fetch(root / "git", host.url(fleet.repo.path), fleet.release("v1").commit_sha, fleet.role)
    assert (caught.value.kind, caught.value.retryable) == (Kind.RELEASE_TOO_LARGE, False)
    assert "Git would need more than 192 MiB of memory" in caught.value.message
    assert host.bytes_sent < 1 << 20


def test_a_commit_that_nobody_writes_is_refused(fleet: Fleet, host: GitServer, root: Path) -> None:
    """A commit of 2 MiB fits Git's memory; it is refused before it reaches ours."""
    commit = fleet.release("v1").commit_sha
    raw = subprocess.run(
        ["git", "-C", str(fleet.repo.path), "cat-file", "commit", commit], capture_output=True, check=True
    ).stdout
    large = subprocess.run(
        ["git", "-C", str(fleet.repo.path), "hash-object", "-t", "commit", "-w", "--stdin"],
        input=raw + b"x" * (2 << 20), capture_output=True, check=True,
    ).stdout.decode().strip()  # fmt: skip
    fleet.repo.git("config", "uploadpack.allowAnySHA1InWant", "true")
    with pytest.raises(ReleaseError) as caught:
        fetch(root / "git", host.url(fleet.repo.path), large, fleet.role)
    assert caught.value.kind is Kind.RELEASE_TOO_LARGE
    assert caught.value.message.startswith("The release is refused: its commit alone has 209")


def test_its_text_is_bounded(fleet: Fleet, host: GitServer, root: Path) -> None:
    """Of lines without end and lines without number, a few are kept as evidence, as printable text."""
    host.says = [b"x" * 60_000] * 200 + [b"\n"] + [f"line {n} \x1b[2J\0\n".encode() for n in range(5_000)]
    fleet.release("v1")
    host.cuts.append(60_000 * 200 + 50_000)
    with pytest.raises(ReleaseError) as caught:
        fetch(
            root / "git", host.url(fleet.repo.path), fleet.release("v1").commit_sha, fleet.role,
            limits=Limits(attempts=1),
        )  # fmt: skip
    said = caught.value.evidence["git"]
    assert 0 < len(said) <= 5
    assert all(len(line) <= LINE_LIMIT and line.isprintable() for line in said)


@pytest.mark.parametrize(
    "words",
    [
        "No space left on device",
        "Out of memory, malloc failed",
        "bad object",
        "The requested URL returned error: 302",
    ],
)
@pytest.mark.parametrize("before", ["remote: ", "fatal: remote error: "])
def test_its_own_trouble_is_not_told_as_the_devices(before: str, words: str) -> None:
    """A full disk would have this device clean up, and a damaged repository fetch everything again."""
    transfer = Transfer(status=128, lines=[f"{before}fatal: {words}"])
    error = failure(transfer, "https://host/x", memory=1 << 20)
    assert isinstance(error, ReleaseError)
    assert (error.kind, error.retryable) == (Kind.GIT_UNREACHABLE, True)


def test_what_a_transfer_says_is_not_kept() -> None:
    """Ten megabytes of it cost less than one."""
    script = "head -c 10000000 /dev/zero | tr '\\0' x >&2; yes 'a line of text' | head -c 100000 >&2"
    with subprocess.Popen(["/bin/sh", "-c", script], stderr=subprocess.PIPE) as process:
        tracemalloc.start()
        try:
            transfer = _Watch(lambda *_: None, lambda: None).follow(process, 60, 60)
            _, peak = tracemalloc.get_traced_memory()
        finally:
            tracemalloc.stop()
    assert peak < 1 << 20
    assert len(transfer.lines) == LINES_KEPT


REFUSED = "redirects to an address that releases are not fetched from"


@pytest.mark.parametrize(
    "place",
    ["http://127.0.0.2:{port}", "http://fleet.example", "ftp://127.0.0.1", "file://", "git://127.0.0.1:9"],
)
def test_a_redirect_leads_nowhere_but_where_an_address_may_lead(
    fleet: Fleet, host: GitServer, root: Path, place: str
) -> None:
    """And is refused at once, not tried again."""
    asked: list[str] = []
    with GitServer(fleet.repo.path.parent).running() as other:
        url = host.url(fleet.repo.path)
        host.elsewhere = place.format(port=other.port)
        with pytest.raises(ReleaseError) as caught:
            fetch(root / "git", url, fleet.release("v1").commit_sha, fleet.role, sleep=asked.append)  # type: ignore[arg-type]
        assert (caught.value.kind, caught.value.retryable) == (Kind.GIT_REFUSED, False)
        assert caught.value.message == f"{url} {REFUSED}."
        assert (asked, other.wants) == ([], [])


def test_a_redirect_on_this_machine_is_followed_and_not_in_a_circle(
    fleet: Fleet, host: GitServer, root: Path
) -> None:
    commit, git = fleet.release("v1").commit_sha, root / "git"
    with GitServer(fleet.repo.path.parent).running() as other:
        host.elsewhere = f"http://127.0.0.1:{other.port}"
        fetch(git, host.url(fleet.repo.path), commit, fleet.role)
        assert len(other.wants) == 2
    host.elsewhere = f"http://127.0.0.1:{host.port}"
    with pytest.raises(ReleaseError) as caught:
        fetch(git, host.url(fleet.repo.path), fleet.release("v2").commit_sha, fleet.role)
    assert REFUSED in caught.value.message


@pytest.mark.parametrize("scheme", ["http", "https"])
def test_a_redirect_of_https_leads_to_https_only(  # noqa: PLR0917  fixtures
    fleet: Fleet, host: GitServer, root: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, scheme: str
) -> None:
    certificate = tmp_path / "both.pem"
    subprocess.run(
        ["openssl", "req", "-x509", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:prime256v1", "-nodes",
         "-subj", "/CN=localhost", "-addext", "subjectAltName=DNS:localhost", "-keyout", certificate,
         "-out", tmp_path / "cert.pem"],
        check=True, capture_output=True,
    )  # fmt: skip
    with certificate.open("a") as file:
        file.write((tmp_path / "cert.pem").read_text())
    trusting = f"{git_command.SETTINGS}[http]\n\tsslCAInfo = {tmp_path}/cert.pem\n"
    monkeypatch.setattr(repository_module, "SETTINGS", trusting)
    with GitServer(fleet.repo.path.parent, certificate=certificate).running() as secure:
        url = secure.url(fleet.repo.path)
        commit = fleet.release("v1").commit_sha
        if scheme == "https":
            with GitServer(fleet.repo.path.parent, certificate=certificate).running() as other:
                secure.elsewhere = f"https://localhost:{other.port}"
                fetch(root / "git", url, commit, fleet.role)
                assert other.wants
            return
        secure.elsewhere = f"http://127.0.0.1:{host.port}"
        with pytest.raises(ReleaseError) as caught:
            fetch(root / "git", url, commit, fleet.role)
    assert (caught.value.kind, caught.value.message) == (Kind.GIT_REFUSED, f"{url} {REFUSED}.")
    assert host.wants == []


@pytest.mark.parametrize(
    "url",
    [
        "ssh://-oProxyCommand=touch${{IFS}}{mark}/x",
        "ssh://%2doProxyCommand=touch${{IFS}}{mark}/x",
        "ssh://-oProxyCommand=touch@host/x",
        "ssh://git@-oProxyCommand=touch/x",
        "git@-oProxyCommand:x",
        "-oProxyCommand=x@host:x",
        "git@host:-x",
        "ssh://host:port/x",
        "ssh://[::1/x",
        "git://-x/y",
        "git://host%0ahost/y",
        "https://-x/y",
        "https://",
        "https::ext::sh -c id",
        "ext::sh -c id",
        "file://elsewhere/x",
        "http://127.0.0.1.fleet.example/x",
        "http://127.0.0.1@fleet.example/x",
        "relative/path",
    ],
)
def test_an_address_that_is_none_is_refused_by_us(tmp_path: Path, url: str) -> None:
    """In device.json, and before Git or ssh is started."""
    mark = tmp_path / "mark"
    url = url.format(mark=mark)
    assert git_url_problem(url) is not None
    with pytest.raises(ReleaseError) as caught:
        fetch(tmp_path / "git", url, "a" * 40, "kiosk")
    assert caught.value.kind is Kind.CONFIG_INVALID
    assert not (tmp_path / "git").exists()
    assert not mark.exists()


@pytest.mark.parametrize(
    "url",
    [
        "ssh://git@host/x.git", "ssh://git@host:22/x", "ssh://host/~user/x", "ssh://git@[::1]/x",
        "git@host.example:x/y",

        "git://host/x", "https://user:p%40ss@host/x", "https://host:8443/x", "http://[::1]:80/x",
        "file:///x y", "/x",
    ],
)  # fmt: skip
def test_an_address_that_is_one_is_taken(url: str) -> None:
    assert git_url_problem(url) is None


def _line(text: bytes) -> bytes:
    """A line as Git frames it."""
    return b"%04x" % (len(text) + 4) + text


_OK = b"HTTP/1.1 200 OK\r\nContent-Type: application/x-git-upload-pack-%s\r\nConnection: close\r\n"
_ADVERTISED = _OK % b"advertisement"
_SERVICE = _line(b"# service=git-upload-pack\n") + b"0000"
_REF = _line(b"a" * 40 + b" refs/heads/" + b"x" * 200 + b"\n")
#: What is sent once, and then without end.
ENDLESS: dict[str, tuple[bytes, bytes]] = {
    "references": (_ADVERTISED + b"\r\n" + _SERVICE, _REF * 200),
    "capabilities": (
        _ADVERTISED + b"\r\n" + _SERVICE + _line(b"version 2\n"),
        _line(b"x" * 900 + b"=y\n") * 60,
    ),
    "empty lines": (_ADVERTISED + b"\r\n" + _SERVICE, b"0004" * 10_000),
    "headers": (_ADVERTISED, b"X-More: " + b"x" * 4000 + b"\r\n"),
    "one header": (_ADVERTISED + b"X-More: ", b"x" * 60_000),
    "a compressed answer": (
        _ADVERTISED + b"Content-Encoding: gzip\r\n\r\n",
        b"",
    ),
    "informational answers": (b"", b"HTTP/1.1 100 Continue\r\n\r\n" * 500),
    "a length that is none": (_ADVERTISED + b"\r\n" + _SERVICE, b"zzzz" * 1000),
    "nothing like HTTP": (b"", b"220 smtp.example ESMTP\r\n" * 500),
}


class _Endless(socketserver.StreamRequestHandler):
    def handle(self) -> None:
        once, again = self.server.said  # type: ignore[attr-defined]
        squeeze = zlib.compressobj(9, zlib.DEFLATED, 31)
        with suppress(OSError):
            self.rfile.readline()
            self.wfile.write(once)
            # Far more than any limit allows; the client has hung up before.
            for _ in range(1 << 14):
                self.wfile.write(again or squeeze.compress(bytes(1 << 20)))


#: Those take seconds, until Git has filled what it may.
_LONG = ("references", "capabilities", "empty lines", "a compressed answer", "a length that is none")


@pytest.mark.parametrize(
    "what", [pytest.param(what, marks=pytest.mark.full) if what in _LONG else what for what in ENDLESS]
)
def test_an_answer_without_end_ends(fleet: Fleet, root: Path, what: str) -> None:
    """Before any pack: references, headers, or what is none. Refused in time, and nothing is kept."""
    with socketserver.ThreadingTCPServer(("127.0.0.1", 0), _Endless) as server:
        server.daemon_threads = True
        server.said = ENDLESS[what]  # type: ignore[attr-defined]
        threading.Thread(target=server.serve_forever, daemon=True).start()
        url = f"http://127.0.0.1:{server.server_address[1]}/x"
        try:
            with pytest.raises(ReleaseError) as caught:
                fetch(
                    root / "git", url, "a" * 40, fleet.role, limits=Limits(attempts=1, total_s=20, idle_s=20)
                )
        finally:
            server.shutdown()
    assert caught.value.kind in (
        Kind.GIT_UNREACHABLE, Kind.GIT_REFUSED, Kind.RELEASE_TOO_LARGE, Kind.TIMED_OUT, Kind.COMMIT_MISSING,
    ), (caught.value.kind, caught.value.message)  # fmt: skip
    assert size_of(root / "git") < 1 << 20
