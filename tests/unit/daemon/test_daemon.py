"""The loop, with a real engine process (the fake one) and the control plane's HTTP edge."""

from __future__ import annotations

import asyncio
import json
from datetime import timedelta
from uuid import uuid4

import httpx
import pytest

from fleet_agent.attempts.history import History
from fleet_agent.attempts.outbox import Outbox
from fleet_agent.daemon.loop import Daemon
from fleet_agent.daemon.schedule import Outcome
from fleet_agent.errors import Kind, StateError
from fleet_agent.log import Log
from tests.support.control import (
    Control,
    attempt,
    control,
    daemon,
    no_patience,
    plan,
    requests,
    update_to,
)
from tests.support.device import Device, json_answer

__all__ = ["control", "daemon", "no_patience"]  # fixtures


async def test_an_update_is_carried_out_recorded_and_reported(
    daemon: Daemon, control: Control, device: Device
) -> None:
    wanted = update_to(control, "1.0.0")
    assert await daemon.check_in("test") == Outcome.CONVERGED
    assert requests(device) == ["recover", "converge"]
    assert [row["to_commit"] for row in control.history] == [wanted["commit_sha"]]
    assert Outbox(device.paths.outbox).pending() == []
    last = control.status[-1]
    assert last["state"] == "healthy"
    assert last["current_release"] == wanted["id"]
    assert last["containers"] == [
        {"service": "web", "image": "busybox:stable", "state": "running", "restarts": 0}
    ]


async def test_the_engine_works_by_the_control_planes_time(
    daemon: Daemon, control: Control, device: Device
) -> None:
    update_to(control, "1.0.0")
    control.asks["server_time"] = "2031-01-01T00:00:00+00:00"
    await daemon.check_in("test")
    lines = (device.paths.state / "fake_requests.jsonl").read_text().splitlines()
    assert (json.loads(lines[-1])["heard"] or {}).get("server_time", "").startswith("2031-01-01T00:00:00")


async def test_phases_are_reported_while_the_engine_works(
    daemon: Daemon, control: Control, device: Device
) -> None:
    gate = device.folder / "gate"
    plan(device, hold=str(gate))
    wanted = update_to(control, "1.0.0")
    work = asyncio.create_task(daemon.check_in("test"))
    await control.reports_phase("pulling")
    gate.touch()
    await work
    (during,) = (row for row in control.status if row.get("phase") == "pulling")
    assert during["state"] == "updating"
    assert during["target_release"] == wanted["id"]


async def test_nothing_to_do_starts_no_update_and_reports_once(
    daemon: Daemon, control: Control, device: Device
) -> None:
    control.asks["gates"] = [{"gate": "halt", "verdict": "wait", "detail": "The fleet is halted."}]
    for _ in range(3):
        assert await daemon.check_in("test") == Outcome.CONVERGED
    assert requests(device) == ["recover"]
    assert len(control.status) == 1
    assert control.status[0]["reason"] == "halt: The fleet is halted."


async def test_a_release_is_prefetched_and_the_report_says_when_it_is_applied(
    daemon: Daemon, control: Control, device: Device
) -> None:
    wanted = update_to(control, "1.0.0")
    await daemon.check_in("test")
    gate = device.folder / "gate"
    plan(device, hold=str(gate))
    coming = {**wanted, "id": str(uuid4()), "commit_sha": "9" * 40, "version": "2.0.0"}
    shut = {"gate": "window", "verdict": "wait", "detail": "Window nights opens 02:00 UTC."}
    control.asks.update(action="run", prefetch=coming, gates=[shut])
    work = asyncio.create_task(daemon.check_in("test"))
    await control.reports_phase("pulling")
    gate.touch()
    assert await work == Outcome.CONVERGED
    (during,) = (row for row in control.status if row.get("reason") == "prefetching 2.0.0 an image")
    assert (during["state"], during["target_release"]) == ("healthy", coming["id"])
    last = control.status[-1]
    assert last["reason"] == (
        "2.0.0 is ready; it will be applied when the window opens (window: Window nights opens 02:00 UTC)"
    )
    assert (last["state"], last["error_kind"]) == ("healthy", None)
    assert (last["current_release"], last["target_release"]) == (wanted["id"], coming["id"])
    told = requests(device)
    assert await daemon.check_in("test") == Outcome.CONVERGED
    assert requests(device) == told
    assert [row["outcome"] for row in control.history] == ["succeeded"]


async def test_what_could_not_be_prefetched_is_told_by_kind_and_sentence_while_it_is_wanted(
    daemon: Daemon, control: Control, device: Device
) -> None:
    wanted = update_to(control, "1.0.0")
    await daemon.check_in("test")
    plan(device, fail="signature_missing")
    control.asks.update(action="run", prefetch={**wanted, "commit_sha": "9" * 40, "version": "2.0.0"})
    for _ in range(2):
        await daemon.check_in("test")
    last = control.status[-1]
    assert (last["state"], last["error_kind"]) == ("healthy", "signature_missing")
    assert last["error"] == "2.0.0 could not be prefetched: It was refused."
    assert last["reason"] == "2.0.0 was not prefetched; it will be fetched when the window opens"
    control.asks.update(prefetch=None)
    await daemon.check_in("test")
    assert control.status[-1]["error_kind"] is None


async def test_a_rollback_is_not_convergence_and_is_told(
    daemon: Daemon, control: Control, device: Device
) -> None:
    plan(device, fail="unhealthy")
    update_to(control, "2.0.0")
    assert await daemon.check_in("test") == Outcome.NOT_CONVERGED
    assert control.history[0]["outcome"] == "rolled_back"
    assert control.status[-1]["state"] == "rolled_back"
    assert control.status[-1]["error_kind"] == "unhealthy"


async def test_history_waits_on_disk_for_the_network_and_survives_a_restart(
    device: Device, log: Log, control: Control
) -> None:
    update_to(control, "1.0.0")
    control.broken["update_history"] = [httpx.ConnectError("gone")]
    assert await device.daemon(log).once() == Outcome.CONVERGED
    assert control.history == []
    assert len(Outbox(device.paths.outbox).pending()) == 1

    assert await device.daemon(log).once() == Outcome.CONVERGED
    assert len(control.history) == 1
    assert Outbox(device.paths.outbox).pending() == []
    # What was shipped is kept here, too, with all that was said about it.
    (kept,) = History(device.paths.history).attempts()
    assert str(kept.id) == control.history[0]["id"]
    assert kept.phase_durations_ms == control.history[0]["phase_durations_ms"]


async def test_a_disk_that_cannot_be_written_keeps_nobody_from_asking_and_telling(
    daemon: Daemon, control: Control, device: Device, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Else a device on a read-only disk would look like one that is offline."""
    Outbox(device.paths.outbox).put(attempt())
    refused = StateError(Kind.STATE_UNWRITABLE, "Read-only.")

    def read_only(*_: object) -> None:
        raise refused

    monkeypatch.setattr(History, "take", read_only)
    await daemon.check_in("test")
    assert (len(control.history), control.questions, len(control.status)) == (1, 1, 1)
    assert len(Outbox(device.paths.outbox).pending()) == 1


async def test_a_refused_row_does_not_hold_up_the_others(
    daemon: Daemon, control: Control, device: Device
) -> None:
    outbox, bad, good = Outbox(device.paths.outbox), attempt(), attempt()
    for kept in (bad, good):
        outbox.put(kept)
    refusal = json_answer({"code": "23514", "message": "check failed"}, 400)
    control.broken["update_history"] = [refusal, refusal]
    await daemon.check_in("test")
    assert {row["id"] for row in control.history} == {str(good.id)}
    assert [kept.id for kept in outbox.pending()] == [bad.id]


async def test_an_interrupted_update_is_finished_before_anything_else(
    daemon: Daemon, control: Control, device: Device
) -> None:
    plan(device, die="probation")
    update_to(control, "1.0.0")
    assert await daemon.check_in("test") == Outcome.NOT_CONVERGED
    assert control.status[-1]["error_kind"] == "interrupted"
    plan(device)
    assert await daemon.check_in("test") == Outcome.CONVERGED
    assert requests(device) == ["recover", "converge", "status", "recover", "converge"]


async def test_a_device_in_safe_mode_turns_when_it_wants_to_try_again(
    daemon: Daemon, control: Control, device: Device
) -> None:
    at = daemon.clock.now() + timedelta(seconds=50)
    world = {"state": "safe_mode", "phase": "safe_mode", "next_try_at": at.isoformat()}
    state = device.paths.state
    state.mkdir(exist_ok=True)
    (state / "fake.json").write_text(json.dumps(world))
    daemon.schedule.take()
    assert await daemon.check_in("test") == Outcome.CONVERGED
    assert 40 < daemon.schedule.left_s <= 50
    await daemon.check_in("test")
    assert requests(device) == ["recover"]
    assert daemon.turn.engine_status is not None
    daemon.turn.engine_status = daemon.turn.engine_status.model_copy(
        update={"next_try_at": daemon.clock.now()}
    )
    await daemon.check_in("test")
    assert requests(device) == ["recover", "recover"]


async def test_what_runs_is_looked_at_when_docker_has_returned(
    daemon: Daemon, control: Control, device: Device
) -> None:
    for _ in range(2):
        await daemon.check_in("test")
    assert requests(device) == ["recover"]
    daemon.schedule.take()
    daemon.turn.look_soon()
    assert daemon.schedule.left_s <= 0
    await daemon.check_in(daemon.schedule.take())
    await daemon.check_in("test")
    assert requests(device) == ["recover", "recover"]


async def test_a_held_lock_is_left_alone_and_told(daemon: Daemon, control: Control, device: Device) -> None:
    plan(device, locked=True)
    update_to(control, "1.0.0")
    assert await daemon.check_in("test") == Outcome.LOCKED
    assert requests(device) == ["recover", "status"]
    assert control.status[-1]["error_kind"] == "locked"


async def test_an_engine_that_cannot_start_is_reported_as_degraded(
    device: Device, log: Log, control: Control
) -> None:
    broken = device.daemon(log)
    broken.engine.command = ("/bin/false",)
    update_to(control, "1.0.0")
    assert await broken.once() == Outcome.NOT_CONVERGED
    assert control.status[-1]["state"] == "degraded"
    assert control.status[-1]["error_kind"] == "interrupted"


@pytest.mark.parametrize("kind", ["device_suspended", "device_retired", "device_replaced", "device_pending"])
async def test_a_refused_device_changes_nothing(
    daemon: Daemon, control: Control, device: Device, kind: str
) -> None:
    update_to(control, "1.0.0")
    refusal = {"code": "PT403", "message": "No.", "details": kind, "hint": "Ask."}
    control.broken["desired_state"] = [json_answer(refusal, 403)]
    assert await daemon.check_in("test") == Outcome.REFUSED
    assert requests(device) == ["recover"]
    assert control.status == []
    assert [entry["message"] for entry in daemon.log.ring.entries()] == [f"{kind}: No. Ask."]


async def test_an_unreachable_control_plane_leaves_what_runs_alone(
    daemon: Daemon, control: Control, device: Device
) -> None:
    control.broken["desired_state"] = [httpx.ConnectError("gone")]
    assert await daemon.check_in("test") == Outcome.UNREACHABLE
    assert requests(device) == ["recover"]


async def test_a_report_that_did_not_get_through_is_made_again(daemon: Daemon, control: Control) -> None:
    control.broken["device_status"] = [httpx.Response(500)]
    await daemon.check_in("test")
    assert control.status == []
    await daemon.check_in("test")
    assert len(control.status) == 1


async def test_a_report_naming_a_release_that_is_gone_is_made_without_it(
    daemon: Daemon, control: Control
) -> None:
    update_to(control, "1.0.0")
    await daemon.check_in("test")
    control.status.clear()
    gone = json_answer({"code": "23503", "message": "violates foreign key"}, 409)
    control.broken["device_status"] = [gone]
    plane = daemon.connection.plane
    await daemon.turn.reporter.report(plane, daemon.turn.engine_status, None)
    assert control.status[-1]["current_release"] is None
    assert control.status[-1]["state"] == "healthy"


async def test_a_bad_change_of_the_configuration_is_shown_in_the_status(
    daemon: Daemon, control: Control, device: Device
) -> None:
    await daemon.check_in("test")
    device.configure(poll_interval_s="often")
    await daemon._follow_configuration()
    assert (
        daemon.schedule.due.why == "the configuration changed"
        or daemon.schedule.due.at <= daemon.clock.monotonic()
    )
    await daemon.check_in("test")
    assert control.status[-1]["error_kind"] == "config_invalid"
    assert "`poll_interval_s`" in control.status[-1]["error"]


async def test_a_new_address_takes_force_without_a_restart(
    daemon: Daemon, control: Control, device: Device
) -> None:
    before = daemon.connection
    device.configure(poll_interval_s=77)
    await daemon._follow_configuration()
    assert daemon.connection is before
    device.configure(api_url="http://elsewhere.test")
    await daemon._follow_configuration()
    assert daemon.connection.plane.config.api_url == "http://elsewhere.test"


async def test_the_loop_checks_in_until_it_is_told_to_stop(daemon: Daemon, control: Control) -> None:
    running = asyncio.create_task(daemon.run())
    await control.asked.wait()
    daemon.stop()
    await running
    assert control.questions == 1


async def test_stopping_in_the_middle_of_an_update_ends_the_engine_too(
    daemon: Daemon, control: Control, device: Device
) -> None:
    plan(device, hold=str(device.folder / "never"))
    update_to(control, "1.0.0")
    running = asyncio.create_task(daemon.run())
    await control.reports_phase("pulling")
    daemon.stop()
    await running
    assert daemon.engine._child is None


async def test_a_bug_in_one_turn_does_not_end_the_loop(
    daemon: Daemon, control: Control, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def explode() -> None:
        monkeypatch.undo()
        raise ZeroDivisionError

    monkeypatch.setattr(daemon.turn, "_look_after_what_runs", explode)
    daemon.schedule.uniform = lambda low, _high: 0.0
    running = asyncio.create_task(daemon.run())
    await control.asked.wait()
    daemon.stop()
    await running
    assert control.questions >= 1
