"""A registry of images on a port of this machine, which can be taken down and brought back."""

from __future__ import annotations

import gzip
import hashlib
import http.server
import io
import json
import subprocess
import tarfile
import threading
from typing import Any

_MANIFEST = "application/vnd.docker.distribution.manifest.v2+json"
_CONFIG = "application/vnd.docker.container.image.v1+json"
_LAYER = "application/vnd.docker.image.rootfs.diff.tar.gzip"


class Registry:
    """Serves what was put in. Docker talks plain HTTP to this machine."""

    def __init__(self) -> None:
        self._manifests: dict[str, bytes] = {}
        self._blobs: dict[str, bytes] = {}
        #: Answered instead of anything else, where set.
        self.answer_all: int | None = None
        self._port = 0
        self._server: http.server.ThreadingHTTPServer | None = None
        self.up()

    def up(self) -> None:
        self._server = http.server.ThreadingHTTPServer(("127.0.0.1", self._port), _handler(self))
        self._port = self._server.server_port
        threading.Thread(target=self._server.serve_forever, daemon=True).start()

    def down(self) -> None:
        """Its port then refuses."""
        if self._server is not None:
            self._server.shutdown()
            self._server.server_close()
            self._server = None

    def name(self, name: str, tag: str = "1") -> str:
        return f"127.0.0.1:{self._port}/{name}:{tag}"

    def put(self, name: str, *layers: bytes, tag: str = "1") -> str:
        """An image of these layers (tar archives), upper ones last; returns its name."""
        packed = [gzip.compress(layer, 1, mtime=0) for layer in layers]
        config = {
            "architecture": "amd64",
            "os": "linux",
            "config": {"Cmd": ["sh"]},
            "rootfs": {"type": "layers", "diff_ids": [_digest(layer) for layer in layers]},
            "history": [{"created_by": name} for _ in layers],
        }
        manifest = {
            "schemaVersion": 2,
            "mediaType": _MANIFEST,
            "config": self._blob(json.dumps(config).encode(), _CONFIG),
            "layers": [self._blob(layer, _LAYER) for layer in packed],
        }
        raw = json.dumps(manifest).encode()
        self._manifests[f"{name}/manifests/{tag}"] = raw
        self._manifests[f"{name}/manifests/{_digest(raw)}"] = raw
        return self.name(name, tag)

    def answer(self, path: str) -> tuple[int, str, bytes]:
        """Status, type and body for a path below /v2/."""
        if self.answer_all is not None:
            code = {429: "TOOMANYREQUESTS"}.get(self.answer_all, "UNKNOWN")
            error = {"errors": [{"code": code, "message": "try again later"}]}
            return self.answer_all, "application/json", json.dumps(error).encode()
        if not path:
            return 200, "application/json", b"{}"
        if path in self._manifests:
            return 200, _MANIFEST, self._manifests[path]
        if (digest := path.rpartition("/blobs/")[2]) in self._blobs:
            return 200, "application/octet-stream", self._blobs[digest]
        error = {"errors": [{"code": "MANIFEST_UNKNOWN", "message": "manifest unknown"}]}
        return 404, "application/json", json.dumps(error).encode()

    def _blob(self, content: bytes, kind: str) -> dict[str, Any]:
        self._blobs[_digest(content)] = content
        return {"mediaType": kind, "size": len(content), "digest": _digest(content)}


def base_layer(image: str) -> bytes:
    """The only layer of an image that Docker has: shared, byte by byte, with what is made of it."""
    saved = subprocess.run(["docker", "save", image], capture_output=True, check=True).stdout
    with tarfile.open(fileobj=io.BytesIO(saved)) as archive:
        (entry,) = json.load(archive.extractfile("manifest.json") or io.BytesIO())
        (layer,) = entry["Layers"]
        found = archive.extractfile(layer)
        assert found is not None
        return found.read()


def layer(name: str, content: bytes) -> bytes:
    """A layer with one file."""
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w") as archive:
        entry = tarfile.TarInfo(name)
        entry.size = len(content)
        archive.addfile(entry, io.BytesIO(content))
    return buffer.getvalue()


def _digest(content: bytes) -> str:
    return f"sha256:{hashlib.sha256(content).hexdigest()}"


def _handler(registry: Registry) -> type[http.server.BaseHTTPRequestHandler]:
    class Handler(http.server.BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            self._answer(body_too=True)

        def do_HEAD(self) -> None:
            self._answer(body_too=False)

        def _answer(self, *, body_too: bool) -> None:
            status, kind, body = registry.answer(self.path.removeprefix("/v2/"))
            self.send_response(status)
            self.send_header("Docker-Distribution-Api-Version", "registry/2.0")
            self.send_header("Docker-Content-Digest", _digest(body))
            self.send_header("Content-Type", kind)
            self.send_header("Content-Length", str(len(body)))
            self.end_headers()
            if body_too:
                self.wfile.write(body)

        def log_message(self, *_: object) -> None:
            pass

    return Handler
