"""`fleetctl rollout` from the draft to its end, with devices that are played by rows."""

from __future__ import annotations

import json
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from typing import Any
from uuid import uuid4

import psycopg
import pytest
import typer
from psycopg.rows import dict_row
from typer.testing import CliRunner

from fleetctl.commands import register
from fleetctl.errors import FleetctlError
from fleetctl.stack.local_stack import LocalStack

Db = psycopg.Connection[dict[str, Any]]


class Fleetctl:
    """Runs commands in this process. Returns what was printed; raises the FleetctlError."""

    def __init__(self, stack: LocalStack) -> None:
        self.app = typer.Typer()
        register(self.app)
        self.environment = {"FLEET_API_URL": stack.api_url, "FLEET_KEY": stack.secret_key, "COLUMNS": "200"}

    def __call__(self, *args: str) -> str:
        result = CliRunner().invoke(self.app, list(args), env=self.environment)
        if result.exception is not None:
            raise result.exception
        return result.stdout

    def json(self, *args: str) -> Any:
        return json.loads(self(*args, "--json"))


@pytest.fixture(scope="module")
def fleetctl(stack: LocalStack) -> Fleetctl:
    return Fleetctl(stack)


@pytest.fixture(scope="module")
def db(stack: LocalStack) -> Iterator[Db]:
    with psycopg.connect(stack.db_url, autocommit=True, row_factory=dict_row) as connection:
        yield connection


@pytest.fixture
def site(db: Db) -> str:
    """The label of four devices of this test alone: one canary, three stable."""
    site = f"site-{uuid4().hex[:8]}"
    for number in range(4):
        db.execute(
            "insert into devices (name, role, segment, branch, state, public_key, labels)"
            " values (%s, 'beacon', %s, 'staging', 'active', %s, %s)",
            [
                f"{site}-{number}", "stable" if number else "canary",
                (uuid4().hex + uuid4().hex)[:43], json.dumps({"site": site}),
            ],
        )  # fmt: skip
    return site


@pytest.fixture
def version(fleetctl: Fleetctl, db: Db) -> Iterator[str]:
    """A release that nobody is offered but through a rollout."""
    version = f"v-{uuid4().hex[:8]}"
    db.execute("update branches set delivery = 'rollout_only' where name = 'staging'")
    fleetctl("release", "add", uuid4().hex + "00000000", "--version", version, "--branch", "staging")
    yield version
    db.execute("update rollouts set state = 'cancelled' where state in ('running', 'paused')")
    fleetctl("release", "withdraw", version, "--yes")
    db.execute("update branches set delivery = 'immediate' where name = 'staging'")


def draft(fleetctl: Fleetctl, version: str, site: str, *stages: str, **options: str) -> dict[str, Any]:
    flags = [part for stage in stages for part in ("--stage", stage)]
    flags += [part for name, value in options.items() for part in ("--set", f"{name}={value}")]
    made: dict[str, Any] = fleetctl.json("rollout", "create", version, "--label", f"site={site}", *flags)
    return made


def ask(db: Db, name: str) -> dict[str, Any]:
    """What the device `name` is told, as itself."""
    with db.transaction():
        device = db.execute("select id from devices where name = %s", [name]).fetchone()
        assert device is not None
        claims = json.dumps({"role": "fleet_device", "sub": str(device["id"])})
        db.execute("select set_config('request.jwt.claims', %s, true)", [claims])
        db.execute("set local role fleet_device")
        row = db.execute("select desired_state() as it").fetchone()
    assert row is not None
    told: dict[str, Any] = row["it"]
    return told


def report(db: Db, name: str, told: dict[str, Any], outcome: str) -> None:
    """The device `name` tells how its attempt at what it was told ended."""
    now = datetime.now(UTC)
    device_id, release = told["device"]["id"], told["release"]
    if outcome == "succeeded":
        db.execute(
            "insert into device_status (device_id, state, current_release) values (%s, 'healthy', %s)"
            " on conflict (device_id) do update set current_release = excluded.current_release",
            [device_id, release["id"]],
        )
    db.execute(
        "insert into update_history (id, device_id, release_id, rollout_id, to_commit, outcome,"
        " error_kind, error, started_at, finished_at) values (%s, %s, %s, %s, %s, %s, %s, %s, %s, %s)",
        [
            uuid4(), device_id, release["id"], told["rollout_id"], release["commit_sha"], outcome,
            *((None, None) if outcome == "succeeded" else ("unhealthy", "web answered 500")),
            now - timedelta(seconds=5), now,
        ],
    )  # fmt: skip


def refused(fleetctl: Fleetctl, *args: str) -> tuple[str, int]:
    with pytest.raises(FleetctlError) as caught:
        fleetctl(*args)
    return caught.value.kind, caught.value.exit_code


def test_a_rollout_selects_its_devices(fleetctl: Fleetctl, version: str, site: str) -> None:
    text = f'os="Debian 12","Debian 13" label.site={site}'
    made = fleetctl.json("rollout", "create", version, "--stage", "100%", "--selector", text)
    assert made["selector"] == {"os": ["Debian 12", "Debian 13"], "labels": {"site": site}}
    assert text in fleetctl("rollout", "list")
    changing = ("rollout", "create", version, "--selector", "agent_version=1.0 segment=canary")
    assert refused(fleetctl, *changing) == ("selector_changes", 2)
    twice = ("rollout", "create", version, "--selector", "label.site=a", "--label", "site=b")
    assert refused(fleetctl, *twice) == ("selector_malformed", 2)


def test_stages_are_written_as_they_are_said(fleetctl: Fleetctl, version: str, site: str, db: Db) -> None:
    made = draft(
        fleetctl, version, site,
        "canary,soak=1h,attempted=2", "stable,25%,max=5,success=0.95,approve", f"device={site}-3", "100%",
        max_in_flight="7", on_bad="roll_back", halt_max_failures="",
    )  # fmt: skip
    assert (made["state"], made["max_in_flight"], made["on_bad"]) == ("draft", 7, "roll_back")
    assert made["selector"] == {"labels": {"site": site}}
    stages = db.execute(
        "select segment, percent, soak_s, min_attempted, max_in_flight, min_success_ratio, needs_approval,"
        " device_ids from rollout_stages where rollout_id = %s order by position",
        [made["id"]],
    ).fetchall()
    third = db.execute("select id from devices where name = %s", [f"{site}-3"]).fetchone()
    assert third is not None
    assert [tuple(stage.values())[:3] for stage in stages] == [
        ("canary", None, 3600), ("stable", 25, 0), (None, None, 0), (None, 100, 0),
    ]  # fmt: skip
    assert stages[0]["min_attempted"] == 2
    assert (stages[1]["max_in_flight"], float(stages[1]["min_success_ratio"])) == (5, 0.95)
    assert [stage["needs_approval"] for stage in stages] == [False, True, False, False]
    assert stages[2]["device_ids"] == [third["id"]]


@pytest.mark.parametrize(
    ("arguments", "refusal"),
    [
        (("--stage", "soon"), ("reference_unknown", 2)),
        (("--stage", "canary,when=later"), ("stage_malformed", 2)),
        (("--stage", ""), ("stage_malformed", 2)),
        (("--stage", "soak="), ("stage_malformed", 2)),
        (("--stage", "device=nobody"), ("device_unknown", 5)),
        (("--set", "color=red"), ("unknown_option", 2)),
        (("--template", "nope"), ("unknown_template", 2)),
    ],
)
def test_a_draft_that_makes_no_sense_is_refused(
    fleetctl: Fleetctl, version: str, arguments: tuple[str, ...], refusal: tuple[str, int]
) -> None:
    assert refused(fleetctl, "rollout", "create", version, *arguments) == refusal


def test_preview_counts_without_starting_and_start_asks(
    fleetctl: Fleetctl, version: str, site: str, db: Db
) -> None:
    made = draft(fleetctl, version, site, "canary,soak=1h", "100%")
    rows = fleetctl.json("rollout", "preview", made["id"][:8])
    assert (rows[0]["stage"], rows[0]["name"]) == (1, f"{site}-0")
    assert sorted(row["stage"] for row in rows) == [1, 2, 2, 2]
    assert "4 devices" in fleetctl("rollout", "preview", version)
    assert f"Would start {version} for 4 devices" in fleetctl("rollout", "start", version, "--dry-run")
    with pytest.raises(FleetctlError, match=f"start {version} for 4 devices in 2 stages") as caught:
        fleetctl("rollout", "start", version)
    assert caught.value.kind == "confirmation_needed"
    assert ask(db, f"{site}-0")["action"] == "run"
    assert fleetctl.json("rollout", "start", version, "--yes")["state"] == "running"
    assert ask(db, f"{site}-0")["action"] == "update"


def test_a_rollout_moves_by_command_and_is_watched_to_its_end(
    fleetctl: Fleetctl, version: str, site: str, db: Db
) -> None:
    draft(fleetctl, version, site, "canary", "100%,approve")
    fleetctl("rollout", "start", version, "--yes")
    assert "paused" in fleetctl("rollout", "pause", version)
    assert ask(db, f"{site}-0")["action"] == "run"
    assert "running" in fleetctl("rollout", "resume", version, "--yes")
    report(db, f"{site}-0", ask(db, f"{site}-0"), "succeeded")
    db.execute("select private.tick(now())")
    assert "needs approval" in fleetctl("rollout", "progress", version)
    assert refused(fleetctl, "rollout", "watch", version, "--give-up-after", "0s") == ("watch_ended", 1)
    assert refused(fleetctl, "rollout", "approve", version, "9") == ("stage_unknown", 5)
    approved = fleetctl.json("rollout", "approve", version, "--yes")
    assert (approved["position"], approved["approved_at"] is not None) == (2, True)
    db.execute("select private.tick(now())")
    for number in (1, 2, 3):
        report(db, f"{site}-{number}", ask(db, f"{site}-{number}"), "succeeded")
    db.execute("select private.tick(now())")
    seen = fleetctl.json("rollout", "watch", version)
    assert (seen["state"], seen["on_release"], seen["failed"]) == ("completed", 4, 0)


def test_watching_ends_with_1_when_the_rollout_halts_itself(
    fleetctl: Fleetctl, version: str, site: str, db: Db
) -> None:
    draft(fleetctl, version, site, "100%", halt_max_failures="1")
    fleetctl("rollout", "start", version, "--yes")
    report(db, f"{site}-1", ask(db, f"{site}-1"), "rolled_back")
    assert refused(fleetctl, "rollout", "watch", version) == ("rollout_halted", 1)
    assert "Halt " in fleetctl("rollout", "progress", version)
    assert ask(db, f"{site}-2")["action"] == "run"


def test_another_rule_is_tried_on_what_happened(fleetctl: Fleetctl, version: str, site: str, db: Db) -> None:
    draft(fleetctl, version, site, "100%", halt_max_failures="1")
    fleetctl("rollout", "start", version, "--yes")
    report(db, f"{site}-1", ask(db, f"{site}-1"), "rolled_back")
    assert "would have stopped it" in fleetctl("rollout", "replay", version)
    off = [
        part
        for name in ("max_failures", "failure_ratio", "consecutive_failures")
        for part in ("--set", f"halt_{name}=")
    ]
    tried = fleetctl.json("rollout", "replay", version, *off)
    assert (tried["would_halt"], tried["failed"]) == (False, 1)
    assert refused(fleetctl, "rollout", "replay", version, "--set", "color=red") == ("unknown_option", 2)


def test_alerts_are_listed_and_acknowledged(fleetctl: Fleetctl, version: str, site: str, db: Db) -> None:
    made = draft(fleetctl, version, site, "100%", halt_max_failures="1")
    fleetctl("rollout", "start", version, "--yes")
    report(db, f"{site}-1", ask(db, f"{site}-1"), "rolled_back")
    (alert,) = [row for row in fleetctl.json("alert", "list") if row["rollout_id"] == made["id"]]
    assert alert["kind"] == "rollout_halted"
    (line,) = [line for line in fleetctl("alert", "list").splitlines() if alert["id"][:8] in line]
    assert version in line
    assert "Would acknowledge 1 alert" in fleetctl("alert", "ack", alert["id"], "--dry-run")
    assert fleetctl.json("alert", "ack", alert["id"][:8])[0]["acknowledged_at"]
    assert fleetctl.json("alert", "ack", alert["id"]) == []
    assert refused(fleetctl, "alert", "ack", "00000000") == ("alert_unknown", 5)
    assert refused(fleetctl, "alert", "ack") == ("nothing_selected", 2)


def test_a_halt_says_first_how_many_it_stops(fleetctl: Fleetctl, version: str, site: str, db: Db) -> None:
    made = draft(fleetctl, version, site, "100%")
    fleetctl("rollout", "start", version, "--yes")
    assert "4 devices" in fleetctl("halt", "open", "rollout", version, "smoke", "--dry-run")
    stopped = fleetctl.json("halt", "open", "release", version, "smoke", "--dry-run")["devices"]
    assert {f"{site}-{n}" for n in range(4)} <= set(stopped)
    assert ask(db, f"{site}-0")["action"] == "update"
    halt = fleetctl.json("halt", "open", "rollout", version, "smoke")
    assert halt["target"] == made["id"]
    assert ask(db, f"{site}-1")["action"] == "run"
    fleetctl("halt", "lift", halt["id"], "looked", "--yes")


def test_a_cancelled_rollout_is_over_and_said_so(fleetctl: Fleetctl, version: str, site: str, db: Db) -> None:
    draft(fleetctl, version, site, "100%")
    fleetctl("rollout", "start", version, "--yes")
    fleetctl("rollout", "cancel", version)
    assert refused(fleetctl, "rollout", "watch", version) == ("rollout_given_up", 1)
    listed = fleetctl.json("rollout", "list", "--limit", "1")
    assert listed[0]["state"] == "cancelled"
    assert refused(fleetctl, "rollout", "progress", "no-such") == ("rollout_unknown", 5)
