"""Whoever runs the Git host, or is in its place. It has no signing key, and needs no trust."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from fleet_agent.engine import api, failure_memory
from fleet_agent.engine.config import EngineConfig
from fleet_agent.engine.dependencies import Dependencies
from fleet_agent.engine.git_source import GitSource
from fleet_agent.model import Outcome, ReportState
from tests.support.engine_harness import FakeClock, Fleet, rows
from tests.support.git_server import GitServer

INDEX_PACK = '{"event":"cmd_name","sid":"x","name":"index-pack"}'


def data(value: object) -> str:
    return json.dumps(
        {"event": "data", "sid": "x", "key": "total_bytes", "value": value}, separators=(",", ":")
    )


#: What a host says as progress before a good pack of a signed commit, in the shape of Git's own trace events.
WORDS = {
    "no session": ['{"event":"cmd_name"}'],
    "a count that is a word": [INDEX_PACK, data("many")],
    "deeply nested": ['{"event":[' + "[" * 30_000 + "}"],
    "a number without end": [INDEX_PACK, data("9" * 23)],
    "an infinite number": [INDEX_PACK, '{"event":"data","sid":"x","key":"total_bytes","value":1e999}'],
    "less than nothing": [INDEX_PACK, data(-1)],
    "no object": ['{"event":', '{"event":1}', '{"event":[]}'],
    "no characters": ["\0\x1b[2J\x7f\u202e", "\udcff\udcfe"],
    "progress of its own": [f"Receiving objects: {n}% (1/0), \x1b[2J" for n in ("9" * 30, "-1", "100")],
}


def known_bad(config: EngineConfig) -> list[str]:
    return [bad.message for bad in failure_memory.load(config.paths.known_bad).bad.values()]


@pytest.mark.parametrize("words", WORDS.values(), ids=WORDS)
def test_its_words_are_words(
    fleet: Fleet, root: Path, dependencies: Dependencies, host: GitServer, words: list[str]
) -> None:
    """What it says is neither an event nor a number: the good release runs, and the row can be stored."""
    host.says = [f"{line}\n".encode(errors="surrogateescape") for line in words]
    config = fleet.config(root, git_url=host.url(fleet.repo.path))
    status = api.converge(config, fleet.directive(fleet.release("v1")), dependencies=dependencies)
    assert (status.state, status.error) == (ReportState.HEALTHY, None), status
    assert known_bad(config) == []
    (row,) = rows(config)
    assert 0 < row.bytes_fetched < 10_000


@pytest.mark.parametrize("kind", ["an unexpected error", "a refusal", "a lie", "a crash"])
def test_nothing_it_does_makes_a_release_known_bad(  # noqa: PLR0917  fixtures
    fleet: Fleet,
    root: Path,
    clock: FakeClock,
    dependencies: Dependencies,
    host: GitServer,
    kind: str,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Before a signature was verified, every failure passes: no safe mode, and the release is tried again."""
    config = fleet.config(root, git_url=host.url(fleet.repo.path))
    directive = fleet.directive(fleet.release("v1"))
    with monkeypatch.context() as patch:
        match kind:
            case "an unexpected error":

                def fetch(*_: object) -> int:
                    raise ZeroDivisionError

                patch.setattr(GitSource, "fetch", fetch)
            case "a refusal":
                host.password_wanted = True
            case "a lie":
                host.commits = set()
            case _:
                # The engine is killed again and again while it fetches.
                def fetch(*_: object) -> int:
                    raise SystemExit

                patch.setattr(GitSource, "fetch", fetch)
        for _ in range(4):
            try:
                status = api.converge(config, directive, dependencies=dependencies)
            except SystemExit:
                status = api.recover(config, dependencies=dependencies)
            assert known_bad(config) == []
            assert status.state is not ReportState.SAFE_MODE, status
            clock.passed += 7200
    assert {row.outcome for row in rows(config)} <= {Outcome.FAILED, Outcome.SKIPPED}
    host.password_wanted, host.commits = False, None
    status = api.converge(config, directive, dependencies=dependencies)
    assert (status.state, status.current) == (ReportState.HEALTHY, directive.release)
