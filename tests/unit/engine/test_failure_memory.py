from __future__ import annotations

from datetime import timedelta
from pathlib import Path
from random import Random

import pytest

from fleet_agent.engine.failure_memory import LIMIT, RETRY_CAP, RETRY_FIRST, BadRelease, Memory, load
from tests.support.engine_harness import START


def bad(env: str | None = None, minutes: int = 0) -> BadRelease:
    return BadRelease(kind="unhealthy", message="no", at=START + timedelta(minutes=minutes), env=env)


class Most(Random):
    """The longest wait that jitter allows."""

    def random(self) -> float:
        return 1.0


def test_bad_release_is_known_until_forgotten() -> None:
    memory = Memory().with_bad("a", bad())
    assert memory.known_bad("a", "any") is not None
    assert memory.known_bad("b", "any") is None
    assert memory.without("a").known_bad("a", "any") is None


def test_changed_env_clears_what_it_may_have_caused() -> None:
    memory = Memory().with_bad("a", bad(env="old"))
    assert memory.known_bad("a", "old") is not None
    assert memory.known_bad("a", "new") is None


@pytest.mark.parametrize(("failures", "wait"), [(1, 30), (2, 60), (3, 120), (8, 3600), (50, 3600)])
def test_passing_trouble_backs_off_to_a_cap(failures: int, wait: int) -> None:
    memory = Memory()
    for _ in range(failures):
        memory = memory.with_trouble("a", "git_unreachable", "away", START, Most())
    assert memory.trouble["a"].not_before == START + timedelta(seconds=wait)
    assert RETRY_FIRST <= timedelta(seconds=wait) <= RETRY_CAP


def test_trouble_is_waited_for_until_its_time() -> None:
    memory = Memory().with_trouble("a", "git_unreachable", "away", START, Most())
    assert memory.wait_for("a", START + timedelta(seconds=29)) is not None
    assert memory.wait_for("a", START + timedelta(seconds=30)) is None
    assert memory.wait_for("b", START) is None


def test_clock_that_jumped_back_does_not_lock_a_release_out() -> None:
    memory = Memory().with_trouble("a", "git_unreachable", "away", START, Most())
    assert memory.wait_for("a", START - timedelta(days=365)) is None


def test_oldest_bad_release_is_forgotten_first() -> None:
    memory = Memory()
    for number in range(LIMIT + 1):
        memory = memory.with_bad(str(number), bad(minutes=number))
    assert len(memory.bad) == LIMIT
    assert memory.known_bad("0", "") is None
    assert memory.known_bad("1", "") is not None


def test_unreadable_memory_is_forgotten_not_fatal(tmp_path: Path) -> None:
    file = tmp_path / "known_bad.json"
    file.write_bytes(b"\0\0\0")
    assert load(file) == Memory()
