"""The operator's commands against a running stack: what they change, refuse and ask first."""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any
from uuid import uuid4

import httpx
import psycopg
import pytest
import typer
from psycopg.rows import dict_row
from typer.testing import CliRunner

from fleetctl.commands import register
from fleetctl.errors import FleetctlError
from fleetctl.stack.local_stack import LocalStack

Db = psycopg.Connection[dict[str, Any]]


@dataclass
class Answer:
    """What a command printed, and how it ended."""

    output: str
    error: FleetctlError | None
    exit_code: int

    @property
    def json(self) -> Any:
        return json.loads(self.output)

    @property
    def refusal(self) -> tuple[str, int]:
        assert self.error is not None, self.output
        return self.error.kind, self.error.exit_code


class Fleetctl:
    """Runs commands in this process; what is not a FleetctlError fails the test."""

    def __init__(self, stack: LocalStack) -> None:
        self.app = typer.Typer()
        register(self.app)
        self.environment = {"FLEET_API_URL": stack.api_url, "FLEET_KEY": stack.secret_key, "COLUMNS": "200"}

    def __call__(self, *args: str, stdin: str | None = None) -> Answer:
        result = CliRunner().invoke(self.app, list(args), env=self.environment, input=stdin)
        if result.exception is not None and not isinstance(result.exception, FleetctlError | SystemExit):
            raise result.exception
        error = result.exception if isinstance(result.exception, FleetctlError) else None
        return Answer(result.stdout, error, result.exit_code)


@pytest.fixture(scope="module")
def fleetctl(stack: LocalStack) -> Fleetctl:
    return Fleetctl(stack)


@pytest.fixture(scope="module")
def db(stack: LocalStack) -> Iterator[Db]:
    with psycopg.connect(stack.db_url, autocommit=True, row_factory=dict_row) as connection:
        yield connection


MakeDevices = Callable[..., list[str]]


@pytest.fixture
def site() -> str:
    """A label of this test's devices alone: the stack is shared."""
    return f"site-{uuid4().hex[:8]}"


@pytest.fixture
def devices(db: Db, site: str) -> MakeDevices:
    def make(count: int = 1, **columns: Any) -> list[str]:
        names = []
        for number in range(count):
            name = f"{site}-{number}"
            row = {
                "name": name, "role": "beacon", "state": "active", "public_key": _key(),
                "labels": json.dumps({"site": site}), **columns,
            }  # fmt: skip
            values = ", ".join(f"%({column})s" for column in row)
            db.execute(f"insert into devices ({', '.join(row)}) values ({values})", row)
            names.append(name)
        return names

    return make


@pytest.fixture
def release(fleetctl: Fleetctl) -> Callable[..., dict[str, Any]]:
    def make(**options: str) -> dict[str, Any]:
        commit = uuid4().hex + "00000000"
        version = f"v-{commit[:10]}"
        extra = [part for name, value in options.items() for part in (f"--{name}", value)]
        # On staging, so that no device of another test is concerned.
        made: dict[str, Any] = fleetctl(
            "release", "add", commit, "--version", version, "--branch", "staging", *extra, "--json"
        ).json
        return made

    return make


def _key() -> str:
    return (uuid4().hex + uuid4().hex)[:43]


def of(db: Db, name: str) -> dict[str, Any]:
    row = db.execute("select * from devices where name = %s", [name]).fetchone()
    assert row is not None
    return row


# -- devices ------------------------------------------------------------------------------------------------


def test_list_shows_what_was_selected_with_its_last_report(
    fleetctl: Fleetctl, devices: MakeDevices, db: Db, site: str
) -> None:
    first, second = devices(2)
    db.execute("insert into device_status (device_id, state) values (%s, 'degraded')", [of(db, first)["id"]])
    rows = fleetctl("device", "list", "--label", f"site={site}", "--json").json
    assert [(row["name"], row["status"].get("state"), row["offline"]) for row in rows] == [
        (first, "degraded", False), (second, None, True),
    ]  # fmt: skip
    table = fleetctl("device", "list", first).output
    assert first in table
    assert "degraded" in table
    assert second not in table


def test_offline_begins_after_the_missed_polls_of_the_settings(
    fleetctl: Fleetctl, devices: MakeDevices, db: Db, site: str
) -> None:
    """reported_at is stamped by a trigger, so it is the interval that is moved: 3 polls of 30 s are 90 s."""
    (name,) = devices(1, poll_interval_s=30)
    device_id = of(db, name)["id"]
    db.execute("insert into device_status (device_id) values (%s)", [device_id])
    db.execute("alter table device_status disable trigger stamp_reported_at")
    try:
        for seconds, offline in ((60, False), (120, True)):
            seen = datetime.now(UTC) - timedelta(seconds=seconds)
            db.execute("update device_status set reported_at = %s where device_id = %s", [seen, device_id])
            assert fleetctl("device", "show", name, "--json").json["device"]["offline"] is offline
        pinned = json.dumps({"poll_interval_s": 3600, "pinned": ["poll_interval_s"]})
        db.execute("update device_status set settings = %s where device_id = %s", [pinned, device_id])
        assert fleetctl("device", "show", name, "--json").json["device"]["offline"] is False
    finally:
        db.execute("alter table device_status enable trigger stamp_reported_at")


def test_show_tells_one_devices_story(fleetctl: Fleetctl, devices: MakeDevices) -> None:
    (name,) = devices(1, branch="staging")
    story = fleetctl("device", "show", name, "--json").json
    assert set(story) == {"device", "explanation", "history", "commands"}
    text = fleetctl("device", "show", name).output
    assert name in text
    assert "device_state" in text


def test_show_tells_what_the_devices_own_file_decides(
    fleetctl: Fleetctl, devices: MakeDevices, db: Db
) -> None:
    (name,) = devices()
    reported = {
        "poll_interval_s": 3600.0,
        "labels": {"site": "rome", "floor": "2"},
        "pinned": ["poll_interval_s", "labels.floor"],
    }
    db.execute(
        "insert into device_status (device_id, settings) values (%s, %s)",
        [of(db, name)["id"], json.dumps(reported)],
    )
    shown = fleetctl("device", "show", name).output
    assert "poll_interval_s=3600, labels.floor=2" in shown
    assert "rome" not in shown


def test_a_device_is_found_by_its_id_too(fleetctl: Fleetctl, devices: MakeDevices, db: Db) -> None:
    (name,) = devices()
    assert fleetctl("device", "list", str(of(db, name)["id"]), "--json").json[0]["name"] == name


@pytest.mark.parametrize("name", ["nobody", "5b0f1a52-93c4-4c7e-8a39-1d6f0c7e2b11"])
def test_an_unknown_device_exits_5(fleetctl: Fleetctl, name: str) -> None:
    assert fleetctl("device", "show", name).refusal == ("device_unknown", 5)


def test_states_move_as_the_words_say(fleetctl: Fleetctl, devices: MakeDevices, db: Db) -> None:
    (name,) = devices(1, state="pending")
    for verb, state in (
        ("accept", "active"), ("suspend", "suspended"), ("activate", "active"),
    ):  # fmt: skip
        assert fleetctl("device", verb, name).exit_code == 0
        assert of(db, name)["state"] == state
    assert fleetctl("device", "activate", name).exit_code == 0, "asking for what is so already is no error"
    assert fleetctl("device", "retire", name, "--yes").exit_code == 0
    assert of(db, name)["state"] == "retired"
    assert fleetctl("device", "suspend", name).refusal == ("device_state_is_final", 1)


def test_accept_does_not_end_a_suspension(fleetctl: Fleetctl, devices: MakeDevices, db: Db) -> None:
    (name,) = devices(1, state="suspended")
    assert fleetctl("device", "accept", name).refusal == ("device_state_differs", 1)
    assert of(db, name)["state"] == "suspended"


def test_set_changes_columns_and_merges_labels(
    fleetctl: Fleetctl, devices: MakeDevices, db: Db, site: str
) -> None:
    first, second = devices(2)
    fleetctl("device", "set", first, "--to", "label.floor=3")
    fleetctl(
        "device", "set", "--label", f"site={site}", "--yes",
        "--to", "segment=canary", "--to", "label.room=7", "--to", "poll_interval_s=120",
    )  # fmt: skip
    rows = [of(db, name) for name in (first, second)]
    assert [(row["segment"], row["poll_interval_s"]) for row in rows] == [("canary", 120)] * 2
    assert rows[0]["labels"] == {"site": site, "floor": "3", "room": "7"}
    assert rows[1]["labels"] == {"site": site, "room": "7"}
    fleetctl("device", "set", first, "--to", "label.floor=", "--to", "poll_interval_s=")
    assert of(db, first)["labels"] == {"site": site, "room": "7"}
    assert of(db, first)["poll_interval_s"] is None


@pytest.mark.parametrize(
    ("value", "refusal"),
    [
        ("segment=moon", ("unknown_segment", 2)),
        ("timezone=Mars/Base", ("unknown_timezone", 2)),
        ("poll_interval_s=3", ("value_refused", 2)),
        ("state=active", ("setting_unknown", 2)),
        ("segment", ("pair_malformed", 2)),
    ],
)
def test_set_refuses_nonsense_in_the_databases_words(
    fleetctl: Fleetctl, devices: MakeDevices, value: str, refusal: tuple[str, int]
) -> None:
    (name,) = devices()
    assert fleetctl("device", "set", name, "--to", value).refusal == refusal


# -- asking before acting -----------------------------------------------------------------------------------


def test_many_devices_need_a_yes_and_a_dry_run_only_looks(
    fleetctl: Fleetctl, devices: MakeDevices, db: Db, site: str
) -> None:
    names = devices(3)
    selected = ("--label", f"site={site}")
    refused = fleetctl("device", "suspend", *selected)
    assert refused.refusal == ("confirmation_needed", 2)
    assert refused.error is not None
    assert "3 devices" in refused.error.message
    looked = fleetctl("device", "suspend", *selected, "--dry-run", "--json").json
    assert (looked["dry_run"], looked["devices"]) == (True, names)
    assert {of(db, name)["state"] for name in names} == {"active"}
    assert fleetctl("device", "suspend", *selected, "--yes").output == "Suspended 3 devices.\n"
    assert {of(db, name)["state"] for name in names} == {"suspended"}


def test_even_one_device_is_asked_about_before_it_is_retired(
    fleetctl: Fleetctl, devices: MakeDevices, db: Db
) -> None:
    (name,) = devices()
    assert fleetctl("device", "retire", name).refusal == ("confirmation_needed", 2)
    assert of(db, name)["state"] == "active"


def test_no_selection_is_not_the_whole_fleet(fleetctl: Fleetctl) -> None:
    assert fleetctl("device", "suspend", "--yes").refusal == ("nothing_selected", 2)


def test_names_and_conditions_narrow_together(fleetctl: Fleetctl, devices: MakeDevices) -> None:
    first, second = devices(2)
    fleetctl("device", "set", first, "--to", "segment=early")
    found = fleetctl("device", "list", first, second, "--segment", "early", "--json").json
    assert [row["name"] for row in found] == [first]


def test_more_devices_than_one_page_are_all_reached(fleetctl: Fleetctl, db: Db, site: str) -> None:
    """1000 rows are a page of the API, 100 ids a batch."""
    db.execute(
        "insert into devices (name, role, state, public_key, labels)"
        " select %s || '-' || n, 'beacon', 'suspended', left(md5(%s || n) || md5(n::text), 43), %s"
        " from generate_series(1, 1203) n",
        [site, site, json.dumps({"site": site})],
    )
    rows = fleetctl("device", "list", "--label", f"site={site}", "--json").json
    assert len({row["id"] for row in rows}) == 1203
    fleetctl("hold", "set", "--label", f"site={site}", "--reason", "inventory", "--yes")
    held = db.execute("select count(*) from devices where hold and labels ->> 'site' = %s", [site]).fetchone()
    assert held == {"count": 1203}
    db.execute("update devices set state = 'retired' where labels ->> 'site' = %s", [site])


# -- releases, pins, holds ----------------------------------------------------------------------------------


def test_a_release_is_offered_withdrawn_and_restored(
    fleetctl: Fleetctl, release: Callable[..., dict[str, Any]]
) -> None:
    made = release(notes="new lamps")
    assert (made["state"], made["branch"], made["notes"]) == ("available", "staging", "new lamps")
    for verb, name, state in (
        ("withdraw", made["version"], "withdrawn"), ("restore", made["commit_sha"][:9], "available"),
    ):  # fmt: skip
        assert fleetctl("release", verb, name, "--json").json["state"] == state
    listed = fleetctl("release", "list", "--branch", "staging", "--json").json
    assert listed[0]["id"] == made["id"]
    assert listed[0]["devices"] == 0


def test_the_same_commit_is_refused_a_second_time(
    fleetctl: Fleetctl, release: Callable[..., dict[str, Any]]
) -> None:
    made = release()
    again = fleetctl("release", "add", made["commit_sha"], "--branch", "staging")
    assert again.refusal == ("already_exists", 1)
    assert again.error is not None
    assert again.error.message == "This commit is already a release of this branch."


def test_a_short_commit_is_resolved_in_a_clone_only(fleetctl: Fleetctl, tmp_path: Path) -> None:
    assert fleetctl("release", "add", "HEAD").refusal == ("commit_incomplete", 2)
    git = [
        "git",
        "-C",
        str(tmp_path),
        "-c",
        "user.name=t",
        "-c",
        "user.email=t@t",
        "-c",
        "commit.gpgsign=false",
    ]
    subprocess.run(["git", "init", "-q", str(tmp_path)], check=True)
    subprocess.run([*git, "commit", "-q", "--allow-empty", "-m", str(tmp_path)], check=True)
    head = subprocess.run(
        [*git, "rev-parse", "HEAD"], check=True, capture_output=True, text=True
    ).stdout.strip()
    options = ("--repository", str(tmp_path), "--branch", "staging")
    assert fleetctl("release", "add", "HEAD", *options, "--json").json["commit_sha"] == head
    assert fleetctl("release", "add", "no-such", *options).refusal == ("commit_unknown", 5)


def test_a_version_on_two_branches_is_ambiguous_until_the_branch_is_said(
    fleetctl: Fleetctl, release: Callable[..., dict[str, Any]]
) -> None:
    made = release()
    twin = fleetctl("release", "add", made["commit_sha"], "--version", made["version"], "--json").json
    fleetctl("release", "withdraw", twin["id"])
    assert fleetctl("release", "withdraw", made["version"]).refusal == ("release_ambiguous", 2)
    chosen = fleetctl("release", "withdraw", made["version"], "--on-branch", "staging", "--json").json
    assert chosen["id"] == made["id"]


def test_pin_pins_and_pinning_again_renews_the_pin(
    fleetctl: Fleetctl, devices: MakeDevices, db: Db, release: Callable[..., dict[str, Any]]
) -> None:
    first, second = devices(2)
    wanted = release()
    fleetctl("pin", first, "--release", wanted["version"])
    before = of(db, first)
    assert str(before["pinned_release"]) == wanted["id"]
    fleetctl("pin", first, second, "--release", wanted["id"], "--yes")
    assert of(db, first)["pinned_at"] > before["pinned_at"]
    assert str(of(db, second)["pinned_release"]) == wanted["id"]
    fleetctl("unpin", first, second, "--yes")
    assert of(db, first)["pinned_release"] is of(db, second)["pinned_release"] is None


def test_pinning_to_a_withdrawn_release_is_refused(
    fleetctl: Fleetctl, devices: MakeDevices, release: Callable[..., dict[str, Any]]
) -> None:
    (name,) = devices()
    wanted = release()
    fleetctl("release", "withdraw", wanted["version"])
    assert fleetctl("pin", name, "--release", wanted["version"]).refusal == ("release_not_available", 1)


def test_retry_forgets_a_rollback_of_those_devices_only(
    fleetctl: Fleetctl, devices: MakeDevices, db: Db, release: Callable[..., dict[str, Any]]
) -> None:
    first, second = devices(2)
    wanted = release()
    for name in (first, second):
        db.execute(
            "insert into known_bad_releases (device_id, release_id) values (%s, %s)",
            [of(db, name)["id"], wanted["id"]],
        )
    fleetctl("retry", first, "--release", wanted["version"])
    left = db.execute(
        "select device_id from known_bad_releases where release_id = %s", [wanted["id"]]
    ).fetchall()
    assert left == [{"device_id": of(db, second)["id"]}]
    assert fleetctl("retry", first, "--release", wanted["version"]).refusal == ("nothing_to_retry", 5)


def test_a_window_is_set_aside_for_a_time(fleetctl: Fleetctl, devices: MakeDevices, db: Db) -> None:
    (name,) = devices()
    fleetctl("device", "ignore-window", name, "--for", "2h")
    left = of(db, name)["ignore_window_until"] - datetime.now(UTC)
    assert timedelta(minutes=110) < left <= timedelta(hours=2)
    fleetctl("device", "ignore-window", name, "--end")
    assert of(db, name)["ignore_window_until"] is None
    for wrong in ((), ("--for", "2h", "--end")):
        assert fleetctl("device", "ignore-window", name, *wrong).refusal == ("window_time_missing", 2)


def test_a_hold_has_a_reason_and_may_have_an_end(fleetctl: Fleetctl, devices: MakeDevices, db: Db) -> None:
    (name,) = devices()
    fleetctl("hold", "set", name, "--reason", "on stage", "--until", "2099-01-01T02:00:00+01:00")
    row = of(db, name)
    assert (row["hold"], row["hold_reason"]) == (True, "on stage")
    assert row["hold_until"] == datetime(2099, 1, 1, 1, tzinfo=UTC)
    fleetctl("hold", "clear", name)
    row = of(db, name)
    assert (row["hold"], row["hold_reason"], row["hold_until"]) == (False, None, None)
    both = fleetctl("hold", "set", name, "--reason", "x", "--for", "2h", "--until", "2099-01-01")
    assert both.refusal == ("hold_ends_twice", 2)
    assert fleetctl("hold", "set", name, "--reason", "x", "--for", "soon").refusal == (
        "duration_malformed",
        2,
    )


def test_explain_names_the_gate_in_the_way(fleetctl: Fleetctl, devices: MakeDevices) -> None:
    (name,) = devices()
    fleetctl("hold", "set", name, "--reason", "on stage", "--for", "2h")
    why = fleetctl("explain", name, "--json").json
    assert "hold" in why["blocked_by"]
    shown = " ".join(fleetctl("explain", name).output.split())
    assert "on stage" in shown
    assert "→ Nothing to do: the hold ends by itself." in shown
    tomorrow = (datetime.now(UTC) + timedelta(days=1)).isoformat()
    assert "hold" not in fleetctl("explain", name, "--at", tomorrow, "--json").json["blocked_by"]


# -- halts --------------------------------------------------------------------------------------------------


def test_the_emergency_stop_is_one_command_and_lifting_keeps_its_story(fleetctl: Fleetctl) -> None:
    halt = fleetctl("halt", "fleet", "smoke", "--json").json
    try:
        assert halt["scope"] == "fleet"
        assert halt["id"] in {row["id"] for row in fleetctl("halt", "list", "--json").json}
    finally:
        lifted = fleetctl("halt", "lift", "fleet", "false alarm", "--json").json
    assert [(row["id"], row["reason"], row["lift_reason"]) for row in lifted] == [
        (halt["id"], "smoke", "false alarm")
    ]
    assert fleetctl("halt", "lift", "fleet", "again").refusal == ("halt_unknown", 5)


def test_a_part_of_the_fleet_is_halted_by_name(
    fleetctl: Fleetctl, release: Callable[..., dict[str, Any]]
) -> None:
    wanted = release()
    halt = fleetctl("halt", "open", "release", wanted["version"], "crashes", "--json").json
    assert (halt["scope"], halt["target"]) == ("release", wanted["id"])
    assert fleetctl("halt", "lift", halt["id"][:8], "fixed").exit_code == 0
    assert fleetctl("halt", "open", "segment", "moon", "x").refusal == ("unknown_target", 2)
    assert fleetctl("halt", "open", "segment", "canary", " ").refusal == ("reason_missing", 2)


# -- known bad ----------------------------------------------------------------------------------------------


def test_a_release_is_kept_from_devices_that_match_and_given_back(
    fleetctl: Fleetctl, release: Callable[..., dict[str, Any]], devices: MakeDevices, site: str
) -> None:
    wanted = release()["version"]
    first, second = devices(2, hardware_model="Pi 3")
    match = ("--match", "hardware_model=Pi 3", "--match", f"label.site={site}")
    tried = fleetctl("known-bad", "add", wanted, "its disk fills", *match, "--dry-run", "--json").json
    wanted_match = {"hardware_model": "Pi 3", "labels": {"site": site}}
    assert tried == {"dry_run": True, "match": wanted_match, "devices": [first, second]}
    assert fleetctl("known-bad", "list", "--json").json == []
    said = fleetctl("known-bad", "add", wanted, "its disk fills", *match, "--dry-run").output
    assert said.startswith(
        f"Would keep {wanted} from 2 devices with hardware_model Pi 3 and label site {site}"
    )
    made = fleetctl("known-bad", "add", wanted, "its disk fills", *match, "--json").json
    assert (made["match"], made["cause"], made["lifted_at"]) == (wanted_match, "operator", None)
    assert fleetctl("known-bad", "add", wanted, "again", *match).refusal == ("known_bad_already", 1)
    (listed,) = fleetctl("known-bad", "list", "--json").json
    assert listed["id"] == made["id"]
    assert "its disk fills" in fleetctl("known-bad", "list").output
    short = made["id"][:8]
    told = fleetctl("known-bad", "lift", short, "fixed", "--dry-run", "--json").json
    assert told["devices"] == [first, second]
    assert fleetctl("known-bad", "lift", short, "fixed").exit_code == 0
    assert fleetctl("known-bad", "list", "--json").json == []
    assert [row["lift_reason"] for row in fleetctl("known-bad", "list", "--lifted", "--json").json] == [
        "fixed"
    ]
    assert fleetctl("known-bad", "lift", short, "fixed").refusal == ("known_bad_unknown", 5)


def test_a_pattern_of_no_attribute_that_devices_have_is_refused(
    fleetctl: Fleetctl, release: Callable[..., dict[str, Any]]
) -> None:
    wanted = release()["version"]
    for pair in ("color=red", "label.=x", "labels=x"):
        assert fleetctl("known-bad", "add", wanted, "x", "--match", pair).refusal == ("match_unknown", 2)
    assert fleetctl("known-bad", "add", wanted, "x", "--match", "os").refusal == ("pair_malformed", 2)


# -- tokens, people, settings, commands ---------------------------------------------------------------------


def test_a_token_is_shown_once_and_never_again(fleetctl: Fleetctl) -> None:
    made = fleetctl(
        "token", "create", "--role", "beacon", "--segment", "early", "--uses", "5", "--valid-for", "12h",
        "--json",
    ).json  # fmt: skip
    assert made["token"].startswith("fpt_")
    expires = datetime.fromisoformat(made["expires_at"]) - datetime.now(UTC)
    assert timedelta(hours=11, minutes=59) < expires <= timedelta(hours=12)
    listed = fleetctl("token", "list", "--json")
    assert made["token"] not in listed.output
    row = next(row for row in listed.json if row["id"] == made["id"])
    assert (row["segment"], row["max_uses"], row["uses"]) == ("early", 5, 0)
    assert fleetctl("token", "revoke", made["id"][:8]).exit_code == 0
    row = next(row for row in fleetctl("token", "list", "--json").json if row["id"] == made["id"])
    assert row["revoked_at"] is not None
    assert fleetctl("token", "revoke", str(uuid4())).refusal == ("token_unknown", 5)


def test_a_token_made_here_lets_a_device_in(fleetctl: Fleetctl, stack: LocalStack, tmp_path: Path) -> None:
    """The plain output is the token alone, so that a script can pipe it."""
    from fleet_agent.control_plane.identity import Identity
    from fleet_agent.paths import Paths

    printed = fleetctl("token", "create", "--role", "beacon").output
    assert printed.count("\n") == 1
    proof = Identity.load_or_create(Paths(tmp_path)).assertion("enroll", datetime.now(UTC))
    answer = httpx.post(
        f"{stack.api_url}/functions/v1/enroll",
        json={"proof": proof, "name": "from-fleetctl", "provisioning_token": printed.strip()},
    )
    assert (answer.status_code, answer.json()["kind"]) == (201, "enrolled")


def test_an_operator_is_made_can_sign_in_and_is_removed(fleetctl: Fleetctl, stack: LocalStack) -> None:
    email = f"{uuid4().hex[:8]}@fleet.example"
    made = fleetctl("operator", "add", email, "--rank", "operator", "--json").json
    session = httpx.post(
        f"{stack.api_url}/auth/v1/token?grant_type=password",
        headers={"apikey": stack.publishable_key},
        json={"email": email, "password": made["password"]},
    )
    assert session.status_code == 200
    assert session.json()["user"]["id"] == made["user_id"]
    assert fleetctl("operator", "add", email).refusal == ("operator_exists", 1)
    assert fleetctl("operator", "rank", email, "admin", "--json").json[0]["rank"] == "admin"
    assert fleetctl("operator", "remove", email).exit_code == 0
    assert fleetctl("operator", "remove", email).refusal == ("operator_unknown", 5)
    # The Auth user stayed: with its password it can be made an operator again, without one it cannot.
    assert fleetctl("operator", "add", email).refusal == ("user_exists", 1)
    again = fleetctl("operator", "add", email, "--password", made["password"], "--json").json
    assert again["user_id"] == made["user_id"]


def test_a_short_password_is_refused(fleetctl: Fleetctl) -> None:
    answer = fleetctl("operator", "add", f"{uuid4().hex[:8]}@fleet.example", "--password", "abc")
    assert answer.refusal == ("password_refused", 2)


def test_settings_are_changed_by_name_and_keep_their_range(fleetctl: Fleetctl) -> None:
    before = fleetctl("settings", "show", "--json").json
    try:
        changed = fleetctl(
            "settings", "set", "default_poll_interval_s=600", "offline_after_intervals=5", "--json"
        ).json
        assert (changed["default_poll_interval_s"], changed["offline_after_intervals"]) == (600, 5)
        refused = fleetctl("settings", "set", "default_poll_interval_s=3")
        assert refused.refusal == ("value_refused", 2)
        assert refused.error is not None
        assert refused.error.message == "default_poll_interval_s must be 30 to 604800 seconds."
        assert fleetctl("settings", "set", "color=red").refusal == ("setting_unknown", 2)
    finally:
        fleetctl(
            "settings", "set", f"default_poll_interval_s={before['default_poll_interval_s']}",
            f"offline_after_intervals={before['offline_after_intervals']}",
        )  # fmt: skip


def test_a_command_is_sent_and_its_answer_read(fleetctl: Fleetctl, devices: MakeDevices, db: Db) -> None:
    (name,) = devices()
    sent = fleetctl("command", "send", name, "--do", "tail_logs", "--arg", "lines=50", "--json").json
    assert sent[0]["args"] == {"lines": 50}
    silent = fleetctl("command", "send", name, "--do", "restart", "--wait", "1")
    assert silent.refusal == ("no_answer", 1)
    db.execute(
        "update device_commands set state = 'succeeded', result = %s where id = %s",
        [json.dumps({"lines": ["a", "b"]}), sent[0]["id"]],
    )
    listed = fleetctl("command", "list", name, "--json").json
    assert [(row["kind"], row["state"]) for row in listed] == [
        ("restart", "queued"),
        ("tail_logs", "succeeded"),
    ]
    assert "succeeded" in fleetctl("command", "list", name).output


def test_a_device_that_is_not_active_is_given_no_command(fleetctl: Fleetctl, devices: MakeDevices) -> None:
    (name,) = devices(1, state="suspended")
    assert fleetctl("command", "send", name, "--do", "restart").refusal == ("device_not_active", 1)


def test_history_shows_attempts_newest_first(fleetctl: Fleetctl, devices: MakeDevices, db: Db) -> None:
    (name,) = devices()
    start = datetime(2026, 3, 1, tzinfo=UTC)
    for hour, outcome in enumerate(("succeeded", "rolled_back")):
        db.execute(
            "insert into update_history (id, device_id, to_commit, outcome, error_kind, error, failed_phase,"
            " started_at, finished_at) values (%s, %s, %s, %s, %s, %s, %s, %s, %s)",
            [
                uuid4(), of(db, name)["id"], "a" * 40, outcome,
                *(("unhealthy", "web answered 500", "probation") if hour else (None, None, None)),
                start + timedelta(hours=hour), start + timedelta(hours=hour, seconds=12.5),
            ],
        )  # fmt: skip
    assert [row["outcome"] for row in fleetctl("history", name, "--json").json] == [
        "rolled_back",
        "succeeded",
    ]
    assert len(fleetctl("history", name, "--outcome", "succeeded", "--json").json) == 1
    table = fleetctl("history", name).output
    assert "unhealthy while probation: web answered 500" in table
    assert "12.5 s" in table


def test_audit_says_who_changed_what(fleetctl: Fleetctl, devices: MakeDevices, db: Db) -> None:
    (name,) = devices()
    fleetctl("device", "set", name, "--to", "segment=early")
    newest = fleetctl("audit", "--table", "devices", "--limit", "1", "--json").json[0]
    assert (newest["actor"], newest["action"], newest["row_id"]) == (
        "service_role", "update", str(of(db, name)["id"]),
    )  # fmt: skip
    assert (newest["before"], newest["after"]) == ({"segment": "stable"}, {"segment": "early"})


# -- where, and how it fails --------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("change", "refusal"),
    [
        ({"FLEET_API_URL": "http://127.0.0.1:9"}, ("unreachable", 3)),
        ({"FLEET_KEY": "sb_secret_wrong"}, ("key_refused", 4)),
        ({"FLEET_KEY": "publishable"}, ("permission_denied", 4)),
        ({"FLEET_KEY": ""}, ("target_incomplete", 2)),
    ],
)
def test_a_wrong_address_or_key_is_told_apart(
    stack: LocalStack, change: dict[str, str], refusal: tuple[str, int]
) -> None:
    wrong = Fleetctl(stack)
    change = {
        name: stack.publishable_key if value == "publishable" else value for name, value in change.items()
    }
    wrong.environment |= change
    assert wrong("operator", "list").refusal == refusal


def test_the_program_finds_the_stack_by_its_data_folder_and_exits_as_it_says(
    stack: LocalStack, tmp_path: Path
) -> None:
    def run(*args: str) -> tuple[int, Any, str]:
        done = subprocess.run(
            [sys.executable, "-m", "fleetctl", *args, "--json"],
            capture_output=True, text=True, check=False,
            env={"PATH": "", "PYTHONPATH": ":".join(sys.path), "HOME": str(tmp_path)},
        )  # fmt: skip
        return done.returncode, json.loads(done.stdout), done.stderr

    code, shown, _ = run("settings", "show", "--data", str(stack.data))
    assert (code, shown["id"]) == (0, True)
    code, shown, error = run("device", "show", "nobody", "--data", str(stack.data))
    assert (code, shown["error"]["kind"]) == (5, "device_unknown")
    assert "There is no device nobody." in error
    code, shown, _ = run("settings", "show", "--data", str(tmp_path / "none"))
    assert (code, shown["error"]["kind"]) == (3, "not_running")
