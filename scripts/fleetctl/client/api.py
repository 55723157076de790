"""The control plane by Supabase's own client: with the project's secret key, or in a person's name."""

from __future__ import annotations

import ssl
from collections.abc import Mapping, Sequence
from functools import cache
from http import HTTPStatus
from typing import Any
from uuid import UUID

import httpx
from supabase import Client, ClientOptions, create_client

from fleetctl.client.api_errors import TIMEOUT_S, from_auth, translated
from fleetctl.client.query import Narrow, Row, batches, every_row, is_one_of
from fleetctl.client.target import Target
from fleetctl.errors import FleetctlError, not_changed

#: What PostgREST answers at most in one go on hosted projects.
PAGE = 1000


class Api:
    """Rows in, rows out; every failure is a FleetctlError with an exit code."""

    def __init__(self, target: Target) -> None:
        self.target = target
        # Redirects are not followed: what redirects an API call is not the API.
        self._http = httpx.Client(timeout=TIMEOUT_S, http2=True, verify=_trusted())
        with translated(target.api_url):
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
        self._reads_the_fleet = target.token is None

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
        """Every matching row (or the first `limit`), page by page, in a stable order: `order` must be unique
        or ties may be returned twice while rows are being added.

        Raises FleetctlError `not_an_operator` for a person from whom row-level security hides everything.
        """
        found: list[Row] = []
        while limit is None or len(found) < limit:
            page = PAGE if limit is None else min(PAGE, limit - len(found))
            query = narrow(self._client.table(table).select(select))
            query = query.order(order, desc=newest_first).range(len(found), len(found) + page - 1)
            got = self._run(query)
            found += got
            if len(got) < page:
                break
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

    def settings(self) -> Row:
        """The fleet settings, which every operator may read. Raises FleetctlError `not_an_operator`."""
        rows = self._run(self._client.table("fleet_settings").select("*").limit(1))
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
        return _only(self._run(self._client.table(table).insert(dict(row))))

    def update(self, table: str, change: Mapping[str, Any], narrow: Narrow) -> list[Row]:
        """Change the matching rows; returns them. Always narrowed: nothing here changes a whole table.

        Raises FleetctlError `not_changed` if there is no such row.
        """
        return self._some(table, self._run(narrow(self._client.table(table).update(dict(change)))))

    def delete(self, table: str, narrow: Narrow) -> list[Row]:
        """Delete the matching rows; returns them. Raises FleetctlError `not_changed`."""
        return self._some(table, self._run(narrow(self._client.table(table).delete())))

    def rpc(self, function: str, **arguments: Any) -> Any:
        """Call a SQL function by name; arguments left out take their defaults."""
        with translated(self.target.api_url):
            answer = self._client.rpc(function, arguments).execute().data
        if not answer:
            self._refuse_a_stranger()
        return answer

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
        key = self.target.key
        headers = {"apikey": key, "Authorization": f"Bearer {self.target.token or key}"}
        with translated(self.target.api_url):
            answer = self._http.post(f"{self.target.api_url}/auth/v1/{path}", json=body, headers=headers)
        try:
            parsed = answer.json()
        except ValueError:
            parsed = {}
        return answer.status_code, parsed if isinstance(parsed, dict) else {}

    def require_rank_to_write(self, table: str, key: str) -> None:
        """Have `table` refuse a person whose rank is too low, before something else is done.

        The change itself is of no row: `key` is never empty.
        """
        self._run(self._client.table(table).update({key: None}).is_(key, "null"))

    def _some(self, table: str, rows: list[Row]) -> list[Row]:
        """`rows`, if there are any: a change of nothing must not pass for one that was made."""
        if not rows:
            self._refuse_a_stranger()
            raise not_changed(f"Nothing was changed: what this is about is not in {table} any more.")
        return rows

    def _run(self, query: Any) -> list[Row]:
        with translated(self.target.api_url):
            data = query.execute().data
        return list(data or [])


@cache
def _trusted() -> ssl.SSLContext:
    """The certificates that count; reading them takes longer than most requests."""
    return httpx.create_ssl_context()


def _only(rows: list[Row]) -> Row:
    if len(rows) != 1:
        raise FleetctlError("bad_answer", f"The control plane returned {len(rows)} rows instead of one.")
    return rows[0]
