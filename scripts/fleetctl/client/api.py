"""The control plane by plain requests: with the project's secret key, or in a person's name.

Supabase's own client takes three times as long to load as all of fleetctl, so it is not used here.
"""

from __future__ import annotations

import contextlib
import ssl
import time
from collections.abc import Mapping, Sequence
from functools import cache
from http import HTTPStatus
from typing import Any
from uuid import UUID

import httpx

from fleetctl.client.api_errors import (
    TIMEOUT_S,
    OutageError,
    UnknownReferenceError,
    from_auth,
    from_rest,
    translated,
)
from fleetctl.client.query import PAGE, Narrow, Query, Row, batches, every_row, is_one_of
from fleetctl.client.target import Target
from fleetctl.errors import FleetctlError, not_changed

#: Waits between the tries of a request that may be repeated, unless the answer asks for longer.
PAUSES_S = (0.5, 2.0)
_LONGEST_PAUSE_S = 10.0


class Api:
    """Rows in, rows out; every failure is a FleetctlError with an exit code."""

    def __init__(self, target: Target) -> None:
        self.target = target
        headers = {"apikey": target.key, "Authorization": f"Bearer {target.token or target.key}"}
        # Redirects are not followed: what redirects an API call is not the API.
        with translated(target.api_url):
            # Certificates are read only if there are any to check.
            verify = _trusted() if target.api_url.startswith("https:") else False
            self._http = httpx.Client(timeout=TIMEOUT_S, headers=headers, verify=verify)
        self._reads_the_fleet = target.token is None
        #: Rows that were changed, and whether a change was sent whose answer is not there yet.
        self.written = 0
        self.writing = False

    def rows(
        self,
        table: str,
        narrow: Narrow = every_row,
        *,
        select: str = "*",
        order: str,
        newest_first: bool = False,
        limit: int | None = None,
    ) -> list[Row]:
        """Every matching row (or the first `limit`), page by page.

        `order` names columns that are unique together: rows with the same place may come twice or never.
        Raises FleetctlError `not_an_operator` for a person from whom row-level security hides everything.
        """
        direction = ".desc" if newest_first else ""
        asked = [
            ("select", select),
            ("order", ",".join(f"{column}{direction}" for column in order.split(","))),
            *narrow(Query()).parameters,
        ]
        found = self._pages("GET", table, asked, limit=limit)
        if not found:
            self._refuse_a_stranger()
        return found

    def rows_of(
        self, table: str, column: str, values: Sequence[str], *, select: str = "*", order: str
    ) -> list[Row]:
        """The rows whose `column` is one of `values`, asked for in batches that fit a URL."""
        found: list[Row] = []
        for part in batches(values):
            found += self.rows(table, is_one_of(column, part), select=select, order=order)
        return found

    def count(self, table: str, narrow: Narrow = every_row) -> int:
        """How many rows match, counted by the database."""
        asked = [*narrow(Query()).parameters, ("limit", "1")]
        answer = self._send("GET", table, asked, headers={"Prefer": "count=exact"}, repeatable=True)
        total = answer.headers.get("content-range", "").rpartition("/")[2]
        if not total.isdecimal():
            raise FleetctlError("bad_answer", f"{self.target.api_url} did not count {table}.")
        return int(total)

    def settings(self) -> Row:
        """The fleet settings, which every operator may read. Raises FleetctlError `not_an_operator`."""
        rows = self._pages("GET", "fleet_settings", [("select", "*")], limit=1)
        if not rows:
            raise FleetctlError(
                "not_an_operator",
                f"{self.target.email or 'This key'} is not an operator of this fleet.",
                hint="Ask an admin to run fleetctl operator add.",
                exit_code=4,
            )
        self._reads_the_fleet = True
        return rows[0]

    def _refuse_a_stranger(self) -> None:
        """Nothing was found. Whoever is signed in without a rank finds nothing anywhere, and is told why."""
        if not self._reads_the_fleet:
            self.settings()

    def insert(self, table: str, row: Mapping[str, Any]) -> Row:
        """Insert one row; returns it as the database made it."""
        return _only(self._write("POST", table, [], row))

    def update(self, table: str, change: Mapping[str, Any], narrow: Narrow) -> list[Row]:
        """Change the matching rows; returns them. Always narrowed: nothing here changes a whole table.

        Raises FleetctlError `not_changed` if there is no such row.
        """
        # The same values twice are the same row.
        changed = self._write("PATCH", table, narrow(Query()).parameters, change, repeatable=True)
        return self._some(table, changed)

    def delete(self, table: str, narrow: Narrow) -> list[Row]:
        """Delete the matching rows; returns them. Raises FleetctlError `not_changed`."""
        return self._some(table, self._write("DELETE", table, narrow(Query()).parameters, None))

    def rpc(self, function: str, **arguments: Any) -> Any:
        """Call a SQL function by name; arguments left out take their defaults."""
        self.writing = True
        answer = _json(self._send("POST", f"rpc/{function}", [], body=arguments))
        self.writing = False
        self.written += 1
        return self._told(answer)

    def ask(self, function: str, **arguments: Any) -> Any:
        """The same for a function that changes nothing, so that it may be asked again."""
        return self._told(_json(self._send("POST", f"rpc/{function}", [], body=arguments, repeatable=True)))

    def ask_rows(self, function: str, *, order: str, **arguments: Any) -> list[Row]:
        """Every row of a function that changes nothing, page by page; `order` as in `rows`."""
        rows: list[Row] = self._told(
            self._pages("POST", f"rpc/{function}", [("order", order)], body=arguments)
        )
        return rows

    def _told(self, answer: Any) -> Any:
        if not answer:
            self._refuse_a_stranger()
        return answer

    def require_rank_to_write(self, table: str, key: str) -> None:
        """Have `table` refuse a person whose rank is too low, before something else is done.

        The change itself is of no row: `key` is never empty.
        """
        self._write("PATCH", table, Query().is_null(key).parameters, {key: None}, repeatable=True)

    def _some(self, table: str, rows: list[Row]) -> list[Row]:
        """`rows`, if there are any: a change of nothing must not pass for one that was made."""
        if not rows:
            self._refuse_a_stranger()
            raise not_changed(f"Nothing was changed: what this is about is not in {table} any more.")
        return rows

    def make_user(self, email: str, password: str) -> UUID:
        """Make a Supabase Auth user whose address counts as confirmed; returns its id.

        A user who exists already and has this very password is taken as made. Raises FleetctlError
        `user_exists`, `password_refused`, `auth_failed`.
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
            raise from_auth(email, status, answer)
        try:
            return UUID((answer.get("user") or answer)["id"])
        except (KeyError, TypeError, ValueError) as error:
            raise FleetctlError("bad_answer", f"Auth returned no user id for {email}.") from error

    def _auth(self, path: str, body: Mapping[str, Any]) -> tuple[int, Row]:
        with translated(self.target.api_url):
            answer = self._http.post(f"{self.target.api_url}/auth/v1/{path}", json=body)
        try:
            parsed = answer.json()
        except ValueError:
            parsed = {}
        return answer.status_code, parsed if isinstance(parsed, dict) else {}

    def _pages(
        self,
        method: str,
        path: str,
        asked: Sequence[tuple[str, str]],
        *,
        body: Mapping[str, Any] | None = None,
        limit: int | None = None,
    ) -> list[Row]:
        found: list[Row] = []
        while limit is None or len(found) < limit:
            page = PAGE if limit is None else min(PAGE, limit - len(found))
            part = [*asked, ("limit", str(page)), ("offset", str(len(found)))]
            got = _rows(self._send(method, path, part, body=body, repeatable=True))
            found += got
            if len(got) < page:
                break
        return found

    def _list_known(self, error: UnknownReferenceError) -> None:
        """Add the names that there are, if the table has any."""
        with contextlib.suppress(FleetctlError):
            rows = self._pages("GET", error.table, [("select", "name"), ("order", "name")], limit=20)
            error.message += f" Known: {', '.join(row['name'] for row in rows)}." if rows else ""

    def _write(
        self,
        method: str,
        table: str,
        asked: Sequence[tuple[str, str]],
        body: Mapping[str, Any] | None,
        *,
        repeatable: bool = False,
    ) -> list[Row]:
        headers = {"Prefer": "return=representation"}
        self.writing = True
        rows = _rows(self._send(method, table, asked, body=body, headers=headers, repeatable=repeatable))
        self.writing = False
        self.written += len(rows)
        return rows

    def _send(
        self,
        method: str,
        path: str,
        asked: Sequence[tuple[str, str]],
        *,
        body: Mapping[str, Any] | None = None,
        headers: Mapping[str, str] | None = None,
        repeatable: bool = False,
    ) -> httpx.Response:
        """One request, up to three times if the control plane is out and repeating it does no harm."""
        url = f"{self.target.api_url}/rest/v1/{path}"
        pauses = list(PAUSES_S) if repeatable else []
        while True:
            with translated(self.target.api_url):
                answer = self._http.request(
                    method,
                    url,
                    params=list(asked),
                    json=None if body is None else dict(body),
                    headers=headers,
                )
            if answer.is_success:
                return answer
            error = from_rest(self.target.api_url, answer, repeatable=repeatable)
            if isinstance(error, UnknownReferenceError):
                self._list_known(error)
            if not (isinstance(error, OutageError) and pauses):
                raise error
            time.sleep(min(_LONGEST_PAUSE_S, max(pauses.pop(0), error.retry_after_s)))


@cache
def _trusted() -> ssl.SSLContext:
    """The certificates that count; reading them takes longer than most requests."""
    return httpx.create_ssl_context()


def _json(answer: httpx.Response) -> Any:
    if not answer.content:
        return None
    try:
        return answer.json()
    except ValueError as error:
        raise FleetctlError("bad_answer", f"{answer.url.host} did not answer with JSON.") from error


def _rows(answer: httpx.Response) -> list[Row]:
    rows = _json(answer)
    if rows is None:
        return []
    if not isinstance(rows, list):
        raise FleetctlError("bad_answer", f"{answer.url.host} did not answer with rows.")
    return rows


def _only(rows: list[Row]) -> Row:
    if len(rows) != 1:
        raise FleetctlError("bad_answer", f"The control plane returned {len(rows)} rows instead of one.")
    return rows[0]
