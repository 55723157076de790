"""A GET that responds in time, with the right status and body."""

from __future__ import annotations

import contextlib
import http.client
import ssl
from collections.abc import Callable, Iterator
from urllib.parse import SplitResult, urlsplit

from fleet_agent.health.base import CheckContext, CheckOutcome, CheckResult
from fleet_agent.roles.schema import HttpCheck
from fleet_agent.support.deadline import limited

#: Bytes of a body that are looked at.
BODY_LIMIT = 64 * 1024


class _SlowError(Exception):
    """The response came, but not all of it in time."""


class HttpResponds:
    def __init__(self, wanted: HttpCheck) -> None:
        self._wanted = wanted
        self.name = f"http {wanted.url}"

    def look(self, context: CheckContext) -> CheckResult:
        wanted, started = self._wanted, context.monotonic()
        try:
            status, body = self._get(started, context.monotonic)
        except (OSError, http.client.HTTPException, ValueError, _SlowError) as error:
            return self._fail(f"failed ({_why(error)})")
        said = context.redact(body)
        took_ms = round((context.monotonic() - started) * 1000)
        if status not in wanted.status:
            return self._fail(f"returned {status}", status=status, body=said[:200])
        if wanted.body is not None and wanted.body not in body:
            return self._fail(f"responded without {wanted.body!r}", body=said[:200])
        if wanted.body_is is not None and body.strip() != wanted.body_is.strip():
            return self._fail(f"responded {said.strip()[:60]!r}, not {wanted.body_is!r}", body=said[:200])
        if wanted.max_latency_ms is not None and took_ms > wanted.max_latency_ms:
            return self._fail(f"took {took_ms} ms, more than {wanted.max_latency_ms} ms", took_ms=took_ms)
        return CheckResult(self.name, CheckOutcome.PASS, f"GET {wanted.url} returned {status}")

    def _get(self, started: float, monotonic: Callable[[], float]) -> tuple[int, str]:
        url, limit = urlsplit(self._wanted.url), self._wanted.timeout_s
        with contextlib.closing(_connection(url, limit)) as connection:
            connection.connect()
            with _limited(connection, limit - (monotonic() - started)):
                return _ask(connection, (url.path or "/") + (f"?{url.query}" if url.query else ""))

    def _fail(self, detail: str, **evidence: object) -> CheckResult:
        return CheckResult(
            self.name, CheckOutcome.FAIL, f"GET {self._wanted.url} {detail}", evidence=dict(evidence)
        )


@contextlib.contextmanager
def _limited(connection: http.client.HTTPConnection, seconds: float) -> Iterator[None]:
    """Whatever comes of a connection that was shut down: it was too slow."""
    with limited(connection.sock, seconds) as late:
        try:
            yield
        finally:
            if late.is_set():
                raise _SlowError(f"incomplete after {connection.timeout:g} s")


def _connection(url: SplitResult, timeout_s: float) -> http.client.HTTPConnection:
    host = url.hostname or ""
    if url.scheme == "http":
        return http.client.HTTPConnection(host, url.port, timeout=timeout_s)
    if url.scheme == "https":
        context = ssl.create_default_context()
        return http.client.HTTPSConnection(host, url.port, timeout=timeout_s, context=context)
    raise ValueError("not an HTTP address")


def _ask(connection: http.client.HTTPConnection, target: str) -> tuple[int, str]:
    connection.request("GET", target, headers={"User-Agent": "fleet-agent", "Connection": "close"})
    response = connection.getresponse()
    body = b""
    while len(body) < BODY_LIMIT and (piece := response.read1(BODY_LIMIT - len(body))):
        body += piece
    return response.status, body.decode(errors="replace")


def _why(error: Exception) -> str:
    if isinstance(error, TimeoutError):
        return "timed out"
    return getattr(error, "strerror", None) or str(error) or type(error).__name__
