"""Logs of the stack's parts."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest

from fleetctl.stack import process
from fleetctl.stack.process import Child
from tests.support.patience import PATIENCE_S


def test_output_is_kept_in_a_bounded_number_of_bounded_files(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(process, "LOG_BYTES", 1000)
    monkeypatch.setattr(process, "LOG_KEPT", 2)
    log = tmp_path / "talk.log"
    child = Child("talk", [sys.executable, "-c", "for i in range(500): print('line', i)"], log=log)
    assert child.wait(PATIENCE_S) == 0
    files = sorted(path.name for path in tmp_path.iterdir())
    assert files == ["talk.log", "talk.log.1", "talk.log.2"]
    assert all(path.stat().st_size <= 1000 for path in tmp_path.iterdir())
    assert log.read_text().splitlines()[-1] == "line 499"
