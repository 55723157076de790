"""Fetching: what crosses the network, what is refused, and how a broken fetch goes on."""

from __future__ import annotations

import os
import shutil
import socket
import subprocess
from collections import namedtuple
from dataclasses import replace
from pathlib import Path

import pytest

from fleet_agent.errors import Kind, ReleaseError
from fleet_agent.model import Progress
from fleet_agent.release import Limits, export, fetch
from fleet_agent.support.sizes import MIB
from fleetctl.fleet_repo import FleetRepo
from tests.support.git_server import GitServer
from tests.unit.release.conftest import ROLE, Device

Usage = namedtuple("Usage", "total used free")


def objects(device: Device) -> set[str]:
    """Every object id that the device has."""
    listed = subprocess.run(
        ["git", "--git-dir", str(device.git), "cat-file", "--batch-all-objects", "--batch-check"],
        capture_output=True, text=True, check=True,
    )  # fmt: skip
    return {line.split()[0] for line in listed.stdout.splitlines()}


def blob(repo: FleetRepo, path: str) -> str:
    return repo.git("rev-parse", f"HEAD:{path}")


def no_wait(_: float) -> None:
    pass


@pytest.mark.parametrize("transport", ["file", "http"])
def test_only_the_files_of_the_role_are_fetched(
    repo: FleetRepo, device: Device, server: GitServer, limits: Limits, transport: str
) -> None:
    commit = repo.commit("v1")
    url = repo.url if transport == "file" else server.url(repo.path)
    seen: list[Progress] = []

    result = fetch(device.git, url, commit, ROLE, seen.append, limits=limits)

    assert blob(repo, f"roles/{ROLE}/data/a.bin") in objects(device)
    assert blob(repo, "roles/common/shared.txt") in objects(device)
    assert blob(repo, "roles/other/big.bin") not in objects(device)
    assert 240_000 < result.bytes_fetched < 250_000
    assert {item.phase for item in seen} == {"fetch"}
    assert any("of 8" in item.detail for item in seen)
    assert max(item.percent or 0 for item in seen) == 100


def test_the_bytes_counted_are_the_bytes_on_the_wire(
    repo: FleetRepo, device: Device, server: GitServer, limits: Limits
) -> None:
    result = fetch(device.git, server.url(repo.path), repo.commit("v1"), ROLE, limits=limits)
    # The rest is the capability advertisement and packet framing.
    assert result.bytes_fetched < server.bytes_sent < result.bytes_fetched + 6_000


def test_a_small_change_costs_little(repo: FleetRepo, device: Device, limits: Limits) -> None:
    fetch(device.git, repo.url, repo.commit("v1"), ROLE, limits=limits)
    changed = repo.commit("v2", {f"roles/{ROLE}/compose.yaml": "services: {a: {}}\n"})
    assert fetch(device.git, repo.url, changed, ROLE, limits=limits).bytes_fetched < 2_000


def test_what_is_here_is_not_asked_for_again(
    repo: FleetRepo, device: Device, server: GitServer, limits: Limits
) -> None:
    commit = repo.commit("v1")
    fetch(device.git, server.url(repo.path), commit, ROLE, limits=limits)
    asked = len(server.wants)
    assert fetch(device.git, server.url(repo.path), commit, ROLE, limits=limits).bytes_fetched == 0
    assert len(server.wants) == asked


def test_another_role_of_the_same_commit_adds_its_files(
    repo: FleetRepo, device: Device, limits: Limits
) -> None:
    commit = repo.commit("v1")
    fetch(device.git, repo.url, commit, ROLE, limits=limits)
    assert fetch(device.git, repo.url, commit, "other", limits=limits).bytes_fetched > 400_000


def test_a_host_without_filters_sends_the_commit_whole(
    repo: FleetRepo, device: Device, server: GitServer, limits: Limits
) -> None:
    repo.git("config", "uploadpack.allowFilter", "false")
    commit = repo.commit("v1")
    fetch(device.git, server.url(repo.path), commit, ROLE, limits=limits)
    assert blob(repo, "roles/other/big.bin") in objects(device)
    export(device.git, commit, ROLE, device.releases / commit)


@pytest.mark.parametrize("branch", ["main", None])
@pytest.mark.parametrize("filters", ["true", "false"])
def test_a_host_that_hands_out_branches_only_is_asked_for_the_branch(
    repo: FleetRepo, device: Device, server: GitServer, branch: str | None, filters: str
) -> None:
    server.protocol_v2 = False
    repo.git("config", "uploadpack.allowFilter", filters)
    repo.git("config", "uploadpack.allowReachableSHA1InWant", "false")
    older = repo.commit("v1")
    for number in range(3):
        newest = repo.commit(f"v{number + 2}", {"README.md": str(number)})
    for commit in (newest, older):
        fetch(device.git, server.url(repo.path), commit, ROLE, branch=branch, limits=Limits(attempts=1))
        export(device.git, commit, ROLE, device.releases / commit)


def test_a_host_that_hands_out_commits_but_no_files_sends_the_commit_whole(
    repo: FleetRepo, device: Device, server: GitServer, limits: Limits
) -> None:
    commits = [repo.commit("v1"), repo.commit("v2", {"README.md": "2"})]
    server.commits = set(commits)
    for commit in commits:
        fetch(device.git, server.url(repo.path), commit, ROLE, limits=limits)
        export(device.git, commit, ROLE, device.releases / commit)
    # The second time the host is known: no try at single files.
    assert [len(wants) for wants in server.wants] == [1, 2, 1, 1]


def test_a_broken_connection_is_taken_up_where_it_broke(
    repo: FleetRepo, device: Device, server: GitServer, limits: Limits
) -> None:
    """Batches that arrived are not asked for again, and the next try is smaller."""
    commit = repo.commit("v1")
    server.cuts.extend([None, None, 20_000, 20_000])

    fetch(device.git, server.url(repo.path), commit, ROLE, limits=limits, sleep=no_wait)

    files = [want for wants in server.wants[1:] for want in wants]
    assert [len(wants) for wants in server.wants[:5]] == [1, 2, 2, 1, 1]
    broken = {*server.wants[2], *server.wants[3]}
    assert all(files.count(file) == 1 for file in files if file not in broken)
    export(device.git, commit, ROLE, device.releases / commit)


@pytest.mark.parametrize("bytes_through", [0, 1, 500, 100_000])
def test_a_connection_broken_anywhere_leaves_nothing_behind(
    repo: FleetRepo, device: Device, server: GitServer, bytes_through: int
) -> None:
    repo.git("config", "uploadpack.allowFilter", "false")
    commit = repo.commit("v1")
    server.cuts.append(bytes_through)
    with pytest.raises(ReleaseError) as caught:
        fetch(device.git, server.url(repo.path), commit, ROLE, limits=Limits(attempts=1))
    assert caught.value.kind is Kind.GIT_UNREACHABLE
    assert caught.value.retryable

    fetch(device.git, server.url(repo.path), commit, ROLE, limits=Limits(attempts=1))
    assert not list((device.git / "objects").rglob("tmp_*"))
    export(device.git, commit, ROLE, device.releases / commit)


def test_a_silent_host_is_given_up(repo: FleetRepo, device: Device, server: GitServer) -> None:
    commit = repo.commit("v1")
    server.stall_after = 100
    with pytest.raises(ReleaseError) as caught:
        fetch(device.git, server.url(repo.path), commit, ROLE, limits=Limits(attempts=1, idle_s=0.5))
    assert caught.value.kind is Kind.TIMED_OUT
    assert caught.value.retryable


def test_a_transfer_that_never_ends_is_given_up(repo: FleetRepo, device: Device, server: GitServer) -> None:
    commit = repo.commit("v1")
    server.stall_after = 100
    with pytest.raises(ReleaseError) as caught:
        fetch(device.git, server.url(repo.path), commit, ROLE, limits=Limits(attempts=1, total_s=0.5))
    assert caught.value.kind is Kind.TIMED_OUT


def test_an_unreachable_host_is_tried_as_often_as_allowed(
    repo: FleetRepo, device: Device, limits: Limits
) -> None:
    with socket.create_server(("127.0.0.1", 0)) as closed:
        port = closed.getsockname()[1]
    waits: list[float] = []
    with pytest.raises(ReleaseError) as caught:
        fetch(
            device.git, f"http://127.0.0.1:{port}/x", repo.commit("v1"), ROLE,
            limits=limits, sleep=waits.append,
        )  # fmt: skip
    assert caught.value.kind is Kind.GIT_UNREACHABLE
    assert len(waits) == limits.attempts - 1


def test_a_host_that_wants_a_password_is_a_refusal_and_no_prompt(
    repo: FleetRepo, device: Device, server: GitServer, limits: Limits
) -> None:
    server.password_wanted = True
    with pytest.raises(ReleaseError) as caught:
        fetch(device.git, server.url(repo.path), repo.commit("v1"), ROLE, limits=limits)
    assert caught.value.kind is Kind.GIT_REFUSED


def test_a_repository_that_is_not_there_is_a_refusal(device: Device, limits: Limits, tmp_path: Path) -> None:
    with pytest.raises(ReleaseError) as caught:
        fetch(device.git, (tmp_path / "nowhere").as_uri(), "a" * 40, ROLE, limits=limits)
    assert caught.value.kind is Kind.GIT_REFUSED


@pytest.mark.parametrize("protocol_v2", [True, False])
def test_an_unknown_commit_is_named_and_nothing_else_changes(
    repo: FleetRepo, device: Device, server: GitServer, limits: Limits, protocol_v2: bool
) -> None:
    server.protocol_v2 = protocol_v2
    url = server.url(repo.path)
    repo.commit("v1")
    with pytest.raises(ReleaseError) as caught:
        fetch(device.git, url, "a" * 40, ROLE, limits=limits)
    assert caught.value.kind is Kind.COMMIT_MISSING
    assert not (device.git / "fleet.whole").exists()


def test_a_role_that_the_release_lacks_is_named(repo: FleetRepo, device: Device, limits: Limits) -> None:
    with pytest.raises(ReleaseError) as caught:
        fetch(device.git, repo.url, repo.commit("v1"), "nobody", limits=limits)
    assert caught.value.kind is Kind.ROLE_MISSING
    assert "nobody" in caught.value.message


@pytest.mark.parametrize("commit", ["main", "a" * 39, "--upload-pack=x", "A" * 40])
def test_what_is_no_commit_id_never_reaches_git(device: Device, commit: str) -> None:
    with pytest.raises(ReleaseError) as caught:
        fetch(device.git, "file:///nowhere", commit, ROLE)
    assert caught.value.kind is Kind.COMMIT_MISSING
    assert not device.git.exists()


@pytest.mark.parametrize("role", ["../x", "common", "", "A", "x" * 64, "-x"])
def test_what_is_no_role_name_never_reaches_git(device: Device, role: str) -> None:
    with pytest.raises(ReleaseError) as caught:
        fetch(device.git, "file:///nowhere", "a" * 40, role)
    assert caught.value.kind is Kind.ROLE_MISSING


@pytest.mark.parametrize(
    "url", ["ext::sh -c id", "http://example.invalid/x", "-u", "ftp://x/y", "file:///a\nb", 'https://x/"']
)
def test_addresses_that_releases_may_not_come_from_are_refused(device: Device, url: str) -> None:
    with pytest.raises(ReleaseError) as caught:
        fetch(device.git, url, "a" * 40, ROLE)
    assert caught.value.kind is Kind.CONFIG_INVALID
    assert not device.git.exists()


def test_a_token_in_the_address_is_in_no_error_and_readable_by_the_owner_only(
    repo: FleetRepo, device: Device, limits: Limits
) -> None:
    with socket.create_server(("127.0.0.1", 0)) as closed:
        port = closed.getsockname()[1]
    url = f"http://bot:s3cret@127.0.0.1:{port}/x"
    with pytest.raises(ReleaseError) as caught:
        fetch(device.git, url, repo.commit("v1"), ROLE, limits=limits, sleep=no_wait)
    assert "s3cret" not in f"{caught.value}{caught.value.evidence}"
    assert (device.git / "config").stat().st_mode & 0o777 == 0o600
    assert device.git.stat().st_mode & 0o777 == 0o700


def test_locks_and_half_packs_of_a_killed_fetch_are_removed(
    repo: FleetRepo, device: Device, limits: Limits
) -> None:
    fetch(device.git, repo.url, repo.commit("v1"), ROLE, limits=limits)
    v2 = repo.commit("v2", {f"roles/{ROLE}/compose.yaml": "services: {a: {}}\n"})
    left = [
        device.git / "shallow.lock",
        device.git / "config.lock",
        device.git / f"refs/fleet/releases/{v2}.lock",
        device.git / "objects/pack/tmp_pack_abc",
    ]
    for file in left:
        file.write_text("")
    fetch(device.git, repo.url, v2, ROLE, limits=limits)
    assert not any(file.exists() for file in left)


def damage_pack(git: Path) -> None:
    for pack in (git / "objects/pack").glob("*.pack"):
        pack.chmod(0o600)
        pack.write_bytes(pack.read_bytes()[:40])


def damage_index(git: Path) -> None:
    for index in (git / "objects/pack").glob("*.idx"):
        index.chmod(0o600)
        index.write_bytes(b"")


def damage_content(git: Path) -> None:
    """Bits flipped in the middle: the folder still looks right."""
    for pack in (git / "objects/pack").glob("*.pack"):
        pack.chmod(0o600)
        content = bytearray(pack.read_bytes())
        content[14:40] = bytes(len(content[14:40]))
        pack.write_bytes(content)


def damage_reference(git: Path) -> None:
    for reference in (git / "refs/fleet/releases").iterdir():
        reference.write_text("")


def damage_settings(git: Path) -> None:
    (git / "config").write_text("[[[")


def damage_head(git: Path) -> None:
    (git / "HEAD").unlink()


def lose_objects(git: Path) -> None:
    shutil.rmtree(git / "objects")


def be_a_file(git: Path) -> None:
    shutil.rmtree(git)
    git.write_text("not a repository")


@pytest.mark.parametrize(
    "damage",
    [
        damage_pack, damage_index, damage_content, damage_reference, damage_settings, damage_head,
        lose_objects, be_a_file,
    ],
)  # fmt: skip
def test_a_damaged_repository_is_made_anew(repo: FleetRepo, device: Device, limits: Limits, damage) -> None:  # type: ignore[no-untyped-def]
    v1 = repo.commit("v1")
    fetch(device.git, repo.url, v1, ROLE, limits=limits)
    damage(device.git)
    v2 = repo.commit("v2", {f"roles/{ROLE}/compose.yaml": "services: {a: {}}\n"})
    for commit in (v2, v1):
        fetch(device.git, repo.url, commit, ROLE, limits=limits, sleep=no_wait)
        export(device.git, commit, ROLE, device.releases / commit)


def test_too_little_space_is_said_before_anything_is_fetched(
    repo: FleetRepo, device: Device, limits: Limits, monkeypatch: pytest.MonkeyPatch
) -> None:
    commit = repo.commit("v1")
    free = limits.min_free
    monkeypatch.setattr(shutil, "disk_usage", lambda _: Usage(0, 0, free - 1))
    with pytest.raises(ReleaseError) as caught:
        fetch(device.git, repo.url, commit, ROLE, limits=limits)
    assert caught.value.kind is Kind.DISK_FULL
    assert not device.git.exists()
    monkeypatch.setattr(shutil, "disk_usage", lambda _: Usage(0, 0, free + 1_000_000))
    fetch(device.git, repo.url, commit, ROLE, limits=limits)


def test_a_repository_over_which_git_crashes_is_made_anew(
    repo: FleetRepo, device: Device, limits: Limits, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    commit, damaged = repo.commit("v1"), device.git / "damaged"
    fetch(device.git, repo.url, commit, ROLE, limits=limits)
    damaged.touch()
    git = tmp_path / "git"
    git.write_text(f'#!/bin/sh\n[ -e {damaged} ] && kill -SEGV $$\nexec {shutil.which("git")} "$@"\n')
    git.chmod(0o755)
    monkeypatch.setenv("PATH", str(tmp_path), prepend=os.pathsep)
    fetch(device.git, repo.url, commit, ROLE, limits=limits)
    assert not damaged.exists()
    export(device.git, commit, ROLE, device.releases / commit)


@pytest.mark.parametrize(
    ("min_free", "why"),
    [
        (0, "the disk filled up while a release was fetched"),
        (4096, "the disk filled up while a release was fetched"),
        (8 * MIB, "8 MiB must stay free while a release is fetched"),
    ],
)
def test_space_that_runs_out_during_a_fetch_is_said(  # noqa: PLR0917  fixtures
    repo: FleetRepo, device: Device, limits: Limits, monkeypatch: pytest.MonkeyPatch, min_free: int, why: str
) -> None:
    commit = repo.commit("v1")
    # Room for the list of files, not for the files.
    monkeypatch.setattr(shutil, "disk_usage", lambda _: Usage(0, 0, min_free + 65536))
    with pytest.raises(ReleaseError) as caught:
        fetch(device.git, repo.url, commit, ROLE, limits=replace(limits, min_free=min_free))
    assert (caught.value.kind, caught.value.message) == (Kind.DISK_FULL, f"Not enough disk space: {why}.")


def test_hooks_are_not_run(repo: FleetRepo, device: Device, limits: Limits, tmp_path: Path) -> None:
    fetch(device.git, repo.url, repo.commit("v1"), ROLE, limits=limits)
    hook = device.git / "hooks" / "reference-transaction"
    hook.parent.mkdir()
    hook.write_text(f"#!/bin/sh\ntouch {tmp_path}/hooked\n")
    hook.chmod(0o755)
    fetch(device.git, repo.url, repo.commit("v2", {"README.md": "2"}), ROLE, limits=limits)
    assert not (tmp_path / "hooked").exists()


def test_settings_from_outside_do_not_reach_git(
    repo: FleetRepo, device: Device, limits: Limits, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Neither a surrounding hook's GIT_* variables nor the settings of whoever runs the agent."""
    commit = repo.commit("v1")
    elsewhere = tmp_path / "elsewhere"
    elsewhere.mkdir()
    (elsewhere / ".gitconfig").write_text('[url "file:///nowhere/"]\n\tinsteadOf = file:///\n')
    for name, value in {
        "HOME": str(elsewhere),
        "XDG_CONFIG_HOME": str(elsewhere),
        "GIT_DIR": str(elsewhere / "git"),
        "GIT_OBJECT_DIRECTORY": str(elsewhere / "objects"),
        "GIT_CONFIG_COUNT": "1",
        "GIT_CONFIG_KEY_0": "url.file:///nowhere/.insteadOf",
        "GIT_CONFIG_VALUE_0": "file:///",
    }.items():
        monkeypatch.setenv(name, value)
    fetch(device.git, repo.url, commit, ROLE, limits=limits)
    assert [path.name for path in elsewhere.iterdir()] == [".gitconfig"]


def test_a_device_without_git_is_told_so(
    device: Device, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("PATH", str(tmp_path))
    with pytest.raises(ReleaseError) as caught:
        fetch(device.git, "file:///nowhere", "a" * 40, ROLE)
    assert caught.value.kind is Kind.TOOL_MISSING
