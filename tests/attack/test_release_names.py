"""Whoever signs a commit with names that no disk can hold, or that are read as something else."""

from __future__ import annotations

import subprocess
from pathlib import Path

import pytest

from fleet_agent import release as git
from fleet_agent.errors import ReleaseError
from fleet_agent.release import names
from fleetctl.role_check.check import check_role

LONG = "n" * 300


def unsafe_commit(folder: Path, paths: list[bytes]) -> str:
    """A commit with these files in `roles/x`, made without a work tree: Git itself would not add them."""
    subprocess.run(["git", "init", "--quiet", "--bare", str(folder)], check=True)
    blob = _git(folder, "hash-object", "-w", "--stdin", stdin=b"x")

    def write(level: list[list[bytes]]) -> str:
        below: dict[bytes, list[list[bytes]]] = {}
        for name, *rest in level:
            if rest:
                below.setdefault(name, []).append(rest)
        lines = [b"100644 blob " + blob.encode() + b"\t" + name for name, *rest in level if not rest]
        lines += [b"040000 tree " + write(rest).encode() + b"\t" + name for name, rest in below.items()]
        return _git(folder, "mktree", "-z", stdin=b"\0".join(lines) + b"\0")

    tree = write([[b"roles", b"x", *path.split(b"/")] for path in paths])
    return _git(folder, "-c", "user.name=x", "-c", "user.email=x@x", "commit-tree", "-m", "x", tree)


CASES: dict[str, tuple[list[bytes], str]] = {
    "a long name": ([LONG.encode()], "a name in it is longer than 255 bytes"),
    "a long folder": ([f"{LONG}/a".encode()], "a name in it is longer than 255 bytes"),
    "many bytes": (["ü".encode() * 200], "a name in it is longer than 255 bytes"),
    "a file and a folder": ([b"a", b"a/b"], "it is a file and a folder"),
    "levels": ([b"d/" * 120 + b"f"], "it is more than 100 folders deep"),
    "DEL": ([b"a\x7f"], "its name has control characters"),
    "C1": (["a\u0085b".encode()], "its name has control characters"),
    "escape": ([b"a\x1b[2J"], "its name has control characters"),
    "order": (["a\u202etxt.sh".encode()], "its name has characters that change how it is read"),
    "isolates": (["a\u2066b".encode()], "its name has characters that change how it is read"),
    "invisible": (["role\u200b.yaml".encode()], "its name has characters that change how it is read"),
    ".GIT": ([b".GIT/config"], "Git takes a name in it for its own folder"),
    ".git for HFS": ([".g\u200cit/config".encode()], "Git takes a name in it for its own folder"),
    ".git for NTFS": ([b"git~1/config"], "Git takes a name in it for its own folder"),
    ".git.": ([b".git. /config"], "Git takes a name in it for its own folder"),
}


@pytest.mark.parametrize("what", CASES)
def test_a_name_that_cannot_be_exported_is_refused(what: str, tmp_path: Path) -> None:
    paths, why = CASES[what]
    commit = unsafe_commit(tmp_path / "git", [b"role.yaml", *paths])
    with pytest.raises(ReleaseError) as refused:
        git.export(tmp_path / "git", commit, "x", tmp_path / "releases" / commit)
    assert refused.value.kind == "release_unsafe"
    assert why in refused.value.message
    assert refused.value.message.isprintable()
    assert not (tmp_path / "releases").exists()


@pytest.mark.full
@pytest.mark.parametrize("levels", [1200, 4200])
def test_folders_without_end_are_refused(levels: int, tmp_path: Path) -> None:
    """More than Git itself follows, too."""
    folder = tmp_path / "git"
    subprocess.run(["git", "init", "--quiet", "--bare", str(folder)], check=True)
    blob = _git(folder, "hash-object", "-w", "--stdin", stdin=b"x")
    tree = _git(folder, "mktree", stdin=f"100644 blob {blob}\tf\n".encode())
    for name in (*["d"] * levels, "x", "roles"):
        tree = _git(folder, "mktree", stdin=f"040000 tree {tree}\t{name}\n".encode())
    commit = _git(folder, "-c", "user.name=x", "-c", "user.email=x@x", "commit-tree", "-m", "x", tree)
    with pytest.raises(ReleaseError) as refused:
        git.export(folder, commit, "x", tmp_path / "releases" / commit)
    assert refused.value.kind == "release_unsafe"


def _git(folder: Path, *words: str, stdin: bytes = b"") -> str:
    done = subprocess.run(["git", "-C", str(folder), *words], input=stdin, capture_output=True, check=True)
    return done.stdout.decode().strip()


@pytest.mark.parametrize(
    "path",
    [
        "roles/x/a",
        "roles/x/.gitignore",
        "roles/x/git",
        "roles/x/Ünïcödé – 日本.txt",
        "roles/x/.github/a",
        "a/b~1",
    ],
)
def test_other_names_are_taken(path: str) -> None:
    assert names.unsafe(path) is None


def test_role_check_finds_such_a_name(tmp_path: Path) -> None:
    folder = tmp_path / "roles" / "x"
    folder.mkdir(parents=True)
    (folder / "role.yaml").write_text("description: x\nhealth: {checks: [{kind: container}]}\n")
    (folder / "compose.yaml").write_text(
        "services: {a: {image: 'busybox:stable', restart: always, healthcheck: {test: [CMD, 'true']}}}\n"
    )
    (folder / "a\u202etxt.sh").write_text("x")
    (found,) = check_role(folder).findings
    assert (found.level, found.kind, "\\u202e" in found.message) == ("error", "release_unsafe", True)
