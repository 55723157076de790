"""Finished attempts on disk: none lost, none twice."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from pathlib import Path
from uuid import uuid4

import pytest

from fleet_agent.attempts import history, outbox
from fleet_agent.attempts.history import History
from fleet_agent.attempts.outbox import Outbox
from fleet_agent.model import Attempt, Outcome

START = datetime(2026, 11, 23, tzinfo=UTC)


def attempt(minute: int = 0) -> Attempt:
    return Attempt(
        id=uuid4(),
        release_id=None,
        rollout_id=None,
        from_commit=None,
        to_commit="a" * 40,
        outcome=Outcome.ROLLED_BACK,
        error_kind="unhealthy",
        error="It was not well.",
        evidence={"log": ["x"]},
        started_at=START + timedelta(minutes=minute),
        finished_at=START + timedelta(minutes=minute + 1),
        phase_durations_ms={"fetching": 5},
        agent_version="1",
    )


def test_what_is_put_is_there_for_another_process(tmp_path: Path) -> None:
    kept = attempt()
    Outbox(tmp_path / "outbox").put(kept)
    assert Outbox(tmp_path / "outbox").pending() == [kept]


def test_putting_the_same_attempt_twice_keeps_one(tmp_path: Path) -> None:
    box, kept = Outbox(tmp_path), attempt()
    box.put(kept)
    box.put(kept)
    assert box.pending() == [kept]


def test_the_oldest_comes_first(tmp_path: Path) -> None:
    box, kept = Outbox(tmp_path), [attempt(minute) for minute in (5, 1, 3)]
    for one in kept:
        box.put(one)
    assert box.pending() == sorted(kept, key=lambda one: one.started_at)


def test_a_shipped_attempt_is_history_and_shipping_again_is_fine(tmp_path: Path) -> None:
    box, past, kept, other = Outbox(tmp_path / "outbox"), History(tmp_path / "history"), attempt(), attempt(1)
    box.put(kept)
    box.put(other)
    box.hand_over(kept.id, past)
    box.hand_over(kept.id, past)
    assert box.pending() == [other]
    assert History(tmp_path / "history").attempts() == [kept]


@pytest.mark.parametrize("beyond", [0, 1, 3])
def test_history_keeps_the_last_attempts_and_what_cannot_be_read_goes_first(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, beyond: int
) -> None:
    monkeypatch.setattr(history, "KEPT", 4)
    box, past = Outbox(tmp_path / "outbox"), History(tmp_path / "history")
    assert past.attempts() == []
    past.folder.mkdir()
    (past.folder / f"{uuid4()}.json").write_text("{")
    kept = [attempt(minute) for minute in (3, 1, 2, 5, 4, 7, 6)[: 4 + beyond]]
    for one in kept:
        box.put(one)
        box.hand_over(one.id, past)
    by_age = sorted(kept, key=lambda one: one.started_at)
    assert past.attempts() == by_age[beyond:]
    assert len(list(past.folder.iterdir())) == 4


def test_an_empty_or_missing_folder_is_an_empty_outbox(tmp_path: Path) -> None:
    assert Outbox(tmp_path / "none").pending() == []


def test_an_unreadable_entry_is_set_aside_and_hides_no_other(tmp_path: Path) -> None:
    box, kept = Outbox(tmp_path), attempt()
    box.put(kept)
    broken = tmp_path / f"{uuid4()}.json"
    broken.write_text("{")
    assert box.pending() == [kept]
    assert broken.with_suffix(".unreadable").exists()
    assert box.pending() == [kept]


@pytest.mark.parametrize("beyond", [0, 1, 3])
def test_beyond_the_limit_the_oldest_lose_their_detail_and_never_their_outcome(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, beyond: int
) -> None:
    monkeypatch.setattr(outbox, "DETAIL_LIMIT", 4)
    box, kept = Outbox(tmp_path), [attempt(minute) for minute in range(4 + beyond)]
    for one in kept:
        box.put(one)
    pending = box.pending()
    assert [one.id for one in pending] == [one.id for one in kept]
    assert [bool(one.evidence) for one in pending] == [False] * beyond + [True] * 4
    assert {(one.outcome, one.error_kind, one.error) for one in pending} == {
        (Outcome.ROLLED_BACK, "unhealthy", "It was not well.")
    }
