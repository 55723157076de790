"""A real Git host on loopback: `git http-backend` behind a server that can refuse, break and stall."""

from __future__ import annotations

import gzip
import os
import re
import socket
import ssl
import subprocess
import threading
from collections import deque
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager, suppress
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

CHUNK = 16 * 1024
#: After this line of an answer (protocol version 2) comes the pack, in pieces on a band of its own.
_PACK = b"000dpackfile\n"


class GitServer:
    """Serves the repositories in `root` read-only.

    `protocol_v2` off makes it as old as hosts that hand out branches only; with `commits` it refuses any
    object not among them. `cuts` holds, for the next transfers, after how many bytes the connection breaks
    (None: not at all); `stall_after` after how many bytes each transfer goes silent. A hostile host sends
    `says` as progress before each pack, `pack` (an endless one is cut by the client) instead of the pack,
    and whoever asks for anything to the address `elsewhere`. With a `certificate` (and its key) for
    localhost it speaks TLS.
    """

    def __init__(self, root: Path, *, certificate: Path | None = None) -> None:
        self.root = root
        self.protocol_v2 = True
        self.password_wanted = False
        self.commits: set[str] | None = None
        self.cuts: deque[int | None] = deque()
        self.stall_after: int | None = None
        self.stop_stalling = threading.Event()
        self.says: list[bytes] = []
        self.pack: Callable[[], Iterable[bytes]] | None = None
        self.elsewhere: str | None = None
        self.bytes_sent = 0
        self.bytes_received = 0
        #: The object ids that each transfer asked for.
        self.wants: list[list[str]] = []
        self._http = ThreadingHTTPServer(("127.0.0.1", 0), _handler(self))
        self.port: int = self._http.server_address[1]
        self._origin = f"http://127.0.0.1:{self.port}"
        if certificate is not None:
            context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
            context.load_cert_chain(certificate)
            self._http.socket = context.wrap_socket(self._http.socket, server_side=True)
            self._origin = f"https://localhost:{self.port}"

    def url(self, repository: Path) -> str:
        """Where a client finds `repository`, a folder with a work tree below `root`."""
        return f"{self._origin}/{repository.relative_to(self.root)}/.git"

    @contextmanager
    def running(self) -> Iterator[GitServer]:
        thread = threading.Thread(
            target=self._http.serve_forever, kwargs={"poll_interval": 0.05}, daemon=True
        )
        thread.start()
        try:
            yield self
        finally:
            self.stop_stalling.set()
            self._http.shutdown()
            self._http.server_close()
            thread.join()


def _handler(server: GitServer) -> type[BaseHTTPRequestHandler]:
    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def do_GET(self) -> None:
            self._serve(b"")

        def do_POST(self) -> None:
            body = self.rfile.read(int(self.headers.get("Content-Length") or 0))
            server.bytes_received += len(body)
            self._serve(body)

        def log_message(self, format: str, *args: object) -> None:
            pass

        def _serve(self, body: bytes) -> None:
            self.close_connection = True
            if server.elsewhere is not None:
                self.send_response(302)
                self.send_header("Location", server.elsewhere + self.path)
                self.send_header("Content-Length", "0")
                self.end_headers()
                return
            if server.password_wanted and "Authorization" not in self.headers:
                self.send_response(401)
                self.send_header("WWW-Authenticate", 'Basic realm="git"')
                self.send_header("Content-Length", "0")
                self.end_headers()
                return
            plain = gzip.decompress(body) if self.headers.get("Content-Encoding") == "gzip" else body
            wants = [want.decode() for want in re.findall(rb"want ([0-9a-f]{40,64})", plain)]
            unknown = [want for want in wants if server.commits is not None and want not in server.commits]
            if unknown:
                server.wants.append(wants)
                complaint = f"ERR upload-pack: not our ref {unknown[0]}"
                result = b"Content-Type: application/x-git-upload-pack-result"
                self._answer(result, f"{len(complaint) + 4:04x}{complaint}".encode(), None, stall=False)
                return
            if wants and server.pack is not None:
                server.wants.append(wants)
                with suppress(BrokenPipeError, ConnectionResetError):
                    self._send_pack(server.pack())
                return
            backend = subprocess.Popen(
                ["git", "http-backend"],
                env=self._cgi(),
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                stderr=subprocess.DEVNULL,
            )
            answer, _ = backend.communicate(body)
            head, _, content = answer.partition(b"\r\n\r\n")
            if wants:
                server.wants.append(wants)
            if _PACK in content:
                said = b"".join(_side_band(2, line) for line in server.says)
                content = content.replace(_PACK, _PACK + said, 1)
            cut = server.cuts.popleft() if wants and server.cuts else None
            with suppress(BrokenPipeError, ConnectionResetError):
                self._answer(head, content, cut, stall=bool(wants))

        def _answer(self, head: bytes, content: bytes, cut: int | None, *, stall: bool) -> None:
            fields = dict(line.split(": ", 1) for line in head.decode().split("\r\n") if line)
            self.send_response(int(fields.pop("Status", "200").split()[0]))
            for name, value in fields.items():
                self.send_header(name, value)
            self.send_header("Content-Length", str(len(content)))
            self.end_headers()
            end = len(content) if cut is None else min(cut, len(content))
            if stall and server.stall_after is not None:
                end = server.stall_after
            for start in range(0, end, CHUNK):
                server.bytes_sent += self.wfile.write(content[start : min(start + CHUNK, end)])
            self.wfile.flush()
            if stall and server.stall_after is not None:
                server.stop_stalling.wait(60)
            if end < len(content):
                self.connection.shutdown(socket.SHUT_RDWR)

        def _send_pack(self, pieces: Iterable[bytes]) -> None:
            self.send_response(200)
            self.send_header("Content-Type", "application/x-git-upload-pack-result")
            self.end_headers()
            self.wfile.write(_PACK)
            for piece in pieces:
                for start in range(0, len(piece), 65_000):
                    server.bytes_sent += self.wfile.write(_side_band(1, piece[start : start + 65_000]))
            self.wfile.write(b"0000")

        def _cgi(self) -> dict[str, str]:
            path, _, query = self.path.partition("?")
            return {
                "PATH": os.environ["PATH"],
                "GIT_PROJECT_ROOT": str(server.root),
                "GIT_HTTP_EXPORT_ALL": "1",
                "GIT_CONFIG_NOSYSTEM": "1",
                "GIT_CONFIG_GLOBAL": os.devnull,
                "GIT_PROTOCOL": self.headers.get("Git-Protocol", "") if server.protocol_v2 else "",
                "REQUEST_METHOD": self.command,
                "PATH_INFO": path,
                "QUERY_STRING": query,
                "CONTENT_TYPE": self.headers.get("Content-Type", ""),
                "CONTENT_LENGTH": self.headers.get("Content-Length", ""),
                "HTTP_CONTENT_ENCODING": self.headers.get("Content-Encoding", ""),
                "REMOTE_ADDR": "127.0.0.1",
            }

    return Handler


def _side_band(band: int, content: bytes) -> bytes:
    """One packet: band 1 is the pack, band 2 is progress for people."""
    return f"{len(content) + 5:04x}".encode() + bytes([band]) + content
