"""A client of a service that never stops asking: when was it answered, and by which version."""

from __future__ import annotations

import http.client
import threading
import time
from dataclasses import dataclass, field


@dataclass(frozen=True)
class Answer:
    """One request: when it was sent (monotonic seconds) and what came back (None: no good answer)."""

    at: float
    body: str | None


@dataclass
class Probe:
    """Ask `http://127.0.0.1:<port><path>` every `every_s` seconds in a thread, until stopped."""

    port: int
    path: str = "/version"
    every_s: float = 0.005
    timeout_s: float = 0.5
    answers: list[Answer] = field(default_factory=list)
    _stop: threading.Event = field(default_factory=threading.Event)
    _thread: threading.Thread | None = None

    def __enter__(self) -> Probe:
        self._thread = threading.Thread(target=self._run, name=f"probe-{self.port}", daemon=True)
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._stop.set()
        if self._thread:
            self._thread.join()

    def outage_s(self, since: float, until: float | None = None) -> float:
        """Seconds without a good answer between two moments: from the last good answer to the next good one.

        Only gaps in which at least one request failed count, so a pause of this process is no outage.
        """
        total = 0.0
        last_good: float | None = None
        failed = False
        for answer in list(self.answers):
            if answer.at < since or (until is not None and answer.at > until):
                continue
            if answer.body is None:
                failed = True
                continue
            if failed and last_good is not None:
                total += answer.at - last_good
            last_good, failed = answer.at, False
        return total

    def failures(self, since: float) -> int:
        """How many requests got no good answer since a moment."""
        return sum(1 for answer in list(self.answers) if answer.at >= since and answer.body is None)

    def _run(self) -> None:
        while not self._stop.is_set():
            at = time.monotonic()
            self.answers.append(Answer(at, self.ask()))
            self._stop.wait(max(0.0, self.every_s - (time.monotonic() - at)))

    def ask(self) -> str | None:
        """One request: the body of a good answer, else None."""
        connection = http.client.HTTPConnection("127.0.0.1", self.port, timeout=self.timeout_s)
        try:
            connection.request("GET", self.path)
            response = connection.getresponse()
            body = response.read().decode(errors="replace").strip()
        except (OSError, http.client.HTTPException):
            return None
        finally:
            connection.close()
        return body if response.status == 200 else None
