"""Exports: complete or absent, checked against Git and against their manifest, and nothing unsafe in them."""

from __future__ import annotations

import errno
import json
import os
import shutil
import subprocess
from collections import namedtuple
from collections.abc import Callable
from pathlib import Path

import pytest

from fleet_agent.errors import FleetError, Kind, ReleaseError
from fleet_agent.release import Limits, check_manifest, export, fetch
from fleet_agent.release.manifest import MANIFEST_FILE
from fleet_agent.support import atomic_files
from fleetctl.fleet_repo import FleetRepo
from tests.unit.release.conftest import ROLE, Device

Usage = namedtuple("Usage", "total used free")


def git_of(repo: FleetRepo) -> Path:
    return repo.path / ".git"


def left_overs(device: Device) -> list[str]:
    return [path.name for path in device.releases.iterdir() if path.name.startswith(".")]


@pytest.fixture
def commit(repo: FleetRepo) -> str:
    return repo.commit("v1")


@pytest.fixture
def target(device: Device, commit: str) -> Path:
    return device.releases / commit


def test_an_export_is_the_role_the_common_part_and_its_manifest(
    repo: FleetRepo, commit: str, target: Path
) -> None:
    manifest = export(git_of(repo), commit, ROLE, target)

    files = {path.relative_to(target).as_posix() for path in target.rglob("*") if path.is_file()}
    assert files == {*manifest.files, MANIFEST_FILE}
    assert {name.split("/")[1] for name in files if name.startswith("roles/")} == {ROLE, "common"}
    assert (target / f"roles/{ROLE}/data/a.bin").read_bytes() == (
        repo.path / f"roles/{ROLE}/data/a.bin"
    ).read_bytes()
    assert os.access(target / f"roles/{ROLE}/validate", os.X_OK)
    assert not os.access(target / f"roles/{ROLE}/compose.yaml", os.X_OK) or os.geteuid() == 0
    assert (target / f"roles/{ROLE}/compose.yaml").stat().st_mode & 0o777 == 0o644
    assert json.loads((target / "release.json").read_text()) == {
        "format": 1, "commit": commit, "role": ROLE,
    }  # fmt: skip
    assert check_manifest(target) == manifest


def test_modes_do_not_depend_on_the_umask(repo: FleetRepo, commit: str, target: Path) -> None:
    before = os.umask(0o077)
    try:
        export(git_of(repo), commit, ROLE, target)
    finally:
        os.umask(before)
    assert (target / f"roles/{ROLE}/data").stat().st_mode & 0o777 == 0o755
    assert (target / f"roles/{ROLE}/validate").stat().st_mode & 0o777 == 0o755


def test_a_complete_export_is_kept_as_it_is(repo: FleetRepo, commit: str, target: Path) -> None:
    first = export(git_of(repo), commit, ROLE, target)
    inode = target.stat().st_ino
    assert export(git_of(repo), commit, ROLE, target) == first
    assert target.stat().st_ino == inode


def flip_a_bit(release: Path) -> None:
    file = release / f"roles/{ROLE}/data/a.bin"
    content = bytearray(file.read_bytes())
    content[1000] ^= 1
    file.write_bytes(content)


def cut_a_file(release: Path) -> None:
    (release / f"roles/{ROLE}/compose.yaml").write_text("")


def drop_a_file(release: Path) -> None:
    (release / "roles/common/shared.txt").unlink()


def add_a_file(release: Path) -> None:
    (release / f"roles/{ROLE}/extra").write_text("x")


def make_executable(release: Path) -> None:
    (release / f"roles/{ROLE}/compose.yaml").chmod(0o755)


def take_execution_away(release: Path) -> None:
    (release / f"roles/{ROLE}/validate").chmod(0o644)


def turn_into_a_link(release: Path) -> None:
    file = release / "roles/common/shared.txt"
    file.unlink()
    file.symlink_to("/etc/hostname")


def lose_the_manifest(release: Path) -> None:
    (release / MANIFEST_FILE).unlink()


def garble_the_manifest(release: Path) -> None:
    (release / MANIFEST_FILE).write_text("{}")


def change_the_release_file(release: Path) -> None:
    (release / "release.json").write_text("{}")


DAMAGES = [
    flip_a_bit, cut_a_file, drop_a_file, add_a_file, make_executable, take_execution_away, turn_into_a_link,
    lose_the_manifest, garble_the_manifest, change_the_release_file,
]  # fmt: skip


@pytest.mark.parametrize("damage", DAMAGES)
def test_a_damaged_export_is_noticed_and_written_again(
    repo: FleetRepo, commit: str, device: Device, target: Path, damage: Callable[[Path], None]
) -> None:
    whole = export(git_of(repo), commit, ROLE, target)
    damage(target)
    with pytest.raises(ReleaseError) as caught:
        check_manifest(target)
    assert caught.value.kind is Kind.MANIFEST_MISMATCH

    assert export(git_of(repo), commit, ROLE, target) == whole
    assert check_manifest(target) == whole
    assert left_overs(device) == []


def test_a_mismatch_names_what_differs(repo: FleetRepo, commit: str, target: Path) -> None:
    export(git_of(repo), commit, ROLE, target)
    flip_a_bit(target)
    add_a_file(target)
    drop_a_file(target)
    with pytest.raises(ReleaseError) as caught:
        check_manifest(target)
    assert caught.value.evidence == {
        "missing": ["roles/common/shared.txt"],
        "changed": [f"roles/{ROLE}/data/a.bin"],
        "unknown": [f"roles/{ROLE}/extra"],
    }


def test_a_changed_link_is_noticed(repo: FleetRepo, target: Path) -> None:
    commit = add_link(repo, f"roles/{ROLE}/link", "data/a.bin")
    export(git_of(repo), commit, ROLE, target)
    (target / f"roles/{ROLE}/link").unlink()
    (target / f"roles/{ROLE}/link").symlink_to("data/b.bin")
    with pytest.raises(ReleaseError) as caught:
        check_manifest(target)
    assert caught.value.evidence == {"changed": [f"roles/{ROLE}/link"]}


def test_the_same_commit_for_another_role_replaces_the_export(
    repo: FleetRepo, commit: str, device: Device, target: Path
) -> None:
    export(git_of(repo), commit, "other", target)
    manifest = export(git_of(repo), commit, ROLE, target)
    assert (manifest.role, check_manifest(target).role) == (ROLE, ROLE)
    assert not (target / "roles/other").exists()
    assert left_overs(device) == []


def test_a_file_in_the_way_is_replaced(repo: FleetRepo, commit: str, target: Path) -> None:
    target.parent.mkdir(parents=True)
    target.write_text("in the way")
    export(git_of(repo), commit, ROLE, target)
    check_manifest(target)


def test_left_overs_of_a_killed_export_are_removed(
    repo: FleetRepo, commit: str, device: Device, target: Path
) -> None:
    (device.releases / ".export-dead").mkdir(parents=True)
    (device.releases / ".export-dead" / "half").write_text("x")
    export(git_of(repo), commit, ROLE, target)
    assert left_overs(device) == []


@pytest.mark.parametrize(
    ("code", "expected"), [(errno.ENOSPC, Kind.DISK_FULL), (errno.EROFS, Kind.STATE_UNWRITABLE)]
)
def test_an_export_that_cannot_be_finished_leaves_nothing(
    repo: FleetRepo, commit: str, target: Path, monkeypatch: pytest.MonkeyPatch, *, code: int, expected: Kind
) -> None:
    calls = 0

    def fail_at_the_third(folder: Path) -> None:
        nonlocal calls
        calls += 1
        if calls == 3:
            raise OSError(code, os.strerror(code))

    monkeypatch.setattr(atomic_files, "sync_folder", fail_at_the_third)
    with pytest.raises(FleetError) as caught:
        export(git_of(repo), commit, ROLE, target)
    assert caught.value.kind is expected
    assert list(target.parent.iterdir()) == []


def test_every_file_and_folder_is_synced_before_the_rename(
    repo: FleetRepo, commit: str, target: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    order: list[str] = []
    real_fsync, real_rename = os.fsync, Path.rename

    def fsync(handle: int) -> None:
        order.append(Path(f"/proc/self/fd/{handle}").readlink().name)
        real_fsync(handle)

    def rename(self: Path, target: Path) -> Path:
        order.append("rename")
        return real_rename(self, target)

    monkeypatch.setattr(os, "fsync", fsync)
    monkeypatch.setattr(Path, "rename", rename)
    manifest = export(git_of(repo), commit, ROLE, target)
    before, after = order[: order.index("rename")], order[order.index("rename") + 1 :]
    folders = {part.name for name in manifest.files for part in Path(name).parents if part.name}
    assert {Path(name).name for name in manifest.files} | {MANIFEST_FILE} | folders <= set(before)
    assert after == ["releases"]


# What a release must not contain.


def add_link(repo: FleetRepo, path: str, place: str) -> str:
    link = repo.path / path
    link.parent.mkdir(parents=True, exist_ok=True)
    link.symlink_to(place)
    return repo.commit("with a link")


@pytest.mark.parametrize(
    "place",
    ["/etc/passwd", "../../../outside", "../../README.md", "../other/big.bin", "data/../../../..", ".."],
)
def test_a_link_out_of_the_release_is_refused(
    repo: FleetRepo, device: Device, target: Path, place: str
) -> None:
    commit = add_link(repo, f"roles/{ROLE}/link", place)
    with pytest.raises(ReleaseError) as caught:
        export(git_of(repo), commit, ROLE, target)
    assert caught.value.kind is Kind.RELEASE_UNSAFE
    assert caught.value.evidence == {"path": f"roles/{ROLE}/link"}
    assert not target.exists()
    assert left_overs(device) == []


def test_a_link_out_of_the_release_through_another_link_is_refused(repo: FleetRepo, target: Path) -> None:
    """Behind a link that leads up, `..` ends further out than the text says."""
    folder = f"roles/{ROLE}/a/b/c"
    (repo.path / folder).mkdir(parents=True)
    (repo.path / folder / "top").symlink_to("../../..")
    commit = add_link(repo, f"{folder}/out", "top/../../../x")
    with pytest.raises(ReleaseError) as caught:
        export(git_of(repo), commit, ROLE, target)
    assert caught.value.kind is Kind.RELEASE_UNSAFE
    assert caught.value.evidence == {"path": f"{folder}/out"}


@pytest.mark.parametrize("place", ["data/a.bin", "../common/shared.txt", "data", "absent"])
def test_a_link_inside_the_release_is_kept(repo: FleetRepo, target: Path, place: str) -> None:
    commit = add_link(repo, f"roles/{ROLE}/link", place)
    manifest = export(git_of(repo), commit, ROLE, target)
    assert manifest.links == {f"roles/{ROLE}/link": place}
    assert str((target / f"roles/{ROLE}/link").readlink()) == place
    check_manifest(target)


def test_links_in_a_circle_are_refused(repo: FleetRepo, target: Path) -> None:
    (repo.path / f"roles/{ROLE}/one").symlink_to("two")
    commit = add_link(repo, f"roles/{ROLE}/two", "one")
    with pytest.raises(ReleaseError) as caught:
        export(git_of(repo), commit, ROLE, target)
    assert caught.value.kind is Kind.RELEASE_UNSAFE


def commit_entry(repo: FleetRepo, mode: str, object_id: str, path: str) -> str:
    """Commit an index entry that no work tree could hold."""
    repo.git("update-index", "--add", "--cacheinfo", f"{mode},{object_id},{path}")
    repo.git("commit", "--quiet", "--message", "odd")
    return repo.head


def test_a_submodule_is_refused(repo: FleetRepo, commit: str, target: Path) -> None:
    odd = commit_entry(repo, "160000", commit, f"roles/{ROLE}/module")
    with pytest.raises(ReleaseError) as caught:
        export(git_of(repo), odd, ROLE, target)
    assert caught.value.kind is Kind.RELEASE_UNSAFE
    assert "submodule" in caught.value.message


@pytest.mark.parametrize("name", ["a\nb", "a\x1bb"])
def test_names_with_control_characters_are_refused(repo: FleetRepo, target: Path, name: str) -> None:
    commit = repo.commit("odd", {f"roles/{ROLE}/{name}": "x"})
    with pytest.raises(ReleaseError) as caught:
        export(git_of(repo), commit, ROLE, target)
    assert caught.value.kind is Kind.RELEASE_UNSAFE


@pytest.mark.parametrize("name", ["..", ".git", "."])
def test_names_that_lead_elsewhere_are_refused(repo: FleetRepo, commit: str, target: Path, name: str) -> None:
    """Git's own tools do not make such trees; a hand does."""

    def tree(*entries: bytes) -> str:
        made = subprocess.run(
            ["git", "hash-object", "-t", "tree", "-w", "--literally", "--stdin"],
            cwd=repo.path, input=b"".join(entries), capture_output=True, check=True,
        )  # fmt: skip
        return made.stdout.decode().strip()

    def entry(mode: str, label: str, object_id: str) -> bytes:
        return f"{mode} {label}".encode() + b"\0" + bytes.fromhex(object_id)

    shared = repo.git("rev-parse", f"{commit}:roles/common/shared.txt")
    role = tree(entry("40000", name, tree(entry("100644", "evil", shared))))
    root = tree(entry("40000", "roles", tree(entry("40000", ROLE, role))))
    odd = repo.git("commit-tree", root, "-m", "odd")
    with pytest.raises(ReleaseError) as caught:
        export(git_of(repo), odd, ROLE, target)
    assert caught.value.kind is Kind.RELEASE_UNSAFE
    assert not target.exists()


def test_a_name_that_is_not_utf8_is_refused(repo: FleetRepo, commit: str, target: Path) -> None:
    (Path(os.fsdecode(os.fsencode(repo.path / f"roles/{ROLE}") + b"/caf\xe9"))).write_text("x")
    odd = repo.commit("odd")
    with pytest.raises(ReleaseError) as caught:
        export(git_of(repo), odd, ROLE, target)
    assert caught.value.kind is Kind.RELEASE_UNSAFE


SIZE = (
    4 * 60_000
    + len("description: kiosk\n")
    + len("services: {}\n")
    + len("#!/bin/sh\nexit 0\n")
    + len("shared\n")
)


@pytest.mark.parametrize(
    ("limits", "fits"),
    [
        (Limits(file_size=60_000), True),
        (Limits(file_size=59_999), False),
        (Limits(release_size=SIZE), True),
        (Limits(release_size=SIZE - 1), False),
        (Limits(release_files=8), True),
        (Limits(release_files=7), False),
    ],
)
def test_a_release_larger_than_allowed_is_refused(
    repo: FleetRepo, commit: str, target: Path, limits: Limits, fits: bool
) -> None:
    if fits:
        export(git_of(repo), commit, ROLE, target, limits=limits)
        return
    with pytest.raises(ReleaseError) as caught:
        export(git_of(repo), commit, ROLE, target, limits=limits)
    assert caught.value.kind is Kind.RELEASE_TOO_LARGE
    assert not target.parent.exists()


@pytest.mark.parametrize("short", [0, 1])
def test_space_for_the_whole_release_is_asked_for_first(
    repo: FleetRepo, commit: str, target: Path, monkeypatch: pytest.MonkeyPatch, short: int
) -> None:
    limits = Limits()
    monkeypatch.setattr(shutil, "disk_usage", lambda _: Usage(0, 0, limits.min_free + SIZE - short))
    if not short:
        export(git_of(repo), commit, ROLE, target, limits=limits)
        return
    with pytest.raises(ReleaseError) as caught:
        export(git_of(repo), commit, ROLE, target, limits=limits)
    assert caught.value.kind is Kind.DISK_FULL
    assert not target.parent.exists()


def test_a_release_that_was_not_fetched_whole_is_not_exported(
    repo: FleetRepo, commit: str, device: Device, target: Path
) -> None:
    """And nothing is fetched in the middle of it."""
    fetch(device.git, repo.url, commit, "other")
    with pytest.raises(ReleaseError) as caught:
        export(device.git, commit, ROLE, target)
    assert caught.value.kind is Kind.COMMIT_MISSING
    assert caught.value.retryable
    assert not target.exists()


def test_content_that_does_not_fit_its_git_id_is_not_exported(
    repo: FleetRepo, commit: str, device: Device, target: Path
) -> None:
    """Git itself does not compare when it reads: a loose object with other content passes for it."""
    import zlib

    shared = repo.git("rev-parse", f"{commit}:roles/common/shared.txt")
    loose = git_of(repo) / "objects" / shared[:2] / shared[2:]
    loose.chmod(0o644)
    loose.write_bytes(zlib.compress(b"blob 7\0shaRed\n"))
    with pytest.raises(ReleaseError) as caught:
        export(git_of(repo), commit, ROLE, target)
    assert caught.value.kind is Kind.COMMIT_MISSING
    assert not target.exists()
