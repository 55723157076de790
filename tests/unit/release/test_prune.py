"""Retention: what is named stays usable, the rest goes, from the folder of releases and from Git."""

from __future__ import annotations

import contextlib
import os
import shutil
from pathlib import Path

import pytest

from fleet_agent.errors import ReleaseError
from fleet_agent.release import Limits, check_manifest, export, fetch, prune
from fleet_agent.release.prune import PACK_LIMIT
from fleetctl.fleet_repo import FleetRepo
from tests.unit.release.conftest import ROLE, Device


def releases(repo: FleetRepo, device: Device, count: int, url: str = "") -> list[str]:
    commits = []
    for number in range(count):
        commit = repo.commit(f"v{number}", {f"roles/{ROLE}/version": str(number)})
        fetch(device.git, url or repo.url, commit, ROLE, limits=Limits(attempts=1))
        export(device.git, commit, ROLE, device.releases / commit)
        commits.append(commit)
    return commits


@pytest.mark.parametrize("filters", ["true", "false"])
def test_what_is_kept_works_and_the_rest_is_gone(repo: FleetRepo, device: Device, filters: str) -> None:
    repo.git("config", "uploadpack.allowFilter", filters)
    old, kept, current = releases(repo, device, 3)
    (device.releases / ".export-dead").mkdir()

    pruned = prune(device.git, device.releases, {kept, current}, compact=True)

    assert pruned.removed == (old,)
    assert pruned.freed_bytes > 0
    assert {path.name for path in device.releases.iterdir()} == {kept, current}
    # Git still has both, without asking anybody, and a next release still is small.
    shutil.rmtree(device.releases / kept)
    fetch(device.git, "file:///nowhere", kept, ROLE, limits=Limits(attempts=1))
    export(device.git, kept, ROLE, device.releases / kept)
    check_manifest(device.releases / kept)
    newer = repo.commit("newer", {f"roles/{ROLE}/version": "newer"})
    assert fetch(device.git, repo.url, newer, ROLE).bytes_fetched < 2_000
    assert fetch(device.git, repo.url, old, ROLE).bytes_fetched > 0


def test_packs_do_not_pile_up(repo: FleetRepo, device: Device) -> None:
    commits = releases(repo, device, PACK_LIMIT // 2 + 1)
    assert len(list((device.git / "objects/pack").glob("*.pack"))) > PACK_LIMIT
    prune(device.git, device.releases, commits[-2:])
    assert len(list((device.git / "objects/pack").glob("*.pack"))) == 1


def test_few_packs_are_left_alone(repo: FleetRepo, device: Device) -> None:
    """Compacting rewrites everything: not for each update."""
    commits = releases(repo, device, 2)
    before = sorted(path.name for path in (device.git / "objects/pack").iterdir())
    assert prune(device.git, device.releases, commits).freed_bytes == 0
    assert sorted(path.name for path in (device.git / "objects/pack").iterdir()) == before


def test_a_damaged_repository_is_removed_and_the_releases_stay(repo: FleetRepo, device: Device) -> None:
    (commit,) = releases(repo, device, 1)
    (device.git / "config").write_text("[[[")
    prune(device.git, device.releases, {commit}, compact=True)
    assert not device.git.exists()
    check_manifest(device.releases / commit)


@pytest.mark.parametrize(("signal", "removed"), [("SEGV", True), ("BUS", True), ("KILL", False)])
def test_a_repository_over_which_git_crashes_is_removed(
    repo: FleetRepo,
    device: Device,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    signal: str,
    *,
    removed: bool,
) -> None:
    """Of a Git that was killed nothing follows."""
    (commit,) = releases(repo, device, 1)
    (tmp_path / "git").write_text(f"#!/bin/sh\nkill -{signal} $$\n")
    (tmp_path / "git").chmod(0o755)
    monkeypatch.setenv("PATH", str(tmp_path), prepend=os.pathsep)
    with contextlib.nullcontext() if removed else pytest.raises(ReleaseError, match="was killed"):
        prune(device.git, device.releases, {commit})
    assert device.git.exists() is not removed
    check_manifest(device.releases / commit)


def test_keeping_nothing_empties_both(repo: FleetRepo, device: Device) -> None:
    releases(repo, device, 2)
    prune(device.git, device.releases, set(), compact=True)
    assert list(device.releases.iterdir()) == []
    assert list((device.git / "objects/pack").iterdir()) == []


def test_pruning_before_anything_was_fetched_is_fine(device: Device) -> None:
    assert prune(device.git, device.releases, {"a" * 40}).removed == ()
