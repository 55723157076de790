"""The commands that halt, and that keep releases from devices, against a running stack."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from tests.support.fleetctl_runner import Fleetctl, MakeDevices


def test_the_emergency_stop_is_one_command_and_lifting_keeps_its_story(fleetctl: Fleetctl) -> None:
    halt = fleetctl("halt", "fleet", "smoke", "--json").json
    try:
        assert halt["scope"] == "fleet"
        assert halt["id"] in {row["id"] for row in fleetctl("halt", "list", "--json").json}
    finally:
        lifted = fleetctl("halt", "lift", "fleet", "false alarm", "--yes", "--json").json
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
    assert f"release {wanted['version']} " in fleetctl("halt", "list").output
    assert fleetctl("halt", "lift", halt["id"][:8], "fixed", "--yes").exit_code == 0
    assert fleetctl("halt", "open", "segment", "moon", "x").refusal == ("unknown_target", 2)
    assert fleetctl("halt", "open", "segment", "canary", " ").refusal == ("reason_missing", 2)


def test_a_way_back_is_said_where_there_is_one_also_in_a_dry_run(
    fleetctl: Fleetctl, release: Callable[..., dict[str, Any]]
) -> None:
    wanted = release()["version"]
    opened = ("halt", "open", "release", wanted, "crashes")
    told = fleetctl(*opened, "--roll-back", "--dry-run", "--json").json
    assert told["going_back"]["devices"] == 0
    for dry in ((), ("--dry-run",)):
        segment = fleetctl("halt", "open", "segment", "canary", "x", "--roll-back", *dry)
        assert segment.refusal == ("option_misplaced", 2)
        assert fleetctl(*opened, "--all-at-once", *dry).refusal == ("option_misplaced", 2)
    assert fleetctl("halt", "list", "--json").json == []


def test_a_release_is_kept_from_devices_that_match_and_given_back(
    fleetctl: Fleetctl, release: Callable[..., dict[str, Any]], devices: MakeDevices, site: str
) -> None:
    wanted = release()["version"]
    first, second = devices(2, hardware_model="Pi 3")
    selector = f'hardware_model="Pi 3" label.site={site}'
    chosen = ("--selector", selector)
    tried = fleetctl("known-bad", "open", wanted, "its disk fills", *chosen, "--dry-run", "--json").json
    wanted_match = {"hardware_model": "Pi 3", "labels": {"site": site}}
    assert tried == {"dry_run": True, "selector": wanted_match, "devices": [first, second]}
    assert fleetctl("known-bad", "list", "--json").json == []
    nobody = ("--selector", f'hardware_model="Pi 33" label.site={site}')
    for dry in ((), ("--dry-run",)):
        refusal = fleetctl("known-bad", "open", wanted, "its disk fills", *nobody, *dry).refusal
        assert refusal == ("pattern_concerns_nobody", 1)
    said = fleetctl("known-bad", "open", wanted, "its disk fills", *chosen, "--dry-run").output
    assert said.startswith(f"Would keep {wanted} from 2 devices that match {selector}.")
    made = fleetctl("known-bad", "open", wanted, "its disk fills", *chosen, "--json").json
    assert (made["selector"], made["cause"], made["lifted_at"]) == (wanted_match, "operator", None)
    assert fleetctl("known-bad", "open", wanted, "again", *chosen).refusal == (
        "known_bad_already",
        1,
    )
    (listed,) = fleetctl("known-bad", "list", "--json").json
    assert listed["id"] == made["id"]
    assert "its disk fills" in (table := fleetctl("known-bad", "list").output)
    assert selector in table
    short = made["id"][:8]
    told = fleetctl("known-bad", "lift", short, "fixed", "--dry-run", "--json").json
    assert told["devices"] == [first, second]
    assert fleetctl("known-bad", "lift", short, "fixed", "--yes").exit_code == 0
    assert fleetctl("known-bad", "list", "--json").json == []
    assert fleetctl("known-bad", "list", "--lifted", "--json").json[0]["lift_reason"] == "fixed"
    assert fleetctl("known-bad", "lift", short, "fixed", "--yes").refusal == ("known_bad_unknown", 5)


def test_a_pattern_of_no_attribute_that_devices_have_is_refused(
    fleetctl: Fleetctl, release: Callable[..., dict[str, Any]]
) -> None:
    add = ("known-bad", "open", release()["version"], "x", "--selector")
    for text in ("color=red", "os=12 labels=x"):
        assert fleetctl(*add, text).refusal == ("selector_unknown", 2)
    for text in ("os", "label.=x"):
        assert fleetctl(*add, text).refusal == ("selector_malformed", 2)
    assert fleetctl(*add, "").refusal == ("selector_empty", 2)
    refused = fleetctl(*add, "on=2.1.0 offline=true")
    assert refused.refusal == ("selector_changes", 2)
    assert refused.error is not None
    assert "cannot select by offline, release" in refused.error.message
