"""Every command of fleetctl as every rank: done, or refused in words.

The commands come from the command line's own parser, so one that is new has to be decided about here.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from uuid import uuid4

import pytest
from typer.main import get_command

from fleet_agent.support.fingerprint import fingerprint
from fleetctl.cli import app, mount
from fleetctl.stack.local_stack import LocalStack
from tests.support.fleetctl_runner import Db, Fleetctl, device_key
from tests.support.profiles import FULL
from tests.support.stack_identities import MakeOperator

RANKS = (None, "viewer", "operator", "admin")
EMAIL = "every-rank-{}@fleet.example"
PASSWORD = "correct horse battery"


@dataclass(frozen=True)
class World:
    """What the commands of one person are about, made by the database's owner: names and ids."""

    tag: str
    devices: dict[str, str]
    fingerprint: str
    release: str
    rollout: str
    over: str
    halt: str
    known_bad: str
    token: str
    alert: str
    person: str


def commit() -> str:
    return (uuid4().hex * 2)[:40]


#: Command -> least rank (None: anyone who is signed in), and its words. In this order; later ones find what
#: earlier ones made.
COMMANDS: dict[str, tuple[str | None, Callable[[World], list[str]]]] = {
    "whoami": (None, lambda w: []),
    "doctor": (None, lambda w: ["--only", "clock"]),
    "device list": ("viewer", lambda w: []),
    "device count": ("viewer", lambda w: ["--label", f"site={w.tag}"]),
    "device show": ("viewer", lambda w: [w.devices["active"]]),
    "explain": ("viewer", lambda w: [w.devices["active"]]),
    "history": ("viewer", lambda w: []),
    "audit": ("viewer", lambda w: []),
    "alert list": ("viewer", lambda w: []),
    "branch list": ("viewer", lambda w: []),
    "command list": ("viewer", lambda w: []),
    "halt list": ("viewer", lambda w: []),
    "known-bad list": ("viewer", lambda w: []),
    "operator list": ("viewer", lambda w: []),
    "release list": ("viewer", lambda w: []),
    "rollout list": ("viewer", lambda w: []),
    "rollout preview": ("viewer", lambda w: [w.rollout]),
    "rollout progress": ("viewer", lambda w: [w.rollout]),
    "rollout replay": ("viewer", lambda w: [w.rollout]),
    "rollout watch": ("viewer", lambda w: [w.over]),
    "settings show": ("viewer", lambda w: []),
    "alert ack": ("operator", lambda w: [w.alert]),
    "branch set": ("operator", lambda w: ["main", "--delivery", "immediate", "--yes"]),
    "command send": ("operator", lambda w: [w.devices["active"], "--do", "restart"]),
    "device accept": ("operator", lambda w: [w.devices["pending"], "--fingerprint", w.fingerprint]),
    "device suspend": ("operator", lambda w: [w.devices["active"]]),
    "device activate": ("operator", lambda w: [w.devices["active"], w.devices["suspended"], "--yes"]),
    "device set": ("operator", lambda w: [w.devices["active"], "--to", "segment=early"]),
    "device ignore-window": ("operator", lambda w: [w.devices["active"], "--for", "2h"]),
    "hold set": ("operator", lambda w: [w.devices["active"], "--reason", "why"]),
    "hold clear": ("operator", lambda w: [w.devices["held"]]),
    "pin set": ("operator", lambda w: [w.devices["active"], "--release", w.release]),
    "pin clear": ("operator", lambda w: [w.devices["held"]]),
    "retry": ("operator", lambda w: [w.devices["active"], "--release", w.release]),
    "device retire": ("operator", lambda w: [w.devices["suspended"], "--yes"]),
    "halt fleet": ("operator", lambda w: [w.tag]),
    "halt open": ("operator", lambda w: ["release", w.release, "why"]),
    "halt lift": ("operator", lambda w: [w.halt, "why", "--yes"]),
    "known-bad open": ("operator", lambda w: [w.release, "why", "--selector", "os=odd", "--allow-empty"]),
    "known-bad lift": ("operator", lambda w: [w.known_bad, "why"]),
    "release add": ("operator", lambda w: [commit(), "--version", w.tag, "--branch", "staging", "--yes"]),
    "rollout create": ("operator", lambda w: [w.release, "--label", f"site={w.tag}"]),
    "rollout start": ("operator", lambda w: [w.rollout, "--yes"]),
    "rollout pause": ("operator", lambda w: [w.rollout]),
    "rollout resume": ("operator", lambda w: [w.rollout, "--yes"]),
    "rollout approve": ("operator", lambda w: [w.rollout, "--yes"]),
    "rollout cancel": ("operator", lambda w: [w.rollout]),
    "release withdraw": ("operator", lambda w: [w.release, "--yes"]),
    "release restore": ("operator", lambda w: [w.release, "--yes"]),
    "device replace": ("admin", lambda w: [w.devices["active"]]),
    "operator add": ("admin", lambda w: [f"{w.tag}@new.example", "--user-id", str(uuid4())]),
    "operator rank": ("admin", lambda w: [w.person, "operator"]),
    "operator remove": ("admin", lambda w: [w.person]),
    "settings set": ("admin", lambda w: ["offline_after_intervals=4"]),
    "token create": ("admin", lambda w: ["--role", "beacon"]),
    "token list": ("admin", lambda w: []),
    "token show": ("admin", lambda w: [w.token]),
    "token revoke": ("admin", lambda w: [w.token]),
}


def commands(group: Any, path: str = "") -> Iterator[str]:
    """Every command that acts on a control plane: those that take its key."""
    for name, below in group.commands.items():
        if hasattr(below, "commands"):
            yield from commands(below, f"{path}{name} ")
        elif any("--key" in option.opts for option in below.params):
            yield path + name


def test_every_command_is_decided_about() -> None:
    mount()
    assert sorted(commands(get_command(app))) == sorted(COMMANDS)


@pytest.fixture(params=RANKS, ids=str)
def rank(request: pytest.FixtureRequest) -> str | None:
    return str(request.param) if request.param else None


@pytest.fixture
def person(
    rank: str | None,
    stack: LocalStack,
    make_operator: MakeOperator,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> Fleetctl:
    """fleetctl in the hands of somebody with this rank who signed in."""
    make_operator(EMAIL.format(rank), rank)
    for name in ("FLEET_API_URL", "FLEET_KEY"):
        monkeypatch.delenv(name, raising=False)
    signed_in = Fleetctl(stack)
    signed_in.environment = {"FLEET_SESSION": str(tmp_path / "session.json"), "FLEET_PASSWORD": PASSWORD}
    project = ["--api-url", stack.api_url, "--publishable-key", stack.publishable_key]
    assert signed_in("login", EMAIL.format(rank), *project).exit_code == 0
    return signed_in


@pytest.fixture
def world(db: Db, stack: LocalStack) -> Iterator[World]:
    tag = f"rank-{uuid4().hex[:8]}"

    def one(query: str, *values: object) -> str:
        row = db.execute(query, values).fetchone()
        assert row is not None
        return str(next(iter(row.values())))

    def insert(table: str, **row: Any) -> str:
        values = ", ".join(f"%({column})s" for column in row)
        made = db.execute(f"insert into {table} ({', '.join(row)}) values ({values}) returning id", row)
        return str(made.fetchall()[0]["id"])

    columns = {"role": "beacon", "branch": "staging", "labels": json.dumps({"site": tag})}
    devices = {name: f"{tag}-{name}" for name in ("active", "pending", "suspended", "held")}
    keys = {name: device_key() for name in devices}
    ids = {
        name: insert(
            "devices", name=devices[name], public_key=keys[name], hold=name == "held",
            state="active" if name == "held" else name, **columns,
        )
        for name in devices
    }  # fmt: skip
    release = insert("releases", commit_sha=commit(), branch="staging", version=f"{tag}-1")
    db.execute("update devices set pinned_release = %s where id = %s", [release, ids["held"]])
    db.execute("insert into known_bad_releases values (%s, %s)", [ids["active"], release])
    options = {"allow_empty": True, "selector": {"labels": {"site": tag}}}
    stages = [{}, {"needs_approval": True}]
    draft, over = (
        one(
            "select (create_rollout(%s, stages => %s, options => %s)).id",
            release, json.dumps(stages), json.dumps(options),
        )
        for _ in range(2)
    )  # fmt: skip
    db.execute("set session_replication_role = replica")
    db.execute("update rollouts set state = 'completed', ended_at = now() where id = %s", [over])
    db.execute("set session_replication_role = origin")
    person = EMAIL.format(f"other-{tag}")
    db.execute("insert into operators (user_id, email) values (%s, %s)", [uuid4(), person])
    yield World(
        tag=tag, devices=devices, fingerprint=fingerprint(keys["pending"]), release=f"{tag}-1",
        rollout=draft, over=over, person=person,
        halt=insert("halts", scope="role", target="beacon", reason=tag),
        known_bad=one("select (mark_known_bad(%s, '{\"os\": \"none\"}', 'why', true)).id", release),
        token=one("select create_provisioning_token('beacon') ->> 'id'"),
        alert=insert("alerts", kind="rank", subject=tag, summary="x"),
    )  # fmt: skip
    db.execute(
        "update known_bad_patterns set lift_reason = 'over' where lifted_at is null and release_id = %s",
        [release],
    )
    db.execute(
        "update halts set lift_reason = 'over' where lifted_at is null and reason in ('why', %s)", [tag]
    )


def test_every_command_is_done_or_refused_in_words(person: Fleetctl, world: World, rank: str | None) -> None:
    wrong = []
    for command, (least, words) in COMMANDS.items():
        above = RANKS.index(rank) - RANKS.index(least)
        # By default only the refusal of the next rank below: other tests do what is allowed.
        if above != -1 and not FULL:
            continue
        answer = person(*command.split(), *words(world))
        seen = ("", answer.exit_code) if answer.error is None else answer.refusal
        refusal = ("not_an_operator" if rank is None else "rank_too_low", 4)
        right = ("", 0) if above >= 0 else refusal
        if seen != right:
            wrong.append(f"{command}: {seen} instead of {right}: {answer.error or answer.output}")
    assert not wrong, "\n".join(wrong)
