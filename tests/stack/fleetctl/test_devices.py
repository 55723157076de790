"""The commands about devices against a running stack: what they show, change, refuse and ask first."""

from __future__ import annotations

import json
from datetime import UTC, datetime, timedelta

import pytest

from fleet_agent.support.fingerprint import fingerprint
from tests.support.fleetctl_runner import Db, Fleetctl, MakeDevices, of


def test_list_shows_what_was_selected_with_its_last_report(
    fleetctl: Fleetctl, devices: MakeDevices, db: Db, site: str
) -> None:
    first, second = devices(2)
    db.execute("insert into device_status (device_id, state) values (%s, 'degraded')", [of(db, first)["id"]])
    rows = fleetctl("device", "list", "--label", f"site={site}", "--json").json
    assert [(row["name"], row["status"].get("state"), row["offline"]) for row in rows] == [
        (first, "degraded", False), (second, None, False),
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
    assert set(story) == {"device", "explanation", "history", "commands", "drifted_clocks"}
    text = fleetctl("device", "show", name).output
    assert "The clock of" not in text
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
    key = fingerprint(of(db, name)["public_key"])
    for verb, state in (
        (("accept", "--fingerprint", key), "active"), (("suspend",), "suspended"), (("activate",), "active"),
    ):  # fmt: skip
        assert fleetctl("device", *verb, name).exit_code == 0
        assert of(db, name)["state"] == state
    assert fleetctl("device", "activate", name).exit_code == 0, "asking for what is so already is no error"
    assert fleetctl("device", "retire", name, "--yes").exit_code == 0
    assert of(db, name)["state"] == "retired"
    assert fleetctl("device", "suspend", name).refusal == ("device_state_is_final", 1)


def test_a_stranger_who_took_the_name_first_is_not_let_in_by_name(
    fleetctl: Fleetctl, devices: MakeDevices, db: Db
) -> None:
    mine, stranger = devices(2, state="pending")
    key = fingerprint(of(db, mine)["public_key"])
    assert fleetctl("device", "accept", stranger, "--yes").refusal == ("fingerprint_needed", 2)
    assert fleetctl("device", "accept", mine, stranger, "--fingerprint", key).refusal == (
        "fingerprint_differs", 1,
    )  # fmt: skip
    assert {of(db, name)["state"] for name in (mine, stranger)} == {"pending"}
    assert key in fleetctl("device", "show", mine).output


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
    assert fleetctl("device", "suspend", "--selector", " ", "--yes").refusal == ("nothing_selected", 2)


def test_one_selector_says_which_devices_are_meant(
    fleetctl: Fleetctl, devices: MakeDevices, db: Db, site: str
) -> None:
    first, second, third = devices(3)
    db.execute("insert into device_status (device_id, state) values (%s, 'healthy')", [of(db, first)["id"]])
    fleetctl("device", "set", third, "--to", "segment=canary", "--to", "label.room=room 7")

    def listed(selector: str, *more: str) -> list[str]:
        selected = ("--selector", f"label.site={site} {selector}", *more)
        rows = fleetctl("device", "list", *selected, "--json").json
        assert fleetctl("device", "count", *selected, "--json").json == {"devices": len(rows)}
        return [row["name"] for row in rows]

    assert listed("segment=canary,stable") == [first, second, third]
    assert listed('label.room="room 7"') == [third]
    assert listed("", "--segment", "canary") == [third]
    assert listed("state=active", second, third) == [second, third]
    assert listed(f"name={second},{third}", first, third) == [third]
    assert listed("offline=true") == []
    # What changes by itself is for commands.
    failed = f"label.site={site} last_outcome=failed"
    sent = fleetctl("command", "send", "--selector", failed, "--do", "restart")
    assert sent.refusal == ("no_device_matches", 5)
    assert sent.error is not None
    assert sent.error.message == f"No device matches last_outcome=failed label.site={site}."
    asked = ("device", "suspend", "--segment", "canry", "--label", f"site={site}", "--yes")
    assert fleetctl(*asked).refusal == ("segment_unknown", 5)
    assert fleetctl(*asked, "--allow-empty").output == "No device needs this.\n"
    twice = fleetctl("device", "list", "--selector", "segment=early", "--segment", "canary")
    assert twice.refusal == ("selector_malformed", 2)
    mistyped = ("device", "suspend", "--selector", "not_on=2.1.O", "--yes")
    assert fleetctl(*mistyped).refusal == ("release_unknown", 2)


def test_without_a_selection_a_list_and_a_count_leave_the_retired_out(
    fleetctl: Fleetctl, devices: MakeDevices
) -> None:
    (name,) = devices(1, state="retired")
    for selected, there in ((), False), (("--all",), True), (("--state", "retired"), True):
        rows = fleetctl("device", "list", *selected, "--json").json
        assert (name in {row["name"] for row in rows}) == there
        assert fleetctl("device", "count", *selected, "--json").json == {"devices": len(rows)}


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
