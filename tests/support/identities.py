"""The people and machines of the access tests, and how each of them reaches the database.

API callers log in as `authenticator` and switch role for one transaction, as PostgREST does.
"""

from __future__ import annotations

import json
from dataclasses import dataclass, field
from typing import Any
from uuid import UUID

import psycopg

from tests.support.cluster import Cluster, type_of_connection

Row = tuple[Any, ...]

DEVICE = UUID("00000000-0000-4000-8000-0000000000d1")
OTHER = UUID("00000000-0000-4000-8000-0000000000d2")
SUSPENDED = UUID("00000000-0000-4000-8000-0000000000d3")
PENDING = UUID("00000000-0000-4000-8000-0000000000d4")
RETIRED = UUID("00000000-0000-4000-8000-0000000000d5")
VIEWER = UUID("00000000-0000-4000-8000-0000000000a1")
OPERATOR = UUID("00000000-0000-4000-8000-0000000000a2")
ADMIN = UUID("00000000-0000-4000-8000-0000000000a3")
STRANGER = UUID("00000000-0000-4000-8000-0000000000a4")
V1 = UUID("00000000-0000-4000-8000-000000000001")
V2 = UUID("00000000-0000-4000-8000-000000000002")
STAGED = UUID("00000000-0000-4000-8000-000000000003")

# Who: database role and the token's claims.
WHO: dict[str, tuple[str, dict[str, Any]]] = {
    "device": ("fleet_device", {"role": "fleet_device", "sub": str(DEVICE)}),
    "other device": ("fleet_device", {"role": "fleet_device", "sub": str(OTHER)}),
    "suspended device": ("fleet_device", {"role": "fleet_device", "sub": str(SUSPENDED)}),
    "pending device": ("fleet_device", {"role": "fleet_device", "sub": str(PENDING)}),
    "retired device": ("fleet_device", {"role": "fleet_device", "sub": str(RETIRED)}),
    "unknown device": ("fleet_device", {"role": "fleet_device", "sub": str(STRANGER)}),
    "odd device": ("fleet_device", {"role": "fleet_device", "sub": "not a uuid"}),
    "viewer": ("authenticated", {"role": "authenticated", "sub": str(VIEWER), "email": "viewer@example.com"}),
    "operator": (
        "authenticated",
        {"role": "authenticated", "sub": str(OPERATOR), "email": "operator@example.com"},
    ),
    "admin": ("authenticated", {"role": "authenticated", "sub": str(ADMIN), "email": "admin@example.com"}),
    "stranger": ("authenticated", {"role": "authenticated", "sub": str(STRANGER)}),
    "anon": ("anon", {"role": "anon"}),
    "service": ("service_role", {"role": "service_role"}),
}

CAST_SQL = f"""
insert into public.operators (user_id, email, rank) values
  ('{VIEWER}', 'viewer@example.com', 'viewer'),
  ('{OPERATOR}', 'operator@example.com', 'operator'),
  ('{ADMIN}', 'admin@example.com', 'admin');
update public.branches set delivery = 'immediate' where true;
insert into public.releases (id, commit_sha, branch, version, created_at) values
  ('{V1}', repeat('1', 40), 'main', 'v1', '2026-01-01Z'),
  ('{V2}', repeat('2', 40), 'main', 'v2', '2026-02-01Z'),
  ('{STAGED}', repeat('3', 40), 'staging', 's1', '2026-01-01Z');
insert into public.devices (id, name, role, segment, branch, state, public_key) values
  ('{DEVICE}', 'device', 'beacon', 'canary', 'main', 'active', repeat('d', 43)),
  ('{OTHER}', 'other', 'beacon', 'stable', 'main', 'active', repeat('o', 43)),
  ('{SUSPENDED}', 'suspended', 'beacon', 'stable', 'main', 'suspended', repeat('s', 43)),
  ('{PENDING}', 'pending', 'beacon', 'stable', 'main', 'pending', repeat('p', 43)),
  ('{RETIRED}', 'retired', 'beacon', 'stable', 'main', 'retired', repeat('r', 43));
delete from realtime.messages where true;
-- Past the trigger that keeps it.
set session_replication_role = replica;
delete from public.audit_log where true;
set session_replication_role = origin;
"""


@dataclass(frozen=True)
class Refusal:
    """An error as a client sees it."""

    code: str
    message: str
    kind: str
    hint: str


@dataclass
class Fleet:
    """One test's own database."""

    cluster: Cluster
    database: str
    _connections: list[type_of_connection] = field(default_factory=list)
    _admin: type_of_connection | None = None
    _api: type_of_connection | None = None

    def connect(self, user: str = "supabase_admin") -> type_of_connection:
        """Another connection, closed with the test."""
        connection = self.cluster.connect(self.database, user)
        self._connections.append(connection)
        return connection

    @property
    def admin(self) -> type_of_connection:
        if self._admin is None:
            self._admin = self.connect()
        return self._admin

    @property
    def api(self) -> type_of_connection:
        if self._api is None:
            self._api = self.connect("authenticator")
        return self._api

    def sql(self, query: str, *params: object, who: str | None = None) -> list[Row]:
        """Run a statement as `who` in a transaction of its own; None is the superuser, without claims."""
        if who is None:
            cursor = self.admin.execute(query.encode(), params)
            return cursor.fetchall() if cursor.description else []
        with self.api.transaction():
            become(self.api, who)
            cursor = self.api.execute(query.encode(), params)
            return cursor.fetchall() if cursor.description else []

    def one(self, query: str, *params: object, who: str | None = None) -> Any:
        """The first column of the only row."""
        rows = self.sql(query, *params, who=who)
        assert len(rows) == 1, f"{len(rows)} rows: {query}"
        return rows[0][0]

    def refused(self, query: str, *params: object, who: str | None = None) -> Refusal:
        """The refusal that this statement meets; fails when it is allowed."""
        try:
            rows = self.sql(query, *params, who=who)
        except psycopg.Error as error:
            diag = error.diag
            return Refusal(
                diag.sqlstate or "",
                diag.message_primary or "",
                diag.message_detail or "",
                diag.message_hint or "",
            )
        raise AssertionError(f"{who} may: {query} -> {rows}")

    def messages(
        self, topic: str | None = None, event: str | None = None
    ) -> list[tuple[str, str, dict[str, Any]]]:
        """What was sent through Realtime, and forget it."""
        rows = self.sql(
            "with gone as (delete from realtime.messages where true returning *) "
            "select topic, event, payload, private from gone order by inserted_at, topic"
        )
        assert all(row[3] for row in rows), "a message on a public topic"
        return [
            (row[0], row[1], row[2])
            for row in rows
            if (topic is None or row[0] == topic) and (event is None or row[1] == event)
        ]

    def woken(self) -> dict[str, str]:
        """Topics that got a wake, each with its reason; forgets all messages."""
        found: dict[str, str] = {}
        for topic, _, payload in self.messages(event="wake"):
            assert payload["v"] == 1
            assert isinstance(payload["spread_s"], int)
            assert topic not in found, f"{topic} was woken twice"
            found[topic] = payload["reason"]
        return found

    def may_listen(self, who: str, topic: str, extension: str = "broadcast") -> bool:
        """Ask as Realtime asks at join: can this caller see a probe row under this topic?"""
        role, claims = WHO[who]
        with self.admin.transaction(force_rollback=True):
            probe = self.admin.execute(
                "insert into realtime.messages (topic, extension, private) values (%s, %s, true) returning id",
                (topic, extension),
            ).fetchone()
            assert probe is not None
            self.admin.execute(
                "select set_config('role', %s, true), set_config('realtime.topic', %s, true), "
                "set_config('request.jwt.claims', %s, true)",
                (role, topic, json.dumps(claims)),
            )
            seen = self.admin.execute("select id from realtime.messages where id = %s", (probe[0],))
            return seen.fetchone() is not None

    def desired(self, who: str = "device") -> dict[str, Any]:
        answer = self.one("select public.desired_state()", who=who)
        assert isinstance(answer, dict)
        return answer

    def explain(self, device: UUID = DEVICE, who: str = "viewer", at: str | None = None) -> dict[str, Any]:
        if at is None:
            answer = self.one("select public.explain_device(%s)", device, who=who)
        else:
            answer = self.one("select public.explain_device(%s, %s)", device, at, who=who)
        assert isinstance(answer, dict)
        return answer

    def report(self, release: UUID | None, who: str = "device", state: str = "healthy") -> None:
        """Upsert the status row as the agent does."""
        device = WHO[who][1]["sub"]
        self.sql(
            "insert into public.device_status (device_id, state, current_release) values (%s, %s, %s) "
            "on conflict (device_id) do update set state = excluded.state, current_release = excluded.current_release",
            device, state, release, who=who,
        )  # fmt: skip

    def close(self) -> None:
        for connection in self._connections:
            connection.close()


def become(connection: type_of_connection, who: str) -> None:
    """Inside a transaction: take the role and claims of `who`."""
    role, claims = WHO[who]
    connection.execute(
        "select set_config('request.jwt.claims', %s, true), set_config('role', %s, true)",
        (json.dumps(claims), role),
    )


def gates(answer: dict[str, Any]) -> dict[str, str]:
    """Gate -> verdict."""
    return {gate["gate"]: gate["verdict"] for gate in answer["gates"]}


def detail(answer: dict[str, Any], gate: str) -> str:
    """The sentence of a gate."""
    found = [item["detail"] for item in answer["gates"] if item["gate"] == gate]
    assert len(found) == 1, f"{len(found)} verdicts of gate {gate}"
    return str(found[0])
