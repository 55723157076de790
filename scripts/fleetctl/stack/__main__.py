"""The supervisor as a process of its own: `python -m fleetctl.stack`.

The first line of stdin is a JSON `Options`; progress, then `ready` or `error`, come as JSON lines on stdout.
Unless detached, the end of stdin (the parent is gone, however it went) stops the stack: a killed test run
leaves nothing behind.
"""

from __future__ import annotations

import contextlib
import json
import os
import signal
import sys
import threading
from types import FrameType

from fleetctl.errors import FleetctlError
from fleetctl.stack.supervisor import Options, Supervisor


def main() -> None:
    """Entry point of the separate supervisor process."""
    options = Options(**json.loads(sys.stdin.readline()))
    emit_lock = threading.Lock()

    def emit(**message: object) -> None:
        with emit_lock, contextlib.suppress(BrokenPipeError, ValueError, OSError):
            print(json.dumps(message), flush=True)

    try:
        supervisor = Supervisor(options, lambda text: emit(progress=text))
    except FleetctlError as error:
        emit(error={"kind": error.kind, "message": error.message, "hint": error.hint})
        sys.exit(1)

    def on_signal(number: int, frame: FrameType | None) -> None:
        supervisor.request_stop()

    signal.signal(signal.SIGTERM, on_signal)
    signal.signal(signal.SIGINT, on_signal)
    signal.signal(signal.SIGPIPE, signal.SIG_IGN)
    if not options.detach:
        threading.Thread(target=_follow_parent, args=(supervisor,), daemon=True, name="parent").start()

    def ready() -> None:
        emit(ready=True)

    try:
        supervisor.run(ready)
    except FleetctlError as error:
        emit(error={"kind": error.kind, "message": error.message, "hint": error.hint})
        sys.exit(1)


def _follow_parent(supervisor: Supervisor) -> None:
    # os.read, not sys.stdin: a thread that waits inside a buffered reader keeps Python from exiting.
    while os.read(0, 4096):
        pass
    supervisor.request_stop()


if __name__ == "__main__":
    main()
