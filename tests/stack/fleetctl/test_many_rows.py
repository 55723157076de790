"""Everything is read whole: the API answers at most 1,000 rows at once, those of functions as well.

One stack with 3,005 devices, and 1,005 or more of whatever else lists show. Each command is tried or named.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator
from typing import Any

import psycopg
import pytest
from psycopg.rows import dict_row
from typer.main import get_command

from fleetctl.stack.local_stack import LocalStack
from tests.support.fleetctl_runner import Fleetctl
from tests.support.stack import running_stack

pytestmark = pytest.mark.full

DEVICES, OTHERS = 3005, 1005
#: As superuser and without triggers: nothing here is about what an insert causes.
ROWS = """
set session_replication_role = replica;
set search_path = public;
insert into segments (name) values ('canary') on conflict do nothing;
insert into devices (id, name, role, segment, state, public_key, labels)
  select md5('device' || n)::uuid, 'device-' || lpad(n::text, 4, '0'), 'beacon',
    case when n <= 5 then 'canary' else 'stable' end,
    'active', rpad(md5(n::text), 43, 'A'), '{"site": "rome"}'
  from generate_series(1, 3005) n;
insert into releases (id, commit_sha, version, created_at)
  select md5('release' || n)::uuid, md5(n::text) || '00000000', n || '.0',
    now() - make_interval(days => 2000 - n)
  from generate_series(1, 1005) n;
insert into device_status (device_id, state, current_release, reported_at)
  select id, 'healthy', md5('release1')::uuid, now() from devices;
insert into update_history (id, device_id, release_id, to_commit, outcome, started_at, finished_at)
  select md5('attempt' || id)::uuid, id, md5('release1')::uuid, md5('1') || '00000000',
    'succeeded', now(), now() from devices;
insert into alerts (id, kind, severity, device_id, summary)
  select md5('alert' || id)::uuid, 'device_offline', 'warning', id, 'It is offline.' from devices;
insert into device_commands (id, device_id, kind)
  select md5('command' || id)::uuid, id, 'check_drift' from devices;
insert into rollouts (id, name, release_id, branch, created_at)
  select md5('rollout' || n)::uuid, 'rollout-' || n, md5('release2')::uuid, 'main',
    now() - make_interval(days => 2000 - n)
  from generate_series(1, 1005) n;
insert into rollout_stages (rollout_id, position, segment) select id, 1, 'canary' from rollouts;
insert into rollout_stages (rollout_id, position, percent) select id, 2, 100 from rollouts;
insert into halts (id, scope, target, cause, reason)
  select md5('halt' || n)::uuid, 'release', md5('release' || n)::uuid::text, 'operator', 'tried'
  from generate_series(1, 1005) n;
insert into known_bad_patterns (id, release_id, selector, cause, reason)
  select md5('pattern' || n)::uuid, md5('release' || n)::uuid, '{"labels": {"site": "rome"}}',
    'operator', 'tried'
  from generate_series(3, 1005) n;
insert into known_bad_releases (device_id, release_id) select id, md5('release3')::uuid from devices;
insert into operators (user_id, email, rank) select md5('person' || n)::uuid, n || '@example.com', 'viewer'
  from generate_series(1, 1005) n;
insert into branches (name) select 'branch-' || n from generate_series(1, 1005) n;
insert into audit_log (id, at, actor, action, table_name, row_id)
  overriding system value select -n, now(), 'someone', 'update', 'devices', n::text
  from generate_series(1, 1005) n;
insert into private.provisioning_tokens (note, token_hash, role, expires_at)
  select n::text, sha256(n::text::bytea), 'beacon', now() + interval '1 day' from generate_series(1, 1005) n;
analyze;
"""
FIRST_ROLLOUT, FIRST_PATTERN = (
    "rollout-1",
    "select id from known_bad_patterns where release_id = md5('release3')::uuid",
)


@pytest.fixture(scope="module")
def stack() -> Iterator[LocalStack]:
    with running_stack(table_editor=False) as running:
        with psycopg.connect(running.db_url, autocommit=True) as db:
            db.execute(ROWS)
        yield running


@pytest.fixture
def db(stack: LocalStack) -> Iterator[psycopg.Connection[dict[str, Any]]]:
    with psycopg.connect(stack.db_url, autocommit=True, row_factory=dict_row) as connection:
        yield connection


@pytest.fixture
def fleetctl(stack: LocalStack) -> Fleetctl:
    return Fleetctl(stack)


def rows(answer: Any) -> int:
    return len({row["id"] if "id" in row else str(row) for row in answer})


def of(*keys: str) -> Callable[[Any], Any]:
    def get(answer: Any) -> Any:
        for key in keys:
            answer = answer[key]
        return len(answer) if isinstance(answer, list) else answer

    return get


def number(answer: Any) -> int:
    """The devices of a sentence such as `hold 3005 devices (…)`."""
    found = re.search(r"(\d+) devices", answer["what"])
    assert found and int(found[1]) == len(answer["devices"])
    return int(found[1])


MANY = ("--limit", "10000")
SITE = ("--label", "site=rome", "--dry-run")
#: Command -> its arguments, what to look at, and what that is.
READ: dict[str, tuple[tuple[str, ...], Callable[[Any], Any], Any]] = {
    "device list": ((), rows, DEVICES),
    "device count": (("--segment", "stable"), of("devices"), DEVICES - 5),
    "device show": (("DEVICE-3005",), of("device", "name"), "device-3005"),
    "device set": ((*SITE, "--to", "timezone=UTC"), number, DEVICES),
    "device suspend": (SITE, number, DEVICES),
    "device retire": (SITE, number, DEVICES),
    "device ignore-window": ((*SITE, "--for", "1h"), number, DEVICES),
    "release list": (MANY, rows, OTHERS),
    "release withdraw": (("1.0", "--dry-run"), of("devices"), DEVICES),
    "branch list": ((), len, OTHERS + 2),
    "rollout list": (MANY, rows, OTHERS),
    "rollout preview": ((FIRST_ROLLOUT,), len, DEVICES),
    "rollout progress": ((FIRST_ROLLOUT,), of("devices"), DEVICES),
    "rollout start": ((FIRST_ROLLOUT, "--dry-run"), of("devices"), DEVICES),
    "halt list": ((), rows, OTHERS),
    "halt open": (("rollout", FIRST_ROLLOUT, "tried", "--dry-run"), of("devices"), DEVICES),
    "alert list": (MANY, rows, DEVICES),
    "alert ack": (("--all", "--dry-run"), of("alerts"), DEVICES),
    "known-bad list": ((), rows, OTHERS - 2),
    "known-bad open": (
        ("2.0", "tried", "--selector", "label.site=rome", "--dry-run"),
        of("devices"),
        DEVICES,
    ),
    "hold set": ((*SITE, "--reason", "tried"), number, DEVICES),
    "command send": ((*SITE, "--do", "check_drift"), number, DEVICES),
    "command list": (MANY, rows, DEVICES),
    "token list": ((), rows, OTHERS),
    "operator list": ((), len, OTHERS),
    "history": ((*MANY, "--segment", "stable"), rows, DEVICES - 5),
    "retry": ((*SITE, "--release", "3.0"), number, DEVICES),
    "audit": ((*MANY, "--table", "devices"), rows, OTHERS),
}
#: They read nothing of which there are many, or what another line here reads in the same way.
NOT_TRIED = {
    "alike": {
        "device accept", "device activate", "hold clear", "known-bad lift", "rollout watch", "token show",
        "token revoke", "release restore", "release add", "rollout create", "pin set", "pin clear",
        "halt lift",
    },
    "one row": {
        "branch set", "device replace", "explain", "halt fleet", "operator add", "operator rank",
        "operator remove", "rollout approve", "rollout cancel", "rollout pause", "rollout replay",
        "rollout resume",
        "settings set", "settings show", "token create", "whoami",
    },
    "no fleet": {"login", "logout", "fleet list", "fleet use", "hosted up", "doctor", "dashboard export"},
}  # fmt: skip


def test_each_command_is_tried_or_named(fleetctl: Fleetctl) -> None:
    names = set()
    for name, command in get_command(fleetctl.app).commands.items():  # type: ignore[attr-defined]
        names |= {f"{name} {below}" for below in getattr(command, "commands", {})} or {name}
    assert names == READ.keys() | set().union(*NOT_TRIED.values())


@pytest.mark.parametrize("command", READ)
def test_no_list_or_count_stops_at_a_thousand(fleetctl: Fleetctl, command: str) -> None:
    arguments, look, expected = READ[command]
    answer = fleetctl(*command.split(), *arguments, "--json")
    assert answer.error is None, answer.error
    assert look(answer.json) == expected


def test_what_is_beyond_the_first_thousand_is_found(
    fleetctl: Fleetctl, db: psycopg.Connection[dict[str, Any]]
) -> None:
    """By the shortened id or the name that lists show; the oldest are the last of what is read."""
    (pattern,) = db.execute(
        "select id::text from known_bad_patterns order by opened_at, id desc limit 1"
    ).fetchall()
    lifted = fleetctl("known-bad", "lift", pattern["id"][:8], "over", "--dry-run", "--json").json
    assert len(lifted["devices"]) == DEVICES
    (rollout,) = db.execute("select id::text from rollouts where name = 'rollout-1'").fetchall()
    for called in (rollout["id"], rollout["id"][:8], "rollout-1"):
        assert fleetctl("rollout", "progress", called, "--json").json["rollout_id"] == rollout["id"]


def test_what_is_written_in_batches_is_counted_whole(fleetctl: Fleetctl) -> None:
    assert (
        len(fleetctl("hold", "set", "--segment", "stable", "--reason", "r", "--yes", "--json").json)
        == DEVICES - 5
    )
    assert len(fleetctl("pin", "set", "--all", "--release", "1.0", "--yes", "--json").json) == DEVICES
    assert len(fleetctl("pin", "clear", "--all", "--dry-run", "--json").json["devices"]) == DEVICES
    assert len(fleetctl("hold", "clear", "--all", "--yes", "--json").json) == DEVICES - 5
