"""The commands about releases, pins and holds against a running stack."""

from __future__ import annotations

import subprocess
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

from tests.support.fleetctl_runner import Db, Fleetctl, MakeDevices, of


def test_a_release_is_offered_withdrawn_and_restored(
    fleetctl: Fleetctl, release: Callable[..., dict[str, Any]]
) -> None:
    made = release(notes="new lamps")
    assert (made["state"], made["branch"], made["notes"]) == ("available", "staging", "new lamps")
    for verb, name, state in (
        ("withdraw", made["version"], "withdrawn"), ("restore", made["commit_sha"][:9], "available"),
    ):  # fmt: skip
        assert fleetctl("release", verb, name, "--yes", "--json").json["state"] == state
    listed = fleetctl("release", "list", "--branch", "staging", "--json").json
    assert listed[0]["id"] == made["id"]
    assert (listed[0]["devices"], listed[0]["signers"]) == (0, {})


def test_the_same_commit_is_refused_a_second_time(
    fleetctl: Fleetctl, release: Callable[..., dict[str, Any]]
) -> None:
    made = release()
    again = fleetctl("release", "add", made["commit_sha"], "--branch", "staging", "--yes")
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
    options = ("--repository", str(tmp_path), "--branch", "staging", "--yes")
    assert fleetctl("release", "add", "HEAD", *options, "--json").json["commit_sha"] == head
    assert fleetctl("release", "add", "no-such", *options).refusal == ("commit_unknown", 5)


def test_a_version_on_two_branches_is_ambiguous_until_the_branch_is_said(
    fleetctl: Fleetctl, release: Callable[..., dict[str, Any]]
) -> None:
    made = release()
    twin = fleetctl(
        "release", "add", made["commit_sha"], "--version", made["version"], "--yes", "--json"
    ).json
    fleetctl("release", "withdraw", twin["id"])
    assert fleetctl("release", "withdraw", made["version"]).refusal == ("release_ambiguous", 2)
    chosen = fleetctl("release", "withdraw", made["version"], "--on-branch", "staging", "--json").json
    assert chosen["id"] == made["id"]


def test_pin_pins_and_pinning_again_renews_the_pin(
    fleetctl: Fleetctl, devices: MakeDevices, db: Db, release: Callable[..., dict[str, Any]]
) -> None:
    first, second = devices(2)
    wanted = release()
    fleetctl("pin", "set", first, "--release", wanted["version"])
    before = of(db, first)
    assert str(before["pinned_release"]) == wanted["id"]
    fleetctl("pin", "set", first, second, "--release", wanted["id"], "--yes")
    assert of(db, first)["pinned_at"] > before["pinned_at"]
    assert str(of(db, second)["pinned_release"]) == wanted["id"]
    fleetctl("pin", "clear", first, second, "--yes")
    assert of(db, first)["pinned_release"] is of(db, second)["pinned_release"] is None


def test_pinning_to_a_withdrawn_release_is_refused(
    fleetctl: Fleetctl, devices: MakeDevices, release: Callable[..., dict[str, Any]]
) -> None:
    (name,) = devices()
    wanted = release()
    fleetctl("release", "withdraw", wanted["version"])
    assert fleetctl("pin", "set", name, "--release", wanted["version"]).refusal == (
        "release_not_available",
        1,
    )


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
    assert both.refusal == ("end_said_twice", 2)
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
    assert "→ No action needed: the hold ends automatically." in shown
    tomorrow = (datetime.now(UTC) + timedelta(days=1)).isoformat()
    assert "hold" not in fleetctl("explain", name, "--at", tomorrow, "--json").json["blocked_by"]
