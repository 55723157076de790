"""Folders that are made once: never half made, never stale, one maker at a time."""

from __future__ import annotations

import os
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from tests.support.cached import KEPT, cached, copy, digest


def test_a_folder_is_made_once_and_found_again(tmp_path: Path) -> None:
    made = []

    def make(folder: Path) -> None:
        made.append(folder)
        (folder / "file").write_text("content")

    for _ in range(3):
        with cached("kind", digest("a"), make, folder=tmp_path) as found:
            assert (found / "file").read_text() == "content"
    assert len(made) == 1


def test_of_many_that_want_it_at_once_one_makes_it(tmp_path: Path) -> None:
    made = []

    def make(folder: Path) -> None:
        made.append(folder)
        time.sleep(0.1)
        (folder / "file").touch()

    def want(_: int) -> bool:
        with cached("kind", digest("a"), make, folder=tmp_path) as found:
            return (found / "file").exists()

    with ThreadPoolExecutor(8) as pool:
        assert all(pool.map(want, range(8)))
    assert len(made) == 1


def test_a_failed_attempt_leaves_nothing_and_is_repeated(tmp_path: Path) -> None:
    def fail(folder: Path) -> None:
        (folder / "half").touch()
        raise RuntimeError

    with pytest.raises(RuntimeError), cached("kind", digest("a"), fail, folder=tmp_path):
        pass
    with cached("kind", digest("a"), lambda folder: (folder / "whole").touch(), folder=tmp_path) as found:
        assert [path.name for path in found.iterdir()] == ["whole"]


def test_the_oldest_of_a_kind_go_and_other_kinds_stay(tmp_path: Path) -> None:
    with cached("kind-of", digest("other"), lambda _: None, folder=tmp_path):
        pass
    for number in range(KEPT + 2):
        with cached("kind", digest(str(number)), lambda _: None, folder=tmp_path) as found:
            os.utime(found, (number, number))
    left = {path.name for path in tmp_path.iterdir() if path.is_dir()}
    assert left == {
        f"kind-of-{digest('other')}",
        *(f"kind-{digest(str(number))}" for number in range(2, KEPT + 2)),
    }


def test_the_hash_is_of_names_and_content_alone(tmp_path: Path) -> None:
    for folder in ("a", "b"):
        (tmp_path / folder / "sub").mkdir(parents=True)
        (tmp_path / folder / "sub" / "file").write_text("content")
    (tmp_path / "b" / "__pycache__").mkdir()
    (tmp_path / "b" / "__pycache__" / "x.pyc").touch()
    same = digest(tmp_path / "a")
    assert digest(tmp_path / "b") == same
    (tmp_path / "b" / "sub" / "file").write_text("other content")
    assert digest(tmp_path / "b") != same
    (tmp_path / "a" / "sub" / "file").rename(tmp_path / "a" / "sub" / "name")
    assert digest(tmp_path / "a") != same


def test_a_copy_keeps_modes_and_links(tmp_path: Path) -> None:
    source = tmp_path / "source"
    source.mkdir(mode=0o700)
    (source / "file").touch(mode=0o600)
    (source / "link").symlink_to("file")
    copy(source, tmp_path / "target")
    assert (tmp_path / "target").stat().st_mode == source.stat().st_mode
    assert (tmp_path / "target" / "file").stat().st_mode == (source / "file").stat().st_mode
    assert str((tmp_path / "target" / "link").readlink()) == "file"
