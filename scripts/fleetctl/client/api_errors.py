"""Every foreign exception of the control plane as a FleetctlError.

What the database refuses in words keeps its words: our functions and triggers raise a sentence, a stable kind
(`details`) and a hint. What PostgreSQL or PostgREST say themselves is told in our words.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from http import HTTPStatus

import httpx

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
    "42883": ("function_missing", 1),
    "PGRST204": ("column_missing", 1),
    "42703": ("column_missing", 1),
    "PGRST205": ("table_missing", 1),
    "42P01": ("table_missing", 1),
    "23505": ("already_exists", 1),
    "23503": ("still_in_use", 1),
    "23503 not present": ("reference_unknown", 2),
    "23514": ("value_refused", 2),
    "22P02": ("value_refused", 2),
    "22P05": ("value_refused", 2),
    "22001": ("value_refused", 2),
    "22003": ("value_refused", 2),
    "22007": ("value_refused", 2),
    "22008": ("value_refused", 2),
    "22021": ("value_refused", 2),
    "22023": ("value_refused", 2),
    "23502": ("value_missing", 2),
    "40001": ("took_too_long", 1),
    "40P01": ("took_too_long", 1),
    "55P03": ("took_too_long", 1),
    "57014": ("took_too_long", 1),
}
#: OutageErrors -> what does not work. PostgREST's own, then those of the database that a gateway passes on.
_OUTAGES = {
    "PGRST000": "its API cannot connect to the database",
    "PGRST001": "its API cannot connect to the database",
    "PGRST002": "its API is still reading the schema of the database",
    "PGRST003": "all connections of its API to the database are busy",
    "57P01": "its database is shutting down",
    "57P02": "its database is shutting down",
    "57P03": "its database is starting",
    "53300": "all connections of its database are busy",
    # What the driver of the embedded stack says.
    **dict.fromkeys(
        (
            "CONNECTION_CLOSED",
            "CONNECTION_ENDED",
            "CONNECTION_DESTROYED",
            "CONNECT_TIMEOUT",
            "ECONNREFUSED",
            "ECONNRESET",
        ),
        "its API cannot connect to the database",
    ),
}
_OUT_OF_ORDER = (HTTPStatus.BAD_GATEWAY, HTTPStatus.SERVICE_UNAVAILABLE, HTTPStatus.GATEWAY_TIMEOUT)
#: PTnnn is raised by our own SQL and stands for HTTP nnn.
_PT_EXIT_CODES = {"PT400": 2, "PT401": 4, "PT403": 4, "PT404": 5}
_KIND = re.compile(r"[a-z][a-z0-9_]+")
# Our constraints are named as sentences.
_CONSTRAINT = re.compile(
    r'violates (?:check|unique) constraint "([^"]* [^"]*)"|unique constraint "([^"]* [^"]*)"'
)
_KEY_DETAIL = re.compile(r"Key \((?P<columns>.*?)\)=\((?P<values>.*)\) (?P<rest>.*)", re.DOTALL)
_IN_TABLE = re.compile(r'table "([^"]+)"')
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
    "column_missing": _MIGRATION_HINT,
    "took_too_long": "Try again. If it persists, the log of the database has the reason.",
    "refused": "The log of the control plane has the reason.",
}


class OutageError(FleetctlError):
    """The control plane is there and does not work: this passes, unlike a refusal."""

    def __init__(self, message: str, *, hint: str, retry_after_s: float) -> None:
        super().__init__("unavailable", message, hint=hint, exit_code=3)
        self.retry_after_s = retry_after_s


class UnknownReferenceError(FleetctlError):
    """A name that no row of `table` has."""

    def __init__(self, table: str, value: str) -> None:
        super().__init__("reference_unknown", f"There is no {table.removesuffix('s')} {value}.", exit_code=2)
        self.table = table


@contextmanager
def translated(api_url: str) -> Iterator[None]:
    """Turn what the library or the network raises within into a FleetctlError."""
    try:
        yield
    except httpx.TimeoutException as error:
        raise FleetctlError(
            "timed_out", f"{api_url} did not answer within {TIMEOUT_S} s.", hint=_ATTEMPT_HINT, exit_code=3
        ) from error
    except UnicodeError as error:
        raise FleetctlError(
            "value_refused", "A text contains what cannot be stored.", hint="Type it again.", exit_code=2
        ) from error
    except (httpx.HTTPError, httpx.InvalidURL) as error:
        raise FleetctlError(
            "unreachable", f"{api_url} cannot be reached: {error}.", hint=_ATTEMPT_HINT, exit_code=3
        ) from error


def from_auth(email: str, status: int, answer: Mapping[str, object]) -> FleetctlError:
    if status >= HTTPStatus.INTERNAL_SERVER_ERROR:
        return out_of_order(f"Auth answers {status}", done=" Whether the user was created is not known.")
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
    return FleetctlError("auth_failed", f"{email}: {said.rstrip('.')}.")


def from_rest(api_url: str, answer: httpx.Response, *, repeatable: bool) -> FleetctlError:
    """What an answer that is not a success means. `repeatable`: whether it was tried several times."""
    try:
        body = answer.json()
    except ValueError:
        body = None
    said: dict[str, str] = (
        {key: str(value or "") for key, value in body.items()} if isinstance(body, dict) else {}
    )
    code, message, details = said.get("code", ""), said.get("message", ""), said.get("details", "")
    if code.startswith("PT"):
        kind = details if _KIND.fullmatch(details) else "refused"
        return FleetctlError(kind, message, hint=said.get("hint", ""), exit_code=_PT_EXIT_CODES.get(code, 1))
    if code in _OUTAGES or code.startswith("08") or (answer.status_code in _OUT_OF_ORDER and not code):
        return _outage(api_url, answer, code, repeatable=repeatable)
    cause = _cause(code or str(answer.status_code), message, details)
    kind, exit_code = _CODES.get(cause, ("refused", 1))
    if kind == "reference_unknown" and (named := _KEY_DETAIL.search(details)):
        table = _IN_TABLE.search(named["rest"])
        return UnknownReferenceError(table.group(1) if table else "row", named["values"])
    return FleetctlError(
        kind, _sentence(api_url, cause, message, details), hint=_HINTS.get(kind, ""), exit_code=exit_code
    )


def _outage(api_url: str, answer: httpx.Response, code: str, *, repeatable: bool) -> OutageError:
    what = _OUTAGES.get(code, f"it answers {answer.status_code}")
    done = "" if repeatable else " Whether the change was made is not known."
    asked = answer.headers.get("retry-after", "")
    return out_of_order(
        f"{api_url} is not available: {what}",
        done=done,
        retry_after_s=float(asked) if asked.isdecimal() else 0.0,
    )


def out_of_order(what: str, *, done: str = "", retry_after_s: float = 0.0) -> OutageError:
    """`unavailable`. `done`: what may have been done nevertheless."""
    return OutageError(
        f"{what}.{done}",
        hint="Try again in a moment. If it persists, see fleetctl status or the status page of the project.",
        retry_after_s=retry_after_s,
    )


def _cause(code: str, message: str, details: str) -> str:
    """The key into `_CODES`, which the code alone does not always tell."""
    if re.search(r"invalid api key|no api key|invalid authentication", message, re.IGNORECASE):
        return "401"
    # Two ways to break a foreign key: to name what is not there, or to remove what is named.
    if code == "23503" and "not present" in details:
        return "23503 not present"
    return code


#: What PostgreSQL says -> what we say; the groups of the first are the blanks of the second.
_SENTENCES: tuple[tuple[re.Pattern[str], str], ...] = tuple(
    (re.compile(pattern, re.DOTALL), sentence)
    for pattern, sentence in (
        (r'invalid input value for enum (?:\w+\.)?(\w+): "(.*)"', '"{1}" is not a valid value of {0}'),
        (r'invalid input syntax for (?:type )?([\w ]+?): "(.*)"', '"{1}" is not a valid {0}'),
        (
            r'(?:field value|displacement) out of range: "(.*)"',
            '"{0}" is not a valid time',
        ),
        (r'value "(.*)" is out of range for type ([\w ]+)', '"{0}" is too large for a value of type {1}'),
        (r"numeric field overflow|([\w ]+) out of range", "A number is too large or too small"),
        (
            r"value too long for type .*?\((\d+)\)",
            "A text is longer than {0} characters",
        ),
        (
            r"(?:invalid byte sequence|unsupported Unicode).*",
            "A text contains what cannot be stored",
        ),
        (r'null value in column "([^"]+)".*', "{0} needs a value"),
        (r'new row violates row-level security policy for table "([^"]+)"', "You may not write to {0}"),
        (r"permission denied for (\w+) (\w+)", "You may not use the {0} {1}"),
        (r'violates check constraint "([^"]+)"', "A value breaks the rule {0}"),
        (r"deadlock detected|could not serialize|lock timeout", "Another change was in progress"),
        (r"canceling statement due to lock timeout", "Another change was in progress"),
        (r"canceling statement.*", "The database needed too long and stopped"),
        (
            r"Could not find the function (?:public\.)?(\w+).*",
            "There is no function {0} here",
        ),
        (r"function (?:public\.)?(\w+).* does not exist", "There is no function {0} here"),
        (r"Could not find the table '(?:public\.)?(\w+)'.*", "There is no table {0} here"),
        (r'relation "(?:public\.)?(\w+)" does not exist', "There is no table {0} here"),
        (r"Could not find the '(\w+)' column of '(\w+)'.*", "{1} has no column {0}"),
        (r'column "?(?:\w+\.)?(\w+)"? (?:of relation "\w+" )?does not exist', "There is no column {0}"),
    )
)


def _sentence(api_url: str, cause: str, message: str, details: str) -> str:
    """What happened, in words that are not PostgreSQL's own."""
    if named := _CONSTRAINT.search(message):
        return _ended(named.group(1) or named.group(2))
    if key := _KEY_DETAIL.search(details):
        what = f"{key['columns']} {key['values']}"
        if cause == "23505":
            return f"There is already one with {what}."
        table = _IN_TABLE.search(key["rest"])
        return f"{key['values']} is still used by {table.group(1) if table else 'another row'}."
    for pattern, sentence in _SENTENCES:
        if found := pattern.search(message):
            return _ended(sentence.format(*found.groups()))
    # Of Auth, of the gateway, or raised by our own SQL without a kind.
    if cause in ("P0001", "401", "403") or _CODES.get(cause, ("",))[0] == "key_refused":
        return _ended(message or "The key was refused.")
    return f"{api_url} refused the request ({cause})."


def _ended(text: str) -> str:
    """As a sentence; a column's name stays as it is spelt."""
    if "_" not in text.split(" ", 1)[0]:
        text = text[0].upper() + text[1:]
    return text if text.endswith(".") else f"{text}."
