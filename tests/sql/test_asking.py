"""What a person can ask about a rollout."""

from __future__ import annotations

import json
import random
from typing import Any

import pytest

from tests.support.identities import OTHER, V1, V2, Fleet
from tests.support.profiles import amount
from tests.support.rollout_builders import (
    ask,
    device_id,
    finish,
    make_devices,
    roll_out,
    state,
    window,
)


def test_a_preview_says_who_and_when_and_starts_nothing(fleet: Fleet) -> None:
    make_devices(fleet, 2)
    fleet.report(V2)
    window(fleet, "daily", "02:00", 60, "UTC")
    fleet.sql("update public.devices set maintenance_window = 'w', timezone = 'UTC' where id = %s", OTHER)
    draft = roll_out(fleet, {"segment": "canary", "soak_s": 3600}, {}, start=False)
    rows = fleet.sql(
        "select stage, name, already_there, to_char(earliest at time zone 'UTC', 'YYYY-MM-DD HH24:MI') "
        "from public.preview_rollout(%s, '2026-06-10 12:00Z') order by stage, name",
        draft, who="viewer",
    )  # fmt: skip
    assert rows == [
        (1, "device", True, None),
        (2, "bulk1", False, "2026-06-10 13:00"),
        (2, "bulk2", False, "2026-06-10 13:00"),
        (2, "other", False, "2026-06-11 02:00"),
    ]
    assert (state(fleet, draft), fleet.one("select count(*) from public.rollout_claims")) == ("draft", 0)


def test_a_preview_knows_of_a_window_that_is_set_aside(fleet: Fleet) -> None:
    window(fleet, "daily", "02:00", 60, "UTC")
    draft = roll_out(fleet, {"segment": "canary"}, start=False)
    for until, earliest in (("13:00", "10 12:00"), ("12:00", "11 02:00")):
        fleet.sql("update public.devices set ignore_window_until = %s", f"2026-06-10 {until}Z")
        (row,) = fleet.sql(
            "select to_char(earliest at time zone 'UTC', 'DD HH24:MI') from public.preview_rollout(%s, '2026-06-10 12:00Z')",
            draft, who="viewer",
        )  # fmt: skip
        assert row[0] == earliest


def _anybody(dice: random.Random, n: int) -> dict[str, Any]:
    """A device with whatever can matter to its answer; hours are from now."""
    return {
        "id": f"00000000-0000-4000-9000-{dice.getrandbits(48):012x}", "name": f"any-{n}", "public_key": f"{n:043}",
        "role": "beacon", "branch": "main", "poll_interval_s": None,
        "state": dice.choice(["active"] * 6 + ["suspended"]),
        "segment": dice.choice(["canary", "early", "stable", "stable"]),
        "labels": dice.choice([{}, {"site": "rome"}, {"site": "rome", "floor": "1"}, {"site": "milan"}]),
        "hardware_model": dice.choice([None, "Pi 3", "Pi 4"]),
        "pinned_release": dice.choice([None] * 8 + [str(V1)]),
        "maintenance_window": dice.choice([None, None, "w", "shut"]),
        "timezone": dice.choice(["UTC", "Asia/Tokyo", "America/New_York"]),
        "hold": dice.random() < 0.3, "hold_until": dice.choice([None, 1, 5, 40]),
        "ignore_window_until": dice.choice([None, None, 2, 6]), "running": dice.choice([None, str(V1), str(V2)]),
        "bad": dice.random() < 0.1,
    }  # fmt: skip


@pytest.mark.parametrize("seed", range(amount(2, full=20)))
def test_a_preview_says_what_each_device_is_answered(fleet: Fleet, seed: int) -> None:
    """The query over the whole fleet against decide(), on a fleet drawn at random: who, by which stage, and when."""
    dice = random.Random(seed)
    window(fleet, "daily", "02:00", 90, "UTC")
    fleet.sql("insert into public.maintenance_windows (name) values ('shut')")
    if dice.random() < 0.5:
        fleet.sql("update public.segments set maintenance_window = 'w' where name = 'stable'")
    devices = json.dumps([_anybody(dice, n) for n in range(40)])
    fleet.sql(
        "insert into public.devices (id, name, role, branch, segment, state, public_key, labels, hardware_model, pinned_release, "
        "maintenance_window, timezone, hold, hold_until, ignore_window_until) "
        "select r.id, r.name, r.role, r.branch, r.segment, r.state, r.public_key, r.labels, r.hardware_model, r.pinned_release, "
        "r.maintenance_window, r.timezone, r.hold, case when r.hold then now() + make_interval(hours => (e ->> 'hold_until')::int) end, "
        "now() + make_interval(hours => (e ->> 'ignore_window_until')::int) from jsonb_array_elements(%s) e, "
        "jsonb_populate_record(null::public.devices, e - 'hold_until' - 'ignore_window_until') r",
        devices,
    )  # fmt: skip
    fleet.sql(
        "insert into public.device_status (device_id, state, current_release) "
        "select (e ->> 'id')::uuid, 'healthy', (e ->> 'running')::uuid from jsonb_array_elements(%s) e", devices)  # fmt: skip
    fleet.sql(
        "insert into public.known_bad_releases (device_id, release_id) "
        "select (e ->> 'id')::uuid, %s from jsonb_array_elements(%s) e where (e ->> 'bad')::boolean", V2, devices)  # fmt: skip
    stages: list[dict[str, Any]] = [
        {"segment": dice.choice(["canary", "early"])},
        {"segment": "stable", "percent": dice.choice([0.001, 10, 55.5])},
        {"device_ids": [row["id"] for row in json.loads(devices)[:5]]},
        {"percent": dice.choice([20, 80, 100])},
    ]  # fmt: skip
    # It soaks for long, or it would be over before it is asked about.
    chosen = [stage | {"soak_s": 86400} for stage in dice.sample(stages, dice.randint(1, 4))]
    rollout = roll_out(fleet, *chosen, selector={"labels": {"site": "rome"}})
    fleet.sql("update public.rollout_stages set opened_at = now() where opened_at is null")
    fleet.sql(
        "select public.mark_known_bad(%s, '{\"hardware_model\": \"Pi 3\"}', 'seen', allow_empty => true)", V2, who="operator"
    )  # fmt: skip
    wrong = fleet.sql(
        """
        with previewed as materialized (
          select d.name as device, d.state, p.*, a.at, private.decide(d, a.at) as said, private.decide(d, p.earliest) as then_said,
            private.decide(d, p.earliest - interval '1 second') as before
          from public.devices d cross join (select now() as at) a
          left join public.preview_rollout(%s, a.at) p on p.device_id = d.id
        ),
        told as (
          select p.*, array(select g ->> 'gate' from jsonb_array_elements((p.said).gates) g where g ->> 'verdict' = 'refuse') as refused
          from previewed p
        )
        select to_jsonb(t) from told t
        where not coalesce(case
          when t.stage is null then t.state <> 'active' or (t.said).rollout_id is distinct from %s
          else (t.said).rollout_id = %s and (t.said).stage = t.stage and case
            when t.already_there then (t.said).action = 'run' and (t.said).release_id = %s and t.earliest is null
            else ('known_bad' = any (t.refused)) = t.known_bad and case
              when t.earliest is null then (t.said).action = 'run'
              else (t.then_said).action = 'update' and ((t.before).action = 'run') = (t.earliest > t.at) end end end, false)
        """,
        rollout, rollout, rollout, V2,
    )  # fmt: skip
    assert wrong == [], [
        (
            w[0]["name"],
            w[0]["stage"],
            w[0]["earliest"],
            w[0]["already_there"],
            w[0]["known_bad"],
            w[0]["said"],
        )
        for w in wrong
    ]
    if seed < 2:
        # In some of the others nobody gets it.
        assert fleet.one(
            "select count(*) > 0 from public.preview_rollout(%s) where earliest is not null", rollout
        )
    progress = fleet.one("select public.rollout_progress(%s)", rollout)
    counted = fleet.sql(
        "select count(*), count(*) filter (where already_there), count(*) filter (where known_bad and not already_there) "
        "from public.preview_rollout(%s)", rollout)  # fmt: skip
    assert [(progress["devices"], progress["on_release"], progress["known_bad"])] == counted


def test_progress_counts_what_is_there(fleet: Fleet) -> None:
    make_devices(fleet, 4)
    rollout = roll_out(fleet, {"segment": "canary"}, {"min_attempted": 5, "max_in_flight": 2})
    ask(fleet)
    finish(fleet, rollout)
    for n in range(1, 4):
        ask(fleet, device_id(fleet, f"bulk{n}"))
    finish(fleet, rollout, device_id(fleet, "bulk1"))
    progress = fleet.one("select public.rollout_progress(%s)", rollout, who="viewer")
    assert (progress["devices"], progress["on_release"], progress["in_flight"], progress["succeeded"]) == (
        6,
        2,
        1,
        2,
    )
    assert [s["devices"] for s in progress["stages"]] == [1, 5]
    assert progress["stages"][1]["offline"] == 3
    assert progress["summary"] == "Running: 2 of 6 devices on v2; 1 in flight, 0 failed."


def test_operators_see_a_rollout_move_live(fleet: Fleet) -> None:
    fleet.messages()
    roll_out(fleet)
    events = {event for _, event, _ in fleet.messages("fleet")}
    assert {"rollouts", "rollout_stages"} <= events
