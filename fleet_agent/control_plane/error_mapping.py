"""Everything that can go wrong on the way to Supabase and back, as `ControlPlaneError` with a stable kind.

The one place where foreign exceptions and HTTP answers are translated.
"""

from __future__ import annotations

import json
import math
import socket
import ssl
from collections.abc import Iterator
from datetime import UTC, datetime
from email.utils import parsedate_to_datetime
from typing import Any

import httpx

from fleet_agent.errors import ControlPlaneError, Kind
from fleet_agent.support.clock import Clock

#: Kinds that SQL and the edge functions may name in `details` or `kind`.
_NAMED = {kind.value: kind for kind in Kind}
#: A pending device is accepted, a suspended one resumed, by a person: waiting may help, hurrying does not.
_REFUSED_DEVICE = {Kind.DEVICE_PENDING, Kind.DEVICE_SUSPENDED, Kind.DEVICE_RETIRED}
#: Retry-After beyond this is a maintenance page's wish, not ours: the poll comes round anyway.
RETRY_AFTER_LIMIT_S = 3600.0


#: OpenSSL's numbers for a certificate that is not valid at this machine's time.
_NOT_YET_VALID, _EXPIRED = 9, 10


def from_transport(error: httpx.HTTPError | OSError, clock: Clock | None = None) -> ControlPlaneError:
    """Translate a request that got no answer. With `clock`, one that its error caused is called that."""
    if isinstance(error, httpx.TimeoutException | TimeoutError):
        return ControlPlaneError(
            Kind.TIMED_OUT,
            "The control plane did not answer in time.",
            hint="Check the network; the agent tries again by itself.",
            retryable=True,
        )
    causes = list(_causes(error))
    for cause in causes:
        if isinstance(cause, ssl.SSLCertVerificationError):
            return _certificate(cause, clock)
        if isinstance(cause, ssl.SSLError):
            return ControlPlaneError(
                Kind.NOT_OUR_SERVER,
                f"What answered at api_url does not speak TLS as expected: {cause}.",
                hint="Is there a captive portal or a proxy in between? Check api_url.",
                retryable=True,
            )
        if isinstance(cause, socket.gaierror):
            return ControlPlaneError(
                Kind.UNREACHABLE,
                "The control plane's name could not be resolved (DNS).",
                hint="Check the network and its name server; the agent tries again by itself.",
                retryable=True,
            )
    reason = next((str(cause) for cause in causes if str(cause)), type(error).__name__)
    return ControlPlaneError(
        Kind.UNREACHABLE,
        f"The control plane could not be reached: {reason}.",
        hint="Check the network and api_url; the agent tries again by itself.",
        retryable=True,
    )


def from_response(status: int, headers: httpx.Headers, content: bytes) -> ControlPlaneError | None:
    """Translate an answer; None when it is a good one."""
    is_json = "json" in headers.get("content-type", "")
    if 200 <= status < 300 and (is_json or not content):
        return None if not content or _is_whole(content) else _cut_off()
    body = _body(content) if is_json else {}
    if status >= 500 or status == 429:
        return _wait(status, headers, body)
    if status < 400 or not body:
        return _not_ours(status, headers)
    return _refusal(status, headers, body)


def _is_whole(content: bytes) -> bool:
    """postgrest hands unreadable JSON on as text, so it is looked at here."""
    try:
        json.loads(content)
    except (ValueError, RecursionError):
        return False
    return True


def _cut_off() -> ControlPlaneError:
    return ControlPlaneError(
        Kind.BAD_ANSWER,
        "The control plane's answer was cut off or garbled.",
        hint="The agent tries again by itself.",
        retryable=True,
    )


def _wait(status: int, headers: httpx.Headers, body: dict[str, Any]) -> ControlPlaneError:
    """The server is there and asks for patience, or is broken."""
    if status == 429:
        kind, sentence = Kind.RATE_LIMITED, "The control plane asks to slow down."
    else:
        kind, sentence = Kind.SERVER_ERROR, f"The control plane answered {status}."
    return ControlPlaneError(
        kind,
        _said(body) or sentence,
        hint=_hint(body) or "The agent tries again by itself.",
        retryable=True,
        retry_after_s=retry_after(headers),
        evidence=_evidence(status, body),
    )


def _refusal(status: int, headers: httpx.Headers, body: dict[str, Any]) -> ControlPlaneError:
    """A deliberate no: asking again without a change gets the same answer."""
    named = _NAMED.get(str(body.get("details") or "")) or _NAMED.get(str(body.get("kind") or ""))
    if status == 401:
        kind = Kind.UNAUTHORIZED
        sentence = (
            f"The control plane refused this device's credentials: {_said(body) or 'it gave no reason'}."
        )
        hint = "Check publishable_key; the agent fetches a new token by itself."
    elif status == 404 and str(body.get("code", "")).startswith("PGRST20"):
        kind = Kind.BAD_ANSWER
        sentence = f"The control plane lacks what this agent asks for: {_said(body)}."
        hint = "Apply the migrations of this agent's release to the project."
    else:
        kind = named or Kind.REFUSED
        sentence = _said(body) or f"The control plane answered {status}."
        hint = ""
    return ControlPlaneError(
        kind,
        sentence,
        hint=_hint(body) or hint,
        retry_after_s=retry_after(headers),
        evidence=_evidence(status, body),
    )


def refuses_this_device(error: ControlPlaneError) -> bool:
    """Whether the control plane knows this device and does not serve it (pending, suspended, retired)."""
    return error.kind in _REFUSED_DEVICE


def is_an_answer(error: ControlPlaneError) -> bool:
    """Whether the control plane itself said no: then this device is not cut off from it."""
    return error.kind in _REFUSED_DEVICE | {Kind.UNAUTHORIZED, Kind.REFUSED}


def retry_after(headers: httpx.Headers) -> float | None:
    """Seconds asked for in Retry-After (seconds or an HTTP date, counted from the answer's own Date).

    At most `RETRY_AFTER_LIMIT_S`; None where it is absent or unreadable.
    """
    value = headers.get("retry-after", "").strip()
    if not value:
        return None
    try:
        seconds = float(value)
    except ValueError:
        at, answered = _http_date(value), _http_date(headers.get("date", ""))
        if at is None:
            return None
        # The device's clock may be wrong; the server's Date is the same clock as its Retry-After.
        seconds = (at - (answered or datetime.now(UTC))).total_seconds()
    # "nan" is a number to Python.
    return None if math.isnan(seconds) else min(max(seconds, 0.0), RETRY_AFTER_LIMIT_S)


def _http_date(value: str) -> datetime | None:
    try:
        date = parsedate_to_datetime(value)
    except ValueError:
        return None
    # "-0000" says: UTC, and nothing about where.
    return date if date.tzinfo else date.replace(tzinfo=UTC)


def _certificate(error: ssl.SSLCertVerificationError, clock: Clock | None) -> ControlPlaneError:
    said = error.verify_message or str(error)
    code = error.verify_code
    suspect = clock is not None and (clock.is_implausible() or clock.may_be_ahead())
    if code == _NOT_YET_VALID or (code == _EXPIRED and suspect):
        says = f", which says {clock.local():%Y-%m-%d %H:%M} UTC," if clock is not None else ""
        return ControlPlaneError(
            Kind.CLOCK_WRONG,
            f"The server's certificate was refused ({said}), "
            f"and this device's clock{says} is the likely cause.",
            hint="Set the clock (NTP); the agent tries again by itself.",
            retryable=True,
        )
    return ControlPlaneError(
        Kind.NOT_OUR_SERVER,
        f"The server's certificate was refused: {said}.",
        hint="A wrong clock, a captive portal or a proxy does this; check api_url and the CA certificates.",
        retryable=True,
    )


def _not_ours(status: int, headers: httpx.Headers) -> ControlPlaneError:
    kind = headers.get("content-type", "nothing").partition(";")[0]
    return ControlPlaneError(
        Kind.NOT_OUR_SERVER,
        f"Something else than the control plane answered ({status}, {kind}).",
        hint="Is there a captive portal or a proxy in between? Check api_url.",
        retryable=True,
        retry_after_s=retry_after(headers),
    )


def _body(content: bytes) -> dict[str, Any]:
    try:
        body = json.loads(content)
    except (ValueError, RecursionError):
        return {}
    return body if isinstance(body, dict) else {}


def _said(body: dict[str, Any]) -> str:
    return str(body.get("message") or body.get("msg") or body.get("error") or "")


def _hint(body: dict[str, Any]) -> str:
    return str(body.get("hint") or "")


def _evidence(status: int, body: dict[str, Any]) -> dict[str, Any]:
    return {"status": status, "code": body.get("code"), "details": body.get("details")}


def _causes(error: BaseException) -> Iterator[BaseException]:
    """`error` and what led to it, each once: chains of exceptions may be circles."""
    seen: set[int] = set()
    waiting: list[BaseException | None] = [error]
    while waiting:
        current = waiting.pop()
        if current is None or id(current) in seen:
            continue
        seen.add(id(current))
        yield current
        waiting += [current.__context__, current.__cause__]
        if isinstance(current, BaseExceptionGroup):
            waiting += current.exceptions
