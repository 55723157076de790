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
from pydantic import ValidationError

from fleet_agent.errors import ControlPlaneError, Kind, bad_answer, not_our_server, unreachable
from fleet_agent.support.clock import Clock

#: Kinds that SQL and the edge functions may name in `details` or `kind`.
_NAMED = {kind.value: kind for kind in Kind}
#: What the functions call it -> what the agent calls it, and whether waiting alone may help.
_FUNCTION_KINDS: dict[str, tuple[Kind, bool]] = {
    "token_invalid": (Kind.TOKEN_INVALID, False),
    "token_expired": (Kind.TOKEN_INVALID, False),
    "token_used_up": (Kind.TOKEN_INVALID, False),
    "publishable_key_invalid": (Kind.UNAUTHORIZED, False),
    "assertion_stale": (Kind.CLOCK_WRONG, True),
    "assertion_replayed": (Kind.UNAUTHORIZED, True),
    "assertion_invalid": (Kind.UNAUTHORIZED, False),
    "device_pending": (Kind.DEVICE_PENDING, True),
    "device_suspended": (Kind.DEVICE_SUSPENDED, True),
    "device_retired": (Kind.DEVICE_RETIRED, False),
    "device_replaced": (Kind.DEVICE_REPLACED, False),
    "rate_limited": (Kind.RATE_LIMITED, True),
    "bad_request": (Kind.REFUSED, False),
}
#: A pending device is accepted, a suspended one resumed, by a person: waiting may help, hurrying does not.
_REFUSED_DEVICE = {Kind.DEVICE_PENDING, Kind.DEVICE_SUSPENDED, Kind.DEVICE_RETIRED, Kind.DEVICE_REPLACED}
#: A longer Retry-After is cut to this: the next poll comes anyway.
RETRY_AFTER_LIMIT_S = 3600.0


_CERTIFICATE_HINT = (
    "A wrong clock, a captive portal or a proxy causes this; check api_url and the CA certificates."
)
#: OpenSSL's numbers for a certificate that is not valid at this machine's time.
_NOT_YET_VALID, _EXPIRED = 9, 10


def from_transport(error: httpx.HTTPError | OSError, clock: Clock | None = None) -> ControlPlaneError:
    """Translate a request that got no answer. With `clock`, one that its error caused is called that."""
    if isinstance(error, httpx.TimeoutException | TimeoutError):
        return ControlPlaneError(
            Kind.TIMED_OUT,
            "The control plane did not answer in time.",
            hint="Check the network; the agent retries.",
            retryable=True,
        )
    causes = list(_causes(error))
    for cause in causes:
        if isinstance(cause, ssl.SSLCertVerificationError):
            return _certificate(cause, clock)
        if isinstance(cause, ssl.SSLError):
            return not_our_server(f"its TLS is not what was expected ({cause})")
        if isinstance(cause, socket.gaierror):
            return unreachable("its name could not be resolved (DNS)")
    reason = next((str(cause) for cause in causes if str(cause)), type(error).__name__)
    return unreachable(reason)


def from_response(
    status: int, headers: httpx.Headers, content: bytes, *, function: str = ""
) -> ControlPlaneError | None:
    """Translate an answer of REST, or of the edge `function`; None when it is a good one."""
    is_json = "json" in headers.get("content-type", "")
    if 200 <= status < 300 and (is_json or not content):
        whole = not content or _is_whole(content)
        return None if whole else bad_answer("The control plane", "it was cut off or garbled")
    body = _body(content) if is_json else {}
    evidence = _evidence(status, body, function)
    if evidence.get("answer_kind") in _FUNCTION_KINDS:
        return _named_by_a_function(headers, body, evidence)
    if status >= 500 or status == 429:
        return _wait(headers, body, evidence)
    if status < 400 or not body:
        return not_ours(status, headers)
    return _refusal(headers, body, evidence)


def _is_whole(content: bytes) -> bool:
    """postgrest hands unreadable JSON on as text, so it is looked at here."""
    try:
        json.loads(content)
    except (ValueError, RecursionError):
        return False
    return True


def _named_by_a_function(
    headers: httpx.Headers, body: dict[str, Any], evidence: dict[str, Any]
) -> ControlPlaneError:
    kind, retryable = _FUNCTION_KINDS[evidence["answer_kind"]]
    return ControlPlaneError(
        kind,
        _said(body) or f"{evidence['function']} refused with HTTP status {evidence['status']}.",
        hint=_hint(body),
        retryable=retryable,
        retry_after_s=retry_after(headers),
        evidence=evidence,
    )


def _wait(headers: httpx.Headers, body: dict[str, Any], evidence: dict[str, Any]) -> ControlPlaneError:
    """The server is there and asks for patience, or is broken."""
    if evidence["status"] == 429:
        kind, sentence = Kind.RATE_LIMITED, "The control plane is rate-limiting this device."
    else:
        kind, sentence = Kind.SERVER_ERROR, f"The control plane failed with HTTP status {evidence['status']}."
    return ControlPlaneError(
        kind,
        _said(body) or sentence,
        hint=_hint(body) or "The agent retries.",
        retryable=True,
        retry_after_s=retry_after(headers),
        evidence=evidence,
    )


def _refusal(headers: httpx.Headers, body: dict[str, Any], evidence: dict[str, Any]) -> ControlPlaneError:
    """A refusal on purpose: asking again without a change gets the same answer."""
    status, said = evidence["status"], _said(body)
    named = _NAMED.get(str(body.get("details") or "")) or _NAMED.get(str(body.get("kind") or ""))
    hint = ""
    # REST answers 403 where row-level security says no: that is about a row, not about the caller.
    if status == 401 or (status == 403 and "function" in evidence):
        kind = Kind.UNAUTHORIZED
        sentence = f"The control plane refused this device's credentials: {said or 'no reason given'}."
        hint = "Check publishable_key; the agent fetches a new token."
    elif status == 404 and str(body.get("code", "")).startswith("PGRST20"):
        kind = Kind.BAD_ANSWER
        sentence = f"The control plane does not have a function that this agent needs: {said}."
        hint = "Apply the migrations that belong to this version of the agent."
    else:
        kind = named or Kind.REFUSED
        sentence = said or f"The control plane refused with HTTP status {status}."
    return ControlPlaneError(
        kind,
        sentence,
        hint=_hint(body) or hint,
        retry_after_s=retry_after(headers),
        evidence=evidence,
    )


def unexpected_answer(function: str, error: ValidationError, *, retryable: bool) -> ControlPlaneError:
    """An answer of another shape. The values stay out of the sentence: one of them is a token."""
    places = sorted({".".join(map(str, item["loc"])) for item in error.errors(include_input=False)})
    return bad_answer(function, ", ".join(filter(None, places)) or "not an object", retryable=retryable)


def refuses_this_device(error: ControlPlaneError) -> bool:
    """Whether the control plane knows this device and does not serve it (pending, suspended, retired)."""
    return error.kind in _REFUSED_DEVICE


def is_an_answer(error: ControlPlaneError) -> bool:
    """Whether the control plane itself refused: then this device is not cut off from it."""
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
    # "-0000" means UTC without a known local zone.
    return date if date.tzinfo else date.replace(tzinfo=UTC)


def _certificate(error: ssl.SSLCertVerificationError, clock: Clock | None) -> ControlPlaneError:
    said = error.verify_message or str(error)
    code = error.verify_code
    suspect = clock is not None and (clock.is_implausible() or clock.may_be_ahead())
    if code == _NOT_YET_VALID or (code == _EXPIRED and suspect):
        says = f", which says {clock.local():%Y-%m-%d %H:%M} UTC" if clock is not None else ""
        return ControlPlaneError(
            Kind.CLOCK_WRONG,
            f"The server's certificate was refused ({said}); the likely cause is this device's clock{says}.",
            hint="Set the clock (NTP); the agent retries.",
            retryable=True,
        )
    return not_our_server(f"its certificate is not trusted ({said})", hint=_CERTIFICATE_HINT)


def not_ours(status: int, headers: httpx.Headers) -> ControlPlaneError:
    kind = headers.get("content-type", "nothing").partition(";")[0]
    return not_our_server(f"HTTP status {status}, {kind}", retry_after_s=retry_after(headers))


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


def _evidence(status: int, body: dict[str, Any], function: str) -> dict[str, Any]:
    if function:
        named = str(body.get("kind") or body.get("code") or "")
        return {"function": function, "status": status, "answer_kind": named}
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
