"""A device that has written what it may in an hour (429): it keeps what it has, and goes on asking."""

from __future__ import annotations

from datetime import UTC, datetime
from uuid import uuid4

from fleet_agent.attempts.outbox import Outbox
from fleet_agent.daemon.loop import Daemon
from fleet_agent.model import Attempt, Outcome
from tests.support.control import Control, control, daemon, no_patience
from tests.support.device import Device, json_answer

__all__ = ["control", "daemon", "no_patience"]  # fixtures

#: As REST words what private.spend_ration() raises.
SPENT = {
    "code": "PT429", "details": "rate_limited", "hint": "Try again in 900 s.",
    "message": "This device has written as much as one device may in an hour.",
}  # fmt: skip


def _keep(device: Device, number: int) -> set[str]:
    now = datetime.now(UTC)
    kept = [
        Attempt(
            id=uuid4(),
            release_id=None,
            rollout_id=None,
            from_commit=None,
            to_commit="a" * 40,
            outcome=Outcome.FAILED,
            started_at=now,
            finished_at=now,
            agent_version="1",
        )
        for _ in range(number)
    ]
    outbox = Outbox(device.paths.outbox)
    for attempt in kept:
        outbox.put(attempt)
    return {str(attempt.id) for attempt in kept}


async def test_a_spent_ration_keeps_nothing_from_the_device_and_loses_nothing(
    daemon: Daemon, control: Control, device: Device
) -> None:
    kept = _keep(device, 45)
    command = str(uuid4())
    control.asks["commands"] = [{"id": command, "kind": "tail_logs", "args": {}}]
    for table in ("update_history", "device_status", "device_commands"):
        control.broken[table] = [json_answer(SPENT, 429) for _ in range(30)]
    for round_ in range(1, 4):
        await daemon.check_in("test")
        assert control.questions >= round_, "a device that may not write still asks what it should run"
        assert not daemon.turn.reachability.is_isolated
    assert (control.history, control.status, control.answers) == ([], [], {})
    assert len(list(Outbox(device.paths.outbox).pending())) == 45
    control.broken.clear()
    await daemon.check_in("test")
    assert {row["id"] for row in control.history} == kept
    assert list(control.answers) == [command]
    assert len(control.status) == 1
    assert list(Outbox(device.paths.outbox).pending()) == []


async def test_how_long_to_wait_is_followed(daemon: Daemon, control: Control, device: Device) -> None:
    _keep(device, 2)
    control.broken["update_history"] = [json_answer(SPENT, 429, **{"Retry-After": "900"})]
    for _ in range(3):
        await daemon.check_in("test")
    assert (control.questions, control.history) == (3, [])
    daemon.turn._upload._not_before = daemon.clock.monotonic()
    await daemon.check_in("test")
    assert len(control.history) == 2
