"""The control plane as fleetctl sees it: Supabase's own client with the project's secret key.

Every foreign exception becomes a FleetctlError here. What the database refuses in words keeps its words: our
functions and triggers raise a sentence, a stable kind (`details`) and a hint.
"""

from __future__ import annotations

import os
import re
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from http import HTTPStatus
from pathlib import Path
from typing import Any
from uuid import UUID

import httpx
from postgrest.exceptions import APIError
from supabase import Client, ClientOptions, create_client

from fleetctl.errors import FleetctlError

Row = dict[str, Any]
#: Narrows a request: `lambda q: q.eq("state", "active")`. The builder's type is the library's business.
Narrow = Callable[[Any], Any]

#: What PostgREST answers at most in one go on hosted projects.
PAGE = 1000
#: Ids in one URL: 100 UUIDs are 3.7 kB, which every proxy takes.
BATCH = 100
_TIMEOUT_S = 30
_ATTEMPT_HINT = "Is the stack up? fleetctl status. Elsewhere: check --api-url and the network."


@dataclass(frozen=True)
class Target:
    """Where the control plane is, and who asks: the secret key, or a person. `repr` leaves secrets out."""

    api_url: str
    key: str
    token: str | None = None
    email: str | None = None
    user_id: str | None = None

    def __repr__(self) -> str:
        return f"Target({self.api_url!r})"

    @classmethod
    def find(cls, data: Path, api_url: str | None, key: str | None) -> Target:
        """From the flags, else FLEET_API_URL and FLEET_KEY, else who is signed in, else the stack in `data`.

        Raises FleetctlError: `not_running`, `target_incomplete` when an address comes without a key, and what
        `session.current` raises.
        """
        api_url = api_url or os.environ.get("FLEET_API_URL")
        key = key or os.environ.get("FLEET_KEY")
        if api_url and key:
            return cls(api_url.rstrip("/"), key)
        if key is None and (person := cls._person(api_url)):
            return person
        if api_url or (key and not data.exists()):
            raise FleetctlError(
                "target_incomplete",
                "An address needs its secret key, and a key its address.",
                hint="Give --api-url and --key, set FLEET_API_URL and FLEET_KEY, or sign in: fleetctl login.",
                exit_code=2,
            )
        from fleetctl.stack.local_stack import LocalStack

        stack = LocalStack.find(data)
        return cls(stack.api_url, key or stack.secret_key)

    @classmethod
    def _person(cls, api_url: str | None) -> Target | None:
        """Who is signed in, at that address where one is given."""
        from fleetctl.client import session

        found = session.current()
        if found is None or (api_url and api_url.rstrip("/") != found.api_url):
            return None
        return cls(found.api_url, found.publishable_key, found.access_token, found.email, found.user_id)


class Api:
    """Rows in, rows out; every failure is a FleetctlError with an exit code."""

    def __init__(self, target: Target) -> None:
        self.target = target
        # Redirects are not followed: what redirects an API call is not the API.
        self._http = httpx.Client(timeout=_TIMEOUT_S, http2=True)
        with _translated(target.api_url):
            options = ClientOptions(
                auto_refresh_token=False,
                persist_session=False,
                httpx_client=self._http,
                # Seven seconds of silent retries are the agent's way, not a person's at a terminal.
                postgrest_client_retry=False,
            )
            self._client: Client = create_client(target.api_url, target.key, options=options)
            if target.token is not None:
                self._client.postgrest.auth(target.token)

    def rows(
        self,
        table: str,
        narrow: Narrow = lambda query: query,
        *,
        select: str = "*",
        order: str,
        newest_first: bool = False,
        limit: int | None = None,
    ) -> list[Row]:
        """Every matching row (or the first `limit`), page by page, in a stable order: `order` must be unique
        or have ties that nobody minds to see twice while rows are added."""
        found: list[Row] = []
        while limit is None or len(found) < limit:
            page = PAGE if limit is None else min(PAGE, limit - len(found))
            query = narrow(self._client.table(table).select(select))
            query = query.order(order, desc=newest_first).range(len(found), len(found) + page - 1)
            got = self._run(query)
            found += got
            if len(got) < page:
                break
        return found

    def rows_of(
        self, table: str, column: str, values: Sequence[str], *, select: str = "*", order: str
    ) -> list[Row]:
        """The rows whose `column` is one of `values`, asked for in batches that fit a URL."""
        found: list[Row] = []
        for start in range(0, len(values), BATCH):
            part = values[start : start + BATCH]
            found += self.rows(table, _is_one_of(column, part), select=select, order=order)
        return found

    def settings(self) -> Row:
        """The fleet settings, which every operator may read. Raises FleetctlError `no_operator`."""
        rows = self.rows("fleet_settings", order="id", limit=1)
        if not rows:
            raise FleetctlError(
                "no_operator",
                f"{self.target.email or 'This key'} is no operator of this fleet.",
                hint="An admin lets people in with fleetctl operator add.",
                exit_code=4,
            )
        return rows[0]

    def insert(self, table: str, row: Mapping[str, Any]) -> Row:
        """Insert one row; returns it as the database made it."""
        return _only(self._run(self._client.table(table).insert(dict(row))))

    def update(self, table: str, change: Mapping[str, Any], narrow: Narrow) -> list[Row]:
        """Change the matching rows; returns them. Always narrowed: nothing here changes a whole table."""
        return self._run(narrow(self._client.table(table).update(dict(change))))

    def delete(self, table: str, narrow: Narrow) -> list[Row]:
        return self._run(narrow(self._client.table(table).delete()))

    def rpc(self, function: str, **arguments: Any) -> Any:
        """Call a SQL function by name; arguments left out take their defaults."""
        with _translated(self.target.api_url):
            return self._client.rpc(function, arguments).execute().data

    def make_user(self, email: str, password: str) -> UUID:
        """Make a Supabase Auth user whose address counts as confirmed; returns its id.

        A user who exists already and has this very password is taken as made. Plain requests: the library
        cannot parse the sessions of the embedded stack's Auth. Raises FleetctlError `user_exists`,
        `password_refused`, `auth_failed`.
        """
        person = {"email": email, "password": password}
        status, answer = self._auth("admin/users", {**person, "email_confirm": True})
        # The embedded stack's Auth has no admin interface and answers as for an unknown user; there sign-up
        # is open and confirms at once. A wrong key is refused by either.
        if status in (401, 403, 404, 405):
            status, answer = self._auth("signup", person)
        if status == HTTPStatus.UNPROCESSABLE_ENTITY and "weak" not in str(answer.get("error_code")):
            known, session = self._auth("token?grant_type=password", person)
            if known == HTTPStatus.OK:
                status, answer = known, session
        if status >= HTTPStatus.BAD_REQUEST:
            raise _from_auth(email, status, answer)
        try:
            return UUID((answer.get("user") or answer)["id"])
        except (KeyError, TypeError, ValueError) as error:
            raise FleetctlError("bad_answer", f"Auth made no user for {email} that has an id.") from error

    def _auth(self, path: str, body: Mapping[str, Any]) -> tuple[int, Row]:
        key = self.target.key
        headers = {"apikey": key, "Authorization": f"Bearer {self.target.token or key}"}
        with _translated(self.target.api_url):
            answer = self._http.post(f"{self.target.api_url}/auth/v1/{path}", json=body, headers=headers)
        try:
            parsed = answer.json()
        except ValueError:
            parsed = {}
        return answer.status_code, parsed if isinstance(parsed, dict) else {}

    def _run(self, query: Any) -> list[Row]:
        with _translated(self.target.api_url):
            data = query.execute().data
        return list(data or [])


def _is_one_of(column: str, values: Sequence[str]) -> Narrow:
    return lambda query: query.in_(column, list(values))


def _only(rows: list[Row]) -> Row:
    if len(rows) != 1:
        raise FleetctlError("bad_answer", f"The control plane answered {len(rows)} rows where one was due.")
    return rows[0]


@contextmanager
def _translated(api_url: str) -> Iterator[None]:
    try:
        yield
    except APIError as error:
        raise _from_rest(error) from error
    except httpx.TimeoutException as error:
        raise FleetctlError(
            "timed_out", f"{api_url} did not answer within {_TIMEOUT_S} s.", hint=_ATTEMPT_HINT, exit_code=3
        ) from error
    except httpx.HTTPError as error:
        raise FleetctlError(
            "unreachable", f"{api_url} cannot be reached: {error}.", hint=_ATTEMPT_HINT, exit_code=3
        ) from error


#: SQLSTATE or PostgREST code -> kind and exit code, where the database did not name a kind itself.
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
    "It needs a person whose rank allows it (fleetctl whoami), "
    "or the project's secret key (sb_secret_…): --key or FLEET_KEY."
)
_HINTS = {
    "key_refused": _KEY_HINT,
    "permission_denied": _KEY_HINT,
    "function_missing": "The database lacks migrations of this version: fleetctl up, or supabase db push.",
    "table_missing": "The database lacks migrations of this version: fleetctl up, or supabase db push.",
}


def _from_rest(error: APIError) -> FleetctlError:
    code = str(error.code or "")
    message = str(error.message or "The control plane refused.")
    if code.startswith("PT"):
        kind = error.details if error.details and _KIND.fullmatch(error.details) else "refused"
        return FleetctlError(kind, message, hint=error.hint or "", exit_code=_PT_EXIT_CODES.get(code, 1))
    if re.search(r"invalid api key|no api key|invalid authentication", message, re.IGNORECASE):
        code = "401"
    # Two ways to break a foreign key: to name what is not there, or to remove what is named.
    if code == "23503" and "not present" in (error.details or ""):
        code = "23503 not present"
    kind, exit_code = _CODES.get(code, ("refused", 1))
    if sentence := _CONSTRAINT.search(message):
        message = sentence.group(1) or sentence.group(2)
    elif code.startswith(("23505", "23503")) and error.details:
        message = error.details  # Key (name)=(kitchen) already exists.
    # A column's name stays as it is spelt.
    if "_" not in message.split(" ", 1)[0]:
        message = message[0].upper() + message[1:]
    if not message.endswith("."):
        message += "."
    return FleetctlError(kind, message, hint=_HINTS.get(kind, error.hint or ""), exit_code=exit_code)


def _from_auth(email: str, status: int, answer: Row) -> FleetctlError:
    code = str(answer.get("error_code") or answer.get("code") or "")
    said = str(answer.get("msg") or answer.get("message") or f"Auth answered {status}.")
    if code in ("email_exists", "user_already_exists") or "already" in said.lower():
        return FleetctlError(
            "user_exists",
            f"Auth has a user {email} already, with another password.",
            hint="Give their --password, or their id with --user-id.",
        )
    if code == "weak_password" or "password" in said.lower():
        return FleetctlError("password_refused", said, hint="Give another --password.", exit_code=2)
    if status in (HTTPStatus.UNAUTHORIZED, HTTPStatus.FORBIDDEN):
        return FleetctlError("key_refused", said, hint=_HINTS["key_refused"], exit_code=4)
    return FleetctlError("auth_failed", f"{email}: {said}")
