"""Signing a person in and out at Supabase Auth, and renewing the session when it is about to end.

With it, what fleetctl changes is audited under the person's name and bounded by their rank. Plain requests:
three of them do not need the library, which takes half a second to load.
"""

from __future__ import annotations

import contextlib
from datetime import UTC, datetime, timedelta
from http import HTTPStatus
from typing import Any

import httpx

from fleetctl.client.known_fleets import Session, remember
from fleetctl.errors import FleetctlError

_TIMEOUT_S = 30
#: Longer than any command asks for; a token that ends in between is refused and signing in again is easy.
_RENEW_BEFORE = timedelta(minutes=2)


def sign_in(fleet: str, api_url: str, publishable_key: str, email: str, password: str) -> Session:
    """Raises FleetctlError: `sign_in_refused`, `unreachable`, `bad_answer`."""
    status, answer = _token(api_url, publishable_key, "password", {"email": email, "password": password})
    _require_auth(api_url, status)
    if status >= HTTPStatus.BAD_REQUEST:
        raise _refused(email, answer, status)
    return _read(fleet, api_url, publishable_key, answer)


def fresh(session: Session) -> Session:
    """The session, renewed and kept if it is about to expire. Raises FleetctlError `session_ended`."""
    if datetime.now(UTC) < session.expires_at - _RENEW_BEFORE:
        return session
    status, answer = _token(
        session.api_url, session.publishable_key, "refresh_token", {"refresh_token": session.refresh_token}
    )
    _require_auth(session.api_url, status)
    if status >= HTTPStatus.BAD_REQUEST:
        raise FleetctlError(
            "session_ended",
            f"The session of {session.email} at {session.api_url} has expired.",
            hint=f"Sign in again: fleetctl login {session.email} --fleet {session.fleet}",
            exit_code=4,
        )
    renewed = _read(session.fleet, session.api_url, session.publishable_key, answer)
    remember(renewed)
    return renewed


def sign_out(session: Session) -> None:
    """Have Auth forget it. Best effort: it ends by itself, and the file goes in any case."""
    headers = {"apikey": session.publishable_key, "Authorization": f"Bearer {session.access_token}"}
    with contextlib.suppress(httpx.HTTPError):
        httpx.post(
            f"{session.api_url}/auth/v1/logout",
            params={"scope": "local"}, headers=headers, timeout=_TIMEOUT_S,
        )  # fmt: skip


def _require_auth(api_url: str, status: int) -> None:
    """An outage refuses nobody: the session is still good. Raises FleetctlError `unavailable`."""
    if status >= HTTPStatus.INTERNAL_SERVER_ERROR:
        from fleetctl.client.api_errors import out_of_order

        raise out_of_order(f"{api_url} is not available: Auth answers {status}")


def _token(api_url: str, key: str, grant: str, body: dict[str, str]) -> tuple[int, dict[str, Any]]:
    try:
        answer = httpx.post(
            f"{api_url}/auth/v1/token",
            params={"grant_type": grant}, json=body, headers={"apikey": key}, timeout=_TIMEOUT_S,
        )  # fmt: skip
        parsed = answer.json()
    except httpx.HTTPError as error:
        raise FleetctlError(
            "unreachable", f"{api_url} cannot be reached: {error}.", hint="Check --api-url.", exit_code=3
        ) from error
    except ValueError:
        parsed = {}
    return answer.status_code, parsed if isinstance(parsed, dict) else {}


def _read(fleet: str, api_url: str, key: str, answer: dict[str, Any]) -> Session:
    try:
        return Session(
            fleet=fleet,
            api_url=api_url,
            publishable_key=key,
            email=answer["user"]["email"],
            user_id=answer["user"]["id"],
            access_token=answer["access_token"],
            refresh_token=answer["refresh_token"],
            expires_at=datetime.now(UTC) + timedelta(seconds=int(answer["expires_in"])),
        )
    except (KeyError, TypeError, ValueError) as error:
        raise FleetctlError("bad_answer", f"Auth at {api_url} returned no session.") from error


def _refused(email: str, answer: dict[str, Any], status: int) -> FleetctlError:
    said = str(answer.get("msg") or answer.get("message") or answer.get("error_description") or status)
    return FleetctlError(
        "sign_in_refused",
        f"{email} could not sign in: {said.rstrip('.')}.",
        hint="Check address, password and key. An admin adds people with fleetctl operator add.",
        exit_code=4,
    )
