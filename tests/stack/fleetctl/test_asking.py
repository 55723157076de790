"""What asks first and what never does, and the reason in every form."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from typing import Any
from uuid import uuid4

import pytest

from tests.support.fleetctl_runner import Db, Fleetctl, MakeDevices, of


@pytest.fixture
def rollout(fleetctl: Fleetctl, db: Db, devices: MakeDevices, site: str) -> Iterator[str]:
    """A draft for three devices of this test, of a release that nobody gets otherwise."""
    devices(3, branch="staging")
    db.execute("update branches set delivery = 'rollout_only' where name = 'staging'")
    version = f"v-{uuid4().hex[:8]}"
    fleetctl("release", "add", (uuid4().hex * 2)[:40], "--version", version, "--branch", "staging")
    stages = ("--stage", "1%,soak=1h", "--stage", "100%,approve")
    fleetctl("rollout", "create", version, "--label", f"site={site}", *stages)
    yield version
    db.execute("update rollouts set state = 'cancelled' where state in ('running', 'paused')")
    db.execute("update branches set delivery = 'immediate' where name = 'staging'")


@pytest.mark.parametrize(
    "command",
    [
        ("halt", "open", "segment", "early"), ("halt", "open", "fleet"), ("halt", "fleet"),
        ("hold", "set", "{device}"),
        ("known-bad", "open", "{release}", "--selector", "label.site={site}"),
    ],
)  # fmt: skip
def test_a_reason_is_given_in_words_or_by_its_option(
    fleetctl: Fleetctl,
    devices: MakeDevices,
    site: str,
    release: Callable[..., Any],
    command: tuple[str, ...],
) -> None:
    (name,) = devices()
    words = [word.format(device=name, site=site, release=release()["version"]) for word in command]
    assert fleetctl(*words).refusal == ("reason_missing", 2)
    both = fleetctl(*words, "seen in Rome", "--reason", "smoke")
    assert both.refusal == ("reason_said_twice", 2)
    for reason in (("seen in Rome",), ("--reason", "smoke")):
        done = fleetctl(*words, *reason, "--json").json
        row = done[0] if isinstance(done, list) else done
        assert row.get("hold_reason", row.get("reason")) == reason[-1]
        undo = {"halt": ["halt", "lift"], "known-bad": ["known-bad", "lift"], "hold": ["hold", "clear"]}[
            command[0]
        ]
        why: tuple[str, ...] = () if command[0] == "hold" else reason
        assert fleetctl(*undo, name if command[0] == "hold" else row["id"], *why, "--yes").exit_code == 0


def test_what_only_stops_never_asks_and_says_how_many(
    fleetctl: Fleetctl, devices: MakeDevices, site: str, rollout: str
) -> None:
    held = fleetctl("hold", "set", "--label", f"site={site}", "--reason", "inventory")
    assert held.output == "Holding 3 devices.\n"
    assert fleetctl("hold", "clear", "--label", f"site={site}").refusal == ("confirmation_needed", 2)
    fleetctl("hold", "clear", "--label", f"site={site}", "--yes")
    fleetctl("rollout", "start", rollout, "--yes")
    paused = fleetctl("rollout", "pause", rollout).output
    assert paused == f"The rollout is now paused: 0 of 3 devices run {rollout}.\n"
    halted = fleetctl("halt", "open", "rollout", rollout, "seen in Rome")
    assert "): 3 devices start no update." in halted.output
    halt = fleetctl("halt", "list", "--json").json[0]["id"]
    assert fleetctl("halt", "lift", halt, "it was steam").refusal == ("confirmation_needed", 2)
    assert "3 devices may update again" in fleetctl("halt", "lift", halt, "it was steam", "--dry-run").output
    assert "3 devices may update again" in fleetctl("halt", "lift", halt, "it was steam", "--yes").output


def test_what_a_colleague_paused_is_not_resumed_by_start(fleetctl: Fleetctl, db: Db, rollout: str) -> None:
    fleetctl("rollout", "start", rollout, "--yes")
    fleetctl("rollout", "pause", rollout)
    refused = fleetctl("rollout", "start", rollout, "--yes")
    assert refused.refusal == ("rollout_paused", 1)
    assert "service_role paused it at" in str(refused.error)
    assert fleetctl("rollout", "resume", rollout).refusal == ("confirmation_needed", 2)
    assert (
        fleetctl("rollout", "resume", rollout, "--yes").output
        == "The rollout is now running, for 3 devices more.\n"
    )


def test_the_stage_that_waits_needs_no_number(fleetctl: Fleetctl, rollout: str) -> None:
    fleetctl("rollout", "start", rollout, "--yes")
    assert "approve stage 2" in fleetctl("rollout", "approve", rollout, "--dry-run").output
    approved = fleetctl("rollout", "approve", rollout, "--yes", "--json").json
    assert (approved["position"], approved["approved_at"] is None) == (2, False)
    assert fleetctl("rollout", "approve", rollout, "--yes").refusal == ("stage_unknown", 5)


def test_a_completed_rollout_that_is_cancelled_names_who_loses_the_release(
    fleetctl: Fleetctl, db: Db, rollout: str, site: str
) -> None:
    fleetctl("rollout", "start", rollout, "--yes")
    release = db.execute("select id from releases where version = %s", [rollout]).fetchall()[0]["id"]
    runs = "insert into device_status (device_id, current_release) values (%s, %s)"
    db.execute(runs, [of(db, f"{site}-0")["id"], release])
    db.execute("update rollouts set state = 'completed' where release_id = %s", [release])
    asked = fleetctl("rollout", "cancel", rollout)
    assert asked.refusal == ("confirmation_needed", 2)
    assert str(asked.error) == (
        f"This would cancel {rollout} (1 of 3 devices run it and keep it), which takes it from "
        f"2 devices ({site}-1, {site}-2) and from any that come later."
    )
    told = json.loads(fleetctl("rollout", "cancel", rollout, "--dry-run", "--json").output)
    assert sorted(told["without"]) == [f"{site}-1", f"{site}-2"]
    assert fleetctl("rollout", "cancel", rollout, "--yes").exit_code == 0
