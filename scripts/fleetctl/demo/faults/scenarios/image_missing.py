"""The release's image is in no registry, though the registry answers."""

from __future__ import annotations

import http.server
import threading

from fleetctl.demo.faults.scenarios.bad_releases import BUSYBOX, bad_release
from fleetctl.demo.faults.scenarios.base import Result, Scenario, Setup, untouched


class _Empty(http.server.BaseHTTPRequestHandler):
    """A registry that has no image."""

    def do_GET(self) -> None:
        found = self.path == "/v2/"
        body = (
            b"{}" if found else b'{"errors": [{"code": "MANIFEST_UNKNOWN", "message": "manifest unknown"}]}'
        )
        self.send_response(200 if found else 404)
        self.send_header("Content-Type", "application/json")
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        if self.command == "GET":
            self.wfile.write(body)

    do_HEAD = do_GET  # noqa: N815

    def log_message(self, *_: object) -> None:
        pass


def _image_missing(setup: Setup, result: Result) -> None:
    """The registry responds, but does not have the image."""
    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), _Empty) as registry:
        threading.Thread(target=registry.serve_forever, daemon=True).start()
        image = f"127.0.0.1:{registry.server_port}/beacon:missing"

        def lacks_it(setup: Setup) -> None:
            if setup.simulated:
                setup.device.absent_image(image)

        try:
            bad_release(
                untouched("image_missing", "pulling"),
                edits={"compose.yaml": (BUSYBOX, f"image: {image}")},
                before=lacks_it,
            )(setup, result)
        finally:
            registry.shutdown()


SCENARIO = Scenario(
    "image-missing",
    "the registry responds, but does not have the image",
    _image_missing,
)
