"""What a device is told, gate by gate."""

from __future__ import annotations

import pytest

from fleet_agent.model import Directive
from tests.support.identities import DEVICE, OTHER, PENDING, STAGED, V1, V2, Fleet, detail, gates

NOW = "2026-06-01 12:00Z"


def test_the_agent_can_read_the_answer(fleet: Fleet) -> None:
    fleet.sql(
        "insert into public.device_commands (device_id, kind, args) values (%s, 'tail_logs', '{\"lines\": 5}')",
        DEVICE,
    )
    directive = Directive.model_validate(fleet.desired())
    assert directive.release is not None
    assert directive.release.id == V2
    assert directive.device.id == DEVICE
    assert directive.device.segment == "canary"
    assert directive.commands[0].args == {"lines": 5}
    assert directive.next_poll_s == 900


def test_a_new_device_gets_the_newest_available_release_of_its_branch(fleet: Fleet) -> None:
    answer = fleet.desired()
    assert answer["action"] == "update"
    assert answer["release"] == {"id": str(V2), "commit_sha": "2" * 40, "version": "v2", "branch": "main"}
    assert set(gates(answer).values()) == {"pass"}


def test_a_device_that_runs_the_newest_keeps_running_it(fleet: Fleet) -> None:
    fleet.report(V2)
    answer = fleet.desired()
    assert (answer["action"], answer["release"]["id"]) == ("run", str(V2))
    assert set(gates(answer).values()) == {"pass"}


def test_changing_the_branch_changes_the_release(fleet: Fleet) -> None:
    fleet.report(V2)
    fleet.sql("update public.devices set branch = 'staging' where id = %s", DEVICE, who="operator")
    answer = fleet.desired()
    assert (answer["action"], answer["release"]["id"]) == ("update", str(STAGED))


def test_a_branch_without_releases_waits(fleet: Fleet) -> None:
    fleet.sql("insert into public.branches (name) values ('empty')")
    fleet.sql("update public.devices set branch = 'empty' where id = %s", DEVICE)
    answer = fleet.desired()
    assert (answer["action"], answer["release"]) == ("run", None)
    assert gates(answer)["release"] == "wait"


def test_withdrawing_what_a_device_runs_sends_it_to_the_newest_that_is_left(fleet: Fleet) -> None:
    fleet.report(V2)
    fleet.sql("update public.releases set state = 'withdrawn' where id = %s", V2, who="operator")
    answer = fleet.desired()
    assert (answer["action"], answer["release"]["id"]) == ("update", str(V1))


def test_a_pin_beats_the_newest_release(fleet: Fleet) -> None:
    fleet.sql("select public.pin_device(%s, %s)", DEVICE, V1, who="operator")
    answer = fleet.desired()
    assert (answer["action"], answer["release"]["id"]) == ("update", str(V1))
    assert detail(answer, "pin") == "Pinned to v1."
    fleet.report(V1)
    assert fleet.desired()["action"] == "run"
    fleet.sql("select public.unpin_device(%s)", DEVICE, who="operator")
    assert fleet.desired()["release"]["id"] == str(V2)


def test_a_pin_to_a_withdrawn_release_is_not_followed(fleet: Fleet) -> None:
    fleet.report(V2)
    fleet.sql("select public.pin_device(%s, %s)", DEVICE, V1, who="operator")
    fleet.sql("update public.releases set state = 'withdrawn' where id = %s", V1)
    answer = fleet.desired()
    assert (answer["action"], answer["release"]["id"]) == ("run", str(V2))
    assert gates(answer)["pin"] == "refuse"


@pytest.mark.parametrize("pinned", [False, True])
def test_a_halt_of_the_fleet_keeps_everybody_where_they_are(fleet: Fleet, pinned: bool) -> None:
    fleet.report(V1)
    if pinned:
        fleet.sql("select public.pin_device(%s, %s)", DEVICE, V2, who="operator")
    fleet.sql("select public.halt_fleet('smoke in Rome')", who="operator")
    answer = fleet.desired()
    assert (answer["action"], answer["release"]["id"]) == ("run", str(V1))
    assert gates(answer)["halt"] == "wait"
    assert detail(answer, "halt") == "The fleet is halted: smoke in Rome"
    fleet.sql("select public.lift_halt((select id from public.halts), 'false alarm')", who="operator")
    assert fleet.desired()["action"] == "update"


@pytest.mark.parametrize(
    ("scope", "target", "sentence"),
    [
        ("segment", "canary", "Segment canary is halted: why"),
        ("role", "beacon", "Role beacon is halted: why"),
        ("branch", "main", "Branch main is halted: why"),
    ],
)
def test_a_halt_stops_those_it_names(fleet: Fleet, scope: str, target: str, sentence: str) -> None:
    fleet.sql(
        "insert into public.halts (scope, target, reason) values (%s, %s, 'why')",
        scope,
        target,
        who="operator",
    )
    answer = fleet.desired()
    assert answer["action"] == "run"
    assert detail(answer, "halt") == sentence


def test_a_halt_of_another_segment_stops_nobody_here(fleet: Fleet) -> None:
    fleet.sql(
        "insert into public.halts (scope, target, reason) values ('segment', 'stable', 'why')", who="operator"
    )
    assert fleet.desired()["action"] == "update"
    assert fleet.desired("other device")["action"] == "run"


@pytest.mark.parametrize("pinned", [False, True])
def test_a_halted_release_is_given_to_nobody(fleet: Fleet, pinned: bool) -> None:
    if pinned:
        fleet.sql("select public.pin_device(%s, %s)", DEVICE, V2, who="operator")
    fleet.sql(
        "insert into public.halts (scope, target, reason) values ('release', %s, 'why')",
        str(V2),
        who="operator",
    )
    answer = fleet.desired()
    assert answer["action"] == "run"
    assert detail(answer, "release_halt") == "Release v2 is halted: why"
    fleet.report(V2)
    assert fleet.desired()["action"] == "run"


@pytest.mark.parametrize(
    ("until", "at", "verdict"),
    [
        (None, NOW, "wait"),
        ("2026-06-01 12:00:01Z", NOW, "wait"),
        ("2026-06-01 12:00Z", NOW, "pass"),
        ("2026-06-01 11:59:59Z", NOW, "pass"),
    ],
)
def test_a_hold_lasts_until_its_end(fleet: Fleet, until: str | None, at: str, verdict: str) -> None:
    fleet.sql(
        # As the owner: for people, this time has passed.
        "update public.devices set hold = true, hold_until = %s where id = %s",
        until,
        DEVICE,
    )
    answer = fleet.explain(at=at)
    assert gates(answer)["hold"] == verdict
    assert answer["action"] == ("run" if verdict == "wait" else "update")


def test_a_device_asks_again_when_its_hold_ends(fleet: Fleet) -> None:
    fleet.sql("update public.devices set hold = true, hold_until = '2026-06-01 12:01Z' where id = %s", DEVICE)
    assert fleet.explain(at=NOW)["next_poll_s"] == 61


def test_a_hold_says_why_in_the_devices_own_time(fleet: Fleet) -> None:
    fleet.sql(
        "update public.devices set hold = true, hold_reason = 'fair in town', hold_until = '2026-06-01 12:00Z', "
        "timezone = 'Europe/Rome' where id = %s",
        DEVICE,
    )
    assert (
        detail(fleet.explain(at="2026-05-30Z"), "hold")
        == "Held until 2026-06-01 14:00 Europe/Rome: fair in town."
    )


def _attempt(fleet: Fleet, outcome: str, release: str | None = str(V2), who: str = "device") -> None:
    fleet.sql(
        "insert into public.update_history (id, device_id, release_id, to_commit, outcome, error, started_at, finished_at) "
        "select gen_random_uuid(), (current_setting('request.jwt.claims')::jsonb ->> 'sub')::uuid, %s, repeat('2', 40), %s, "
        "'port 80 stayed closed', now(), now()",
        release, outcome, who=who,
    )  # fmt: skip


@pytest.mark.parametrize("release", [str(V2), None])
def test_a_device_is_not_offered_again_what_it_rolled_back_from(fleet: Fleet, release: str | None) -> None:
    fleet.report(V1)
    _attempt(fleet, "rolled_back", release)
    answer = fleet.desired()
    assert (answer["action"], answer["release"]["id"]) == ("run", str(V1))
    assert gates(answer)["known_bad"] == "refuse"
    assert "port 80 stayed closed" in detail(answer, "known_bad")
    # Other devices have their own memory.
    assert fleet.desired("other device")["action"] == "update"


def test_an_attempt_that_never_swapped_may_be_repeated(fleet: Fleet) -> None:
    _attempt(fleet, "failed")
    assert fleet.desired()["action"] == "update"


@pytest.mark.parametrize(
    "again",
    ["delete from public.known_bad_releases where true", f"select public.pin_device('{DEVICE}', '{V2}')"],
)
def test_an_operator_may_say_try_again(fleet: Fleet, again: str) -> None:
    _attempt(fleet, "rolled_back")
    fleet.sql(again, who="operator")
    assert fleet.desired()["action"] == "update"


def test_a_pin_made_before_the_rollback_does_not_repeat_it_for_ever(fleet: Fleet) -> None:
    fleet.sql("select public.pin_device(%s, %s)", DEVICE, V2, who="operator")
    _attempt(fleet, "rolled_back")
    assert fleet.desired()["action"] == "run"
    fleet.sql("select public.pin_device(%s, %s)", DEVICE, V2, who="operator")
    assert fleet.desired()["action"] == "update"


def test_a_later_success_clears_the_memory(fleet: Fleet) -> None:
    _attempt(fleet, "rolled_back")
    _attempt(fleet, "succeeded")
    assert fleet.desired()["action"] == "update"


def test_poll_interval_is_the_devices_own_or_the_fleets(fleet: Fleet) -> None:
    fleet.sql("update public.fleet_settings set default_poll_interval_s = 120 where id", who="admin")
    assert fleet.desired()["next_poll_s"] == 120
    fleet.sql("update public.devices set poll_interval_s = 30 where id = %s", DEVICE, who="operator")
    answer = fleet.desired()
    assert (answer["next_poll_s"], answer["config"]["poll_interval_s"]) == (30, 30)


def test_only_queued_commands_of_this_device_that_have_not_expired_are_told(fleet: Fleet) -> None:
    fleet.sql(
        "insert into public.device_commands (device_id, kind, requested_at, expires_at) values "
        "(%(d)s, 'restart', now() - interval '2 hours', now() - interval '1 hour')".replace(
            "%(d)s", f"'{DEVICE}'"
        )
    )
    fleet.sql(
        "insert into public.device_commands (device_id, kind) values (%s, 'restart')", OTHER, who="operator"
    )
    queued = fleet.one(
        "insert into public.device_commands (device_id, kind) values (%s, 'check_drift') returning id",
        DEVICE,
        who="operator",
    )
    assert [c["id"] for c in fleet.desired()["commands"]] == [str(queued)]
    fleet.sql(
        "update public.device_commands set state = 'succeeded', result = '[]' where id = %s",
        queued,
        who="device",
    )
    assert fleet.desired()["commands"] == []


def test_the_explanation_is_the_answer(fleet: Fleet) -> None:
    fleet.report(V1)
    fleet.sql("select public.halt_fleet('x')", who="operator")
    fleet.sql("update public.devices set hold = true where id = %s", DEVICE)
    _attempt(fleet, "rolled_back")
    told, explained = fleet.desired(), fleet.explain()
    for key in ("action", "release", "gates", "device", "commands", "config", "rollout_id", "next_poll_s"):
        assert told[key] == explained[key]
    # Every gate is judged, also behind one that said no already.
    assert explained["blocked_by"] == ["halt", "hold", "known_bad"]
    assert "The fleet is halted: x" in explained["summary"]


def test_a_device_that_may_not_ask_can_be_explained(fleet: Fleet) -> None:
    answer = fleet.explain(PENDING)
    assert gates(answer)["device_state"] == "refuse"
    assert answer["action"] == "run"
    refusal = fleet.refused("select public.explain_device(gen_random_uuid())", who="viewer")
    assert (refusal.code, refusal.kind) == ("PT404", "device_unknown")
