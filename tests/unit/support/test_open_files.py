"""Who has a file open."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from fleet_agent.support.open_files import has_open


def test_a_descriptor_that_is_closed_meanwhile_hides_no_other(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    file = tmp_path / "children.lock"
    with file.open("w") as handle:
        seen = os.fstat(handle.fileno())
        listed = os.listdir
        monkeypatch.setattr(os, "listdir", lambda folder: ["999999", *listed(folder)])
        assert has_open(os.getpid(), "children.lock", seen)
        assert not has_open(os.getpid(), "converge.lock", seen)
        assert not has_open(os.getpid(), "children.lock", tmp_path.stat())
    assert not has_open(os.getpid(), "children.lock", seen)
    assert not has_open(2**22 + 1, "children.lock", seen)
