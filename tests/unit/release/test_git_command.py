"""How Git is run: what it answers comes whole, and it neither hangs nor answers without end."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from fleet_agent.errors import Kind, ReleaseError
from fleet_agent.release import git_command
from fleet_agent.release.git_command import GitCommand
from fleet_agent.support.sizes import MIB


@pytest.fixture
def git(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A program that is taken for Git, but not by GitPython, which asks for its version once."""
    GitCommand(tmp_path)
    program = tmp_path / "git"
    monkeypatch.setenv("PATH", str(tmp_path), prepend=os.pathsep)
    return program


def say(program: Path, script: str) -> None:
    program.write_text(f"#!/bin/sh\n{script}\n")
    program.chmod(0o755)


@pytest.mark.parametrize("size", [0, 3 * MIB])
def test_what_it_is_told_and_what_it_answers_come_whole(git: Path, tmp_path: Path, size: int) -> None:
    """More than a pipe holds, and not text."""
    say(git, "cat; echo told >&2; exit 3")
    told = b"\xff\x00" * (size // 2)
    done = GitCommand(tmp_path).local("cat-file", stdin=told)
    assert (done.status, done.out == told, done.err) == (3, True, "told\n")


def test_one_that_does_not_listen_to_the_end_has_answered(git: Path, tmp_path: Path) -> None:
    say(git, "exec <&-; echo enough")
    assert GitCommand(tmp_path).local("cat-file", stdin=b"x" * MIB).out == b"enough\n"


@pytest.mark.parametrize("stream", ["1", "2"])
def test_an_answer_without_end_is_refused(
    git: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, stream: str
) -> None:
    monkeypatch.setattr(git_command, "ANSWER_SIZE", MIB)
    say(git, f"exec yes >&{stream}")
    with pytest.raises(ReleaseError) as caught:
        GitCommand(tmp_path).local("ls-tree")
    assert (caught.value.kind, caught.value.retryable) == (Kind.RELEASE_TOO_LARGE, False)
    assert "is longer than 1 MiB" in caught.value.message


@pytest.mark.parametrize("script", ["exec sleep 600", "exec sleep 600 >&- 2>&-"])
def test_one_that_hangs_is_ended(git: Path, tmp_path: Path, script: str) -> None:
    say(git, script)
    with pytest.raises(ReleaseError) as caught:
        GitCommand(tmp_path).local("rev-list", timeout_s=0.3)
    assert (caught.value.kind, caught.value.retryable) == (Kind.TIMED_OUT, True)
    assert caught.value.message == "git rev-list did not finish in 0.3 s."
