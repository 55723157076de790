"""Every foreign exception of the control plane as a FleetctlError.

What the database refuses in words keeps its words: our functions and triggers raise a sentence, a stable kind
(`details`) and a hint.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from http import HTTPStatus

import httpx
from postgrest.exceptions import APIError

from fleetctl.errors import FleetctlError

TIMEOUT_S = 30
_ATTEMPT_HINT = (
    "Is the stack running? See: fleetctl status. For another control plane, check --api-url and the network."
)
#: SQLSTATE or PostgREST code -> kind and exit code, if the database did not name a kind itself.
_CODES: dict[str, tuple[str, int]] = {
    "42501": ("permission_denied", 4),
    "PGRST301": ("key_refused", 4),
    "PGRST302": ("key_refused", 4),
    "PGRST303": ("key_refused", 4),
    "401": ("key_refused", 4),
    "403": ("permission_denied", 4),
    "PGRST202": ("function_missing", 1),
    "PGRST205": ("table_missing", 1),
    "23505": ("already_exists", 1),
    "23503": ("still_in_use", 1),
    "23503 not present": ("reference_unknown", 2),
    "23514": ("value_refused", 2),
    "22P02": ("value_refused", 2),
    "22007": ("value_refused", 2),
    "23502": ("value_missing", 2),
    "57014": ("took_too_long", 1),
}
#: PTnnn is raised by our own SQL and stands for HTTP nnn.
_PT_EXIT_CODES = {"PT400": 2, "PT401": 4, "PT403": 4, "PT404": 5}
_KIND = re.compile(r"[a-z][a-z0-9_]+")
# Our constraints are named as sentences.
_CONSTRAINT = re.compile(
    r'violates (?:check|unique) constraint "([^"]* [^"]*)"|unique constraint "([^"]* [^"]*)"'
)
_KEY_HINT = (
    "Sign in as a person whose rank allows it (see: fleetctl whoami), "
    "or use the project's secret key (sb_secret_…) in --key or FLEET_KEY."
)
_MIGRATION_HINT = "Apply this version's migrations: fleetctl migrate, or fleetctl up for the embedded stack."
_HINTS = {
    "key_refused": _KEY_HINT,
    "permission_denied": _KEY_HINT,
    "function_missing": _MIGRATION_HINT,
    "table_missing": _MIGRATION_HINT,
}


@contextmanager
def translated(api_url: str) -> Iterator[None]:
    """Turn what the library or the network raises within into a FleetctlError."""
    try:
        yield
    except APIError as error:
        raise _from_rest(error) from error
    except httpx.TimeoutException as error:
        raise FleetctlError(
            "timed_out", f"{api_url} did not answer within {TIMEOUT_S} s.", hint=_ATTEMPT_HINT, exit_code=3
        ) from error
    except httpx.HTTPError as error:
        raise FleetctlError(
            "unreachable", f"{api_url} cannot be reached: {error}.", hint=_ATTEMPT_HINT, exit_code=3
        ) from error


def from_auth(email: str, status: int, answer: Mapping[str, object]) -> FleetctlError:
    code = str(answer.get("error_code") or answer.get("code") or "")
    said = str(answer.get("msg") or answer.get("message") or f"Auth answered {status}.")
    if code in ("email_exists", "user_already_exists") or "already" in said.lower():
        return FleetctlError(
            "user_exists",
            f"Auth already has a user {email}, with another password.",
            hint="Give that password with --password, or the user's id with --user-id.",
        )
    if code == "signup_disabled":
        return FleetctlError(
            "key_refused",
            f"Only the project's secret key can create a user, and Auth has none for {email}.",
            hint="Use the secret key (sb_secret_…) in --key or FLEET_KEY, or create the user in Supabase "
            "Auth and give its id with --user-id.",
            exit_code=4,
        )
    if code == "weak_password" or "password" in said.lower():
        return FleetctlError("password_refused", said, hint="Choose another --password.", exit_code=2)
    if status in (HTTPStatus.UNAUTHORIZED, HTTPStatus.FORBIDDEN):
        return FleetctlError("key_refused", said, hint=_HINTS["key_refused"], exit_code=4)
    return FleetctlError("auth_failed", f"{email}: {said}")


def _from_rest(error: APIError) -> FleetctlError:
    code = str(error.code or "")
    message = str(error.message or "The control plane refused the request.")
    details = str(error.details or "")
    if code.startswith("PT"):
        kind = details if _KIND.fullmatch(details) else "refused"
        return FleetctlError(kind, message, hint=error.hint or "", exit_code=_PT_EXIT_CODES.get(code, 1))
    kind, exit_code = _CODES.get(_cause(code, message, details), ("refused", 1))
    sentence = _sentence(code, message, details)
    return FleetctlError(kind, sentence, hint=_HINTS.get(kind, error.hint or ""), exit_code=exit_code)


def _cause(code: str, message: str, details: str) -> str:
    """The key into `_CODES`, which the code alone does not always tell."""
    if re.search(r"invalid api key|no api key|invalid authentication", message, re.IGNORECASE):
        return "401"
    # Two ways to break a foreign key: to name what is not there, or to remove what is named.
    if code == "23503" and "not present" in details:
        return "23503 not present"
    return code


def _sentence(code: str, message: str, details: str) -> str:
    """What the database said, as a sentence."""
    if named := _CONSTRAINT.search(message):
        message = named.group(1) or named.group(2)
    elif code in ("23505", "23503") and details:
        message = details  # Key (name)=(kitchen) already exists.
    # A column's name stays as it is spelt.
    if "_" not in message.split(" ", 1)[0]:
        message = message[0].upper() + message[1:]
    return message if message.endswith(".") else f"{message}."
