"""One selector says which devices: what it takes, counted at once and one by one, what is refused, what follows a rename."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from tests.support.identities import DEVICE, OTHER, RETIRED, V1, V2, Fleet, gates
from tests.support.rollout_builders import ask, device_id, make_devices, roll_out

CASES = json.loads((Path(__file__).parents[1] / "support" / "selector_cases.json").read_text("utf-8"))
COUNT = "select public.count_devices(%s)"

WORLD = f"""
insert into public.device_roles (name) values ('kiosk');
update public.devices set segment = 'early', role = 'kiosk', hardware_model = 'Pi 3', os = 'Debian 12',
  labels = '{{"site": "rome", "floor": "2", "note": ""}}' where id = '{DEVICE}';
update public.devices set branch = 'staging', hardware_model = 'Pi 4', labels = '{{"site": "milan", "[": "x"}}' where id = '{OTHER}';
insert into public.device_status (device_id, agent_version, current_release) values ('{DEVICE}', '0.9', '{V1}'), ('{OTHER}', '1.0', '{V2}');
update public.device_status set settings = '{{"pinned": ["poll_interval_s"], "poll_interval_s": 1}}' where device_id = '{OTHER}';
insert into public.device_status (device_id) values ('{RETIRED}');
alter table public.device_status disable trigger stamp_reported_at;
update public.device_status set reported_at = now() - interval '1 hour' where device_id in ('{DEVICE}', '{RETIRED}');
update public.device_status set reported_at = now() - interval '1 minute' where device_id = '{OTHER}';
alter table public.device_status enable trigger stamp_reported_at;
insert into public.update_history (id, device_id, release_id, to_commit, outcome, started_at, finished_at) values
  (gen_random_uuid(), '{DEVICE}', '{V2}', repeat('2', 40), 'succeeded', now() + interval '1 day', now()),
  (gen_random_uuid(), '{DEVICE}', '{V2}', repeat('2', 40), 'rolled_back', now(), now()),
  (gen_random_uuid(), '{OTHER}', '{V2}', repeat('2', 40), 'succeeded', now(), now());
"""
#: Which of the cast each takes. Only `device` and `other` have labels, reports and attempts.
TAKES: list[tuple[dict[str, Any], str]] = [
    ({}, "device other pending retired suspended"),
    ({"segment": "early"}, "device"),
    ({"segment": ["early", "canary"]}, "device"),
    ({"segment": ["early", "stable"], "role": "beacon"}, "other pending retired suspended"),
    ({"segment": "Early"}, ""),
    ({"branch": "staging"}, "other"),
    ({"name": ["other", "nobody"]}, "other"),
    ({"state": ["pending", "retired"]}, "pending retired"),
    ({"hardware_model": "Pi 3"}, "device"),
    ({"hardware_model": ["Pi 3", "Pi 4"]}, "device other"),
    ({"hardware_model": ""}, ""),
    ({"os": "Debian 12"}, "device"),
    ({"labels": {}}, "device other pending retired suspended"),
    ({"labels": {"site": "rome"}}, "device"),
    ({"labels": {"site": "rome", "floor": "3"}}, ""),
    ({"labels": {"site": ["rome", "milan", "oslo"]}}, "device other"),
    ({"labels": {"site": ["rome", "milan"], "floor": ["1", "2"]}}, "device"),
    ({"labels": {"site": [f"s{n}" for n in range(99)], "floor": [f"f{n}" for n in range(11)]}}, ""),
    ({"labels": {"site": [*(f"s{n}" for n in range(99)), "rome"], "floor": [*(f"f{n}" for n in range(11)), "2"]}}, "device"),
    ({"labels": {"note": ""}}, "device"),
    ({"labels": {"[": "x"}}, "other"),
    ({"labels": {"[": "y"}}, ""),
    ({"agent_version": "0.9"}, "device"),
    ({"agent_version": ["0.9", "1.0"], "segment": "stable"}, "other"),
    ({"release": "v1"}, "device"),
    ({"release": ["v1", "v2"]}, "device other"),
    ({"release": str(V2).upper()}, "other"),
    ({"release": "2222222"}, "other"),
    ({"not_release": "v1"}, "other pending retired suspended"),
    ({"not_release": ["v1", "v2"]}, "pending retired suspended"),
    ({"offline": True}, "device other"),
    ({"offline": False}, "pending retired suspended"),
    ({"last_outcome": "rolled_back"}, "device"),
    ({"last_outcome": ["rolled_back", "succeeded"]}, "device other"),
    ({"last_outcome": "failed"}, ""),
    ({"shown": "offline"}, "device other"),
    ({"shown": ["pending", "retired"]}, "pending retired"),
    ({"shown": ["never_seen", "healthy", "safe_mode"]}, ""),
    ({"shown": "offline", "state": "retired"}, ""),
    ({"text": "Rome PI"}, "device"),
    ({"text": "v2"}, "other"),
    ({"text": "stable sus"}, "suspended"),
    ({"text": ["nothing of that", "  "]}, "device other pending retired suspended"),
    ({"text": "%"}, ""),
    ({"release": "v1", "offline": True, "last_outcome": "rolled_back", "labels": {"site": ["rome", "x"]}}, "device"),
]  # fmt: skip


def test_a_selector_takes_the_devices_that_have_all_of_it(fleet: Fleet) -> None:
    """At once, counted, and one by one as policy asks: three ways that have to agree."""
    fleet.sql(WORLD)
    asked = json.dumps([selector for selector, _ in TAKES])
    each = "from jsonb_array_elements(%s) with ordinality s (selector, n) order by s.n"
    at_once = f"select (select string_agg(m.name, ' ') from public.matching_devices(s.selector) m), public.count_devices(s.selector) {each}"
    one_by_one = (
        "select (select string_agg(d.name, ' ' order by d.name) from public.devices d "
        f"where private.device_matches(d, private.checked_selector(s.selector, null))) {each}"
    )
    alone = fleet.sql(one_by_one, asked)
    for (selector, names), (found, count), (taken,) in zip(
        TAKES, fleet.sql(at_once, asked, who="viewer"), alone, strict=True
    ):
        assert (found or "", count, taken or "") == (names, len(names.split()), names), selector
    pages = [(None, 2, "device other"), ("other", 2, "pending retired"), ("retired", 2, "suspended")]
    for after, at_most, names in pages:
        page = "select string_agg(name, ' ') from public.matching_devices('{}', %s, %s)"
        assert fleet.one(page, after, at_most, who="viewer") == names


def test_a_count_sees_what_the_caller_may_see(fleet: Fleet) -> None:
    fleet.sql(WORLD)
    for who in ("viewer", "operator", "admin", "service"):
        assert fleet.one(COUNT, '{"release": "v1", "last_outcome": "rolled_back"}', who=who) == 1
    for who in ("stranger", "device", "anon"):
        assert fleet.refused(COUNT, "{}", who=who).code in ("PT403", "42501")
    fleet.sql('drop policy "operators read devices" on public.devices')
    assert fleet.one(COUNT, "{}", who="viewer") == 0


def test_the_normal_form_is_what_the_texts_mean(fleet: Fleet) -> None:
    for case in CASES["valid"]:
        text = json.dumps(case["selector"])
        assert fleet.one("select private.checked_selector(%s, null)", text) == case["selector"]
    twice = {"segment": ["b", "a", "b"], "name": ["x"], "labels": {"site": ["rome", "rome"]}}
    assert fleet.one("select private.checked_selector(%s, null)", json.dumps(twice)) == {
        "segment": ["a", "b"], "name": "x", "labels": {"site": "rome"},
    }  # fmt: skip


REFUSED: list[tuple[Any, str, str]] = [
    ([], "selector_malformed", "A selector is an object of attributes and values."),
    (None, "selector_malformed", "A selector is an object of attributes and values."),
    ("segment=canary", "selector_malformed", "A selector is an object of attributes and values."),
    ({"segmnt": "canary", "site": "rome"}, "selector_unknown", "Devices have no attribute segmnt, site."),
    ({"on": "v1"}, "selector_unknown", "Devices have no attribute on."),
    ({"label": {"site": "x"}}, "selector_unknown", "Devices have no attribute label."),
    ({"": "x"}, "selector_unknown", "Devices have no attribute ."),
    ({"segment": []}, "selector_malformed", "segment must be a text, or a list of at least one text."),
    ({"segment": None}, "selector_malformed", "segment must be a text, or a list of at least one text."),
    ({"segment": ["a", 1]}, "selector_malformed", "segment must be a text, or a list of at least one text."),
    ({"segment": [["a"]]}, "selector_malformed", "segment must be a text, or a list of at least one text."),
    ({"segment": {"a": "b"}}, "selector_malformed", "segment must be a text, or a list of at least one text."),
    ({"labels": "rome"}, "selector_malformed", "labels must be an object of labels and values."),
    ({"labels": []}, "selector_malformed", "labels must be an object of labels and values."),
    ({"labels": {"site": True}}, "selector_malformed", "label site must be a text, or a list of at least one text."),
    ({"labels": {"": "x"}}, "selector_malformed", "A label needs a name."),
    ({"offline": "true"}, "selector_malformed", "offline must be true or false."),
    ({"state": "offline"}, "selector_malformed", "state cannot be offline: it is one of pending, active, suspended, retired."),
    ({"last_outcome": ["failed", "ok"]}, "selector_malformed", "last_outcome cannot be ok: it is one of succeeded, failed, rolled_back, skipped."),
    ({"labels": {"x": "y" * 9000}}, "selector_malformed", "A selector may have at most 8 kB."),
    ({"not_release": "v1.O"}, "release_unknown", "There is no release v1.O."),
    ({"release": "222222"}, "release_unknown", "There is no release 222222."),
]  # fmt: skip


def test_what_is_not_a_selector_is_refused_with_what_is_wrong(fleet: Fleet) -> None:
    for selector, kind, message in REFUSED:
        refusal = fleet.refused(COUNT, json.dumps(selector), who="viewer")
        assert (refusal.code, refusal.kind, refusal.message) == ("PT400", kind, message), selector
        if kind == "selector_unknown":
            assert "agent_version, branch, hardware_model, labels" in refusal.hint
    assert fleet.refused("select public.count_devices(null)", who="viewer").kind == "selector_malformed"


@pytest.mark.parametrize("table", ["rollouts", "rollout_templates", "known_bad_patterns"])
def test_what_is_kept_is_checked_and_refuses_what_changes(fleet: Fleet, table: str) -> None:
    columns, values = {
        "rollouts": ("release_id", f"'{V2}'"),
        "rollout_templates": ("name", "'mine'"),
        "known_bad_patterns": ("release_id, allow_empty, reason", f"'{V2}', true, 'smoke'"),
    }[table]
    chooser = {
        "rollouts": "rollout",
        "rollout_templates": "template",
        "known_bad_patterns": "known-bad pattern",
    }[table]
    insert = f"insert into public.{table} ({columns}, selector) values ({values}, %s)"

    def refusal(**selector: Any) -> tuple[str, str]:
        refused = fleet.refused(insert, json.dumps(selector), who="operator")
        return refused.kind, refused.message

    for key, value in {
        "release": "v1",
        "not_release": "v1",
        "offline": True,
        "last_outcome": "failed",
        "state": "active",
        "shown": "healthy",
        "text": "x",
    }.items():
        assert refusal(segment="canary", **{key: value}) == (
            "selector_changes", f"A {chooser} cannot select by {key}, because that changes while it acts.",
        )  # fmt: skip
    if table != "known_bad_patterns":
        assert refusal(agent_version="0.9")[0] == "selector_changes"
    assert refusal(site="rome")[0] == "selector_unknown"
    kept = {"segment": ["early", "canary", "early"], "labels": {"site": ["rome"]}}
    fleet.sql(insert, json.dumps(kept), who="operator")
    assert fleet.one(f"select selector from public.{table} where selector <> '{{}}'") == {
        "segment": ["canary", "early"], "labels": {"site": "rome"},
    }  # fmt: skip
    if table == "rollout_templates":
        edit = "update public.rollout_templates set selector = '{\"site\": \"rome\"}' where name = 'mine'"
        assert fleet.refused(edit, who="operator").kind == "selector_unknown"


def test_a_rollout_reaches_whom_its_selector_takes(fleet: Fleet) -> None:
    """In the answer, in the preview, and when it is started by a template."""
    make_devices(fleet, 2, labels='{"site": "rome"}')
    fleet.sql("update public.devices set hardware_model = 'Pi 3' where name in ('bulk1', 'other')")
    selector = {"hardware_model": ["Pi 3", "Zero"], "labels": {"site": ["rome", "oslo"]}}
    rollout = roll_out(fleet, selector=selector)
    told = [ask(fleet, device_id(fleet, name))["rollout_id"] for name in ("bulk1", "bulk2", "other")]
    assert told == [str(rollout), None, None]
    preview = "select string_agg(name, ' ') from public.preview_rollout(%s)"
    assert fleet.one(preview, rollout, who="viewer") == "bulk1"
    # The same selector, said differently, is for the same devices.
    again = roll_out(fleet, release=V1, selector={**selector, "hardware_model": ["Zero", "Pi 3"]})
    assert fleet.one("select state::text from public.rollouts where id = %s", rollout) == "superseded"
    assert fleet.one(preview, again, who="viewer") == "bulk1"


def test_a_known_bad_pattern_takes_several_values(fleet: Fleet) -> None:
    fleet.sql(WORLD)
    fleet.sql(
        "select public.mark_known_bad(%s, %s, 'its disk fills')",
        V2, json.dumps({"hardware_model": ["Zero", "Pi 3"], "agent_version": ["0.9", "0.8"]}), who="operator",
    )  # fmt: skip
    assert gates(ask(fleet))["known_bad"] == "refuse"
    marked = "select summary from public.alerts where kind = 'known_bad_pattern'"
    assert fleet.one(marked) == (
        "v2 is known bad for devices with agent_version 0.8 or 0.9 and hardware_model Pi 3 or Zero: its disk fills"
    )
    again = "select public.mark_known_bad(%s, %s, 'again')"
    same = {"agent_version": ["0.8", "0.9"], "hardware_model": ["Pi 3", "Zero"]}
    assert fleet.refused(again, V2, json.dumps(same), who="operator").kind == "known_bad_already"


@pytest.mark.parametrize("several", [False, True])
def test_a_selector_follows_a_rename(fleet: Fleet, several: bool) -> None:
    def named(value: str) -> Any:
        return sorted([value, "zz"]) if several else value

    selector = {
        "segment": named("stable"),
        "role": named("beacon"),
        "branch": named("main"),
        "name": named("other"),
    }
    rollout = roll_out(fleet, selector=selector)
    fleet.sql(
        "insert into public.rollout_templates (name, selector) values ('mine', %s)", json.dumps(selector)
    )
    fleet.sql(
        "insert into public.known_bad_patterns (release_id, selector, reason) values (%s, %s, 'x')",
        V1,
        json.dumps(selector),
    )
    assert ask(fleet, OTHER)["action"] == "update"
    for table, old, new in (
        ("segments", "stable", "ring-b"), ("device_roles", "beacon", "kiosk-2"),
        ("branches", "main", "trunk"), ("devices", "other", "another"),
    ):  # fmt: skip
        fleet.sql(f"update public.{table} set name = %s where name = %s", new, old, who="operator")
    renamed = {
        "segment": named("ring-b"),
        "role": named("kiosk-2"),
        "branch": named("trunk"),
        "name": named("another"),
    }
    for table in ("rollouts", "rollout_templates", "known_bad_patterns"):
        assert fleet.sql(f"select selector from public.{table} where selector <> '{{}}'") == [(renamed,)], (
            table
        )
    assert (
        fleet.one("select state::text from public.rollout_claims where rollout_id = %s", rollout) == "claimed"
    )
    assert fleet.one("select count(*) from public.preview_rollout(%s)", rollout, who="viewer") == 1
    # By hand it stays.
    slip = 'update public.rollouts set selector = \'{"segment": "early"}\' where id = %s'
    assert fleet.refused(slip, rollout, who="operator").kind == "rollout_is_fixed"


@pytest.mark.parametrize("older", ["early", "lab", ["early", "lab"]])
def test_a_rename_that_makes_two_patterns_the_same_leaves_one(fleet: Fleet, older: str | list[str]) -> None:
    """Of two that both had the old name, the older one."""
    mark = "select (public.mark_known_bad(%s, %s, 'x', allow_empty => true)).id"
    first, second = (
        fleet.one(mark, V2, json.dumps({"segment": segment}), who="operator")
        for segment in (older, "lab" if older == "early" else "early")
    )
    fleet.sql("update public.segments set name = 'lab' where name = 'early'", who="operator")
    rows = fleet.sql(
        "select id, selector, lift_reason from public.known_bad_patterns order by lifted_at nulls first"
    )
    stays, goes = (second, first) if older == "early" else (first, second)
    assert rows == [
        (stays, {"segment": "lab"}, None),
        (goes, {"segment": "lab"}, "The same as another one since early was renamed to lab."),
    ]


def test_a_selector_does_not_follow_a_retired_device_whose_name_another_one_has(fleet: Fleet) -> None:
    fleet.sql("update public.devices set name = 'other' where id = %s", RETIRED)
    rollout = roll_out(fleet, selector={"name": "other"})
    fleet.sql("update public.devices set name = 'scrap' where id = %s", RETIRED, who="operator")
    assert ask(fleet, OTHER)["rollout_id"] == str(rollout)


def test_a_device_that_leaves_the_selector_gives_its_slot_back(fleet: Fleet) -> None:
    fleet.sql("update public.devices set os = 'Debian 12' where id in (%s, %s)", DEVICE, OTHER)
    rollout = roll_out(fleet, max_in_flight=1, selector={"os": "Debian 12"})
    assert [ask(fleet, device)["action"] for device in (DEVICE, OTHER)] == ["update", "run"]
    fleet.sql("update public.devices set os = 'Debian 13' where id = %s", DEVICE, who="operator")
    states = "select state::text from public.rollout_claims where rollout_id = %s and device_id = %s"
    assert fleet.one(states, rollout, DEVICE) == "released"
    assert ask(fleet, OTHER)["action"] == "update"
