"""Signatures: only a commit signed, as a Git commit, by a key that this device trusts passes."""

from __future__ import annotations

import os
import shutil
import subprocess
from pathlib import Path

import pytest

from fleet_agent.errors import Kind, ReleaseError
from fleet_agent.release import verify
from fleetctl.fleet_repo import FleetRepo, SigningKey


def git_of(repo: FleetRepo) -> Path:
    return repo.path / ".git"


def refusal(repo: FleetRepo, commit: str, signers: Path | None = None) -> ReleaseError:
    with pytest.raises(ReleaseError) as caught:
        verify(git_of(repo), commit, signers or repo.allowed_signers)
    return caught.value


@pytest.fixture
def stranger(tmp_path: Path) -> SigningKey:
    return SigningKey.create(tmp_path / "stranger", principal="stranger@elsewhere.example")


def test_a_trusted_signature_names_its_signer(repo: FleetRepo) -> None:
    assert verify(git_of(repo), repo.commit("v1"), repo.allowed_signers) == "release@fleet.example"


def test_each_of_several_keys_is_trusted_under_its_own_name(repo: FleetRepo, stranger: SigningKey) -> None:
    repo.allow([repo.key, stranger])
    signed = repo.commit("v1", key=stranger)
    assert verify(git_of(repo), signed, repo.allowed_signers) == "stranger@elsewhere.example"


def test_an_unsigned_commit_is_refused(repo: FleetRepo) -> None:
    assert refusal(repo, repo.commit("v1", sign=False)).kind is Kind.SIGNATURE_MISSING


def test_an_unknown_key_is_refused(repo: FleetRepo, stranger: SigningKey) -> None:
    error = refusal(repo, repo.commit("v1", key=stranger))
    assert error.kind is Kind.SIGNATURE_INVALID
    assert "not in this device's allowed_signers" in error.message


def test_a_stranger_calling_himself_our_name_is_refused(repo: FleetRepo, tmp_path: Path) -> None:
    impostor = SigningKey.create(tmp_path / "impostor", principal=repo.key.principal)
    assert refusal(repo, repo.commit("v1", key=impostor)).kind is Kind.SIGNATURE_INVALID


@pytest.mark.parametrize(
    ("date", "trusted"),
    [
        ("2025-12-31T23:59:59Z", False),
        ("2026-01-01T00:00:00Z", True),
        ("2026-06-30T23:59:59Z", True),
        ("2026-07-01T00:00:01Z", False),
    ],
)
def test_a_key_is_trusted_for_its_time_only(repo: FleetRepo, date: str, trusted: bool) -> None:
    """Against the commit's time, so that a device without a clock decides the same."""
    repo.allowed_signers.write_text(
        repo.key.signer_line(valid_after="20260101000000Z", valid_before="20260701000000Z")
    )
    commit = repo.commit("v1", date=date)
    if trusted:
        assert verify(git_of(repo), commit, repo.allowed_signers) == repo.key.principal
    else:
        error = refusal(repo, commit)
        assert error.kind is Kind.SIGNATURE_INVALID
        assert "not valid at the time" in error.message


def commit_object(repo: FleetRepo, raw: bytes) -> str:
    """Store `raw` as a commit, whatever it says."""
    made = subprocess.run(
        ["git", "hash-object", "-t", "commit", "-w", "--stdin"],
        cwd=repo.path, input=raw, capture_output=True, check=True,
    )  # fmt: skip
    return made.stdout.decode().strip()


def raw_commit(repo: FleetRepo, commit: str) -> bytes:
    return subprocess.run(
        ["git", "cat-file", "commit", commit], cwd=repo.path, capture_output=True, check=True
    ).stdout


@pytest.mark.parametrize(
    ("old", "new"),
    [(b"release v1", b"release v9"), (b"tree ", None), (b"committer fleetctl", b"committer evil")],
)
def test_a_signature_moved_to_other_content_is_refused(
    repo: FleetRepo, old: bytes, new: bytes | None
) -> None:
    raw = raw_commit(repo, repo.commit("v1"))
    if new is None:
        repo.commit("v2", {"roles/kiosk/compose.yaml": "services: {evil: {}}\n"}, sign=False)
        old, new = raw.split(b"\n")[0], b"tree " + repo.git("rev-parse", "HEAD^{tree}").encode()
    assert refusal(repo, commit_object(repo, raw.replace(old, new, 1))).kind is Kind.SIGNATURE_INVALID


def test_a_file_signature_by_the_right_key_is_no_commit_signature(repo: FleetRepo, tmp_path: Path) -> None:
    """Namespaces keep a signature made for one purpose from being used for another."""
    unsigned = raw_commit(repo, repo.commit("v1", sign=False))
    file = tmp_path / "payload"
    file.write_bytes(unsigned)
    subprocess.run(
        ["ssh-keygen", "-q", "-Y", "sign", "-n", "file", "-f", str(repo.key.private), str(file)],
        check=True, capture_output=True,
    )  # fmt: skip
    armor = (tmp_path / "payload.sig").read_bytes().rstrip(b"\n").replace(b"\n", b"\n ")
    headers, body = unsigned.split(b"\n\n", 1)
    forged = commit_object(repo, headers + b"\ngpgsig " + armor + b"\n\n" + body)
    assert refusal(repo, forged).kind is Kind.SIGNATURE_INVALID


@pytest.mark.parametrize(
    "signature",
    [
        b"gpgsig -----BEGIN PGP SIGNATURE-----\n \n iQ==\n -----END PGP SIGNATURE-----\n",
        b"gpgsig -----BEGIN SSH SIGNATURE-----\n nonsense\n -----END SSH SIGNATURE-----\n",
        b"gpgsig \n",
    ],
)
def test_what_is_no_ssh_signature_is_refused(repo: FleetRepo, signature: bytes) -> None:
    headers, body = raw_commit(repo, repo.commit("v1", sign=False)).split(b"\n\n", 1)
    forged = commit_object(repo, headers + b"\n" + signature + b"\n" + body)
    assert refusal(repo, forged).kind is Kind.SIGNATURE_INVALID


def test_two_signatures_are_refused(repo: FleetRepo, stranger: SigningKey) -> None:
    headers, body = raw_commit(repo, repo.commit("v1")).split(b"\n\n", 1)
    signature = b"gpgsig " + headers.split(b"gpgsig ", 1)[1]
    forged = commit_object(repo, headers + b"\n" + signature + b"\n\n" + body)
    assert refusal(repo, forged).kind is Kind.SIGNATURE_INVALID


def test_a_replaced_object_does_not_lend_its_signature(repo: FleetRepo) -> None:
    good, bad = repo.commit("v1"), repo.commit("v2", sign=False)
    repo.git("replace", bad, good)
    assert refusal(repo, bad).kind is Kind.SIGNATURE_MISSING


def test_a_commit_that_is_not_here_is_named(repo: FleetRepo) -> None:
    repo.commit("v1")
    assert refusal(repo, "a" * 40).kind is Kind.COMMIT_MISSING


@pytest.mark.parametrize(
    ("content", "kind"),
    [(None, Kind.CONFIG_MISSING), ("", Kind.CONFIG_INVALID), ("# none yet\n\n", Kind.CONFIG_INVALID)],
)
def test_without_trusted_keys_nothing_is_trusted(
    repo: FleetRepo, tmp_path: Path, content: str | None, kind: Kind
) -> None:
    signers = tmp_path / "signers"
    if content is not None:
        signers.write_text(content)
    assert refusal(repo, repo.commit("v1"), signers).kind is kind


def test_a_device_without_ssh_keygen_is_told_so(
    repo: FleetRepo, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    commit = repo.commit("v1")
    tools = tmp_path / "tools"
    tools.mkdir()
    found = shutil.which("git")
    assert found is not None
    (tools / "git").symlink_to(found)
    monkeypatch.setenv("PATH", str(tools))
    error = refusal(repo, commit)
    assert error.kind is Kind.TOOL_MISSING
    assert "ssh-keygen" in error.message


def test_a_git_too_old_for_ssh_signatures_is_named_as_the_cause(
    repo: FleetRepo, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It calls every signature bad; the release is not to blame."""
    commit = repo.commit("v1")
    tools = tmp_path / "tools"
    tools.mkdir()
    (tools / "git").write_text(
        "#!/bin/sh\n"
        'case "$*" in\n'
        '  *" version") echo "git version 2.33.8" ;;\n'
        "  *verify-commit*) exit 1 ;;\n"
        f'  *) exec {shutil.which("git")} "$@" ;;\n'
        "esac\n"
    )
    (tools / "git").chmod(0o755)
    monkeypatch.setenv("PATH", f"{tools}:{os.environ['PATH']}")
    error = refusal(repo, commit)
    assert error.kind is Kind.TOOL_MISSING
    assert "2.33.8" in error.message


@pytest.mark.parametrize("program", ["git cat-file", "git verify-commit", "ssh-keygen"])
@pytest.mark.parametrize("end", ["kill -9 $$", "kill -11 $$"])
def test_a_program_that_is_killed_says_nothing_about_a_signature(
    repo: FleetRepo, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, program: str, end: str
) -> None:
    """Neither of a good one nor of a bad one."""
    commits = [
        repo.commit("v1"),
        repo.commit("v2", key=SigningKey.create(tmp_path / "other", principal="x@y")),
    ]
    name, _, command = program.partition(" ")
    tool(
        tmp_path, monkeypatch, name, f'case " $* " in *" {command} "*|"  "*) {end};; esac' if command else end
    )
    for commit in commits:
        error = refusal(repo, commit)
        assert (error.kind, error.retryable) == (Kind.TOOL_FAILED, True)
        assert "was killed (signal" in error.message
        assert name in error.message


def test_a_keygen_that_is_killed_under_git_alone_says_nothing_either(
    repo: FleetRepo, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    commit = repo.commit("v1")
    tool(tmp_path, monkeypatch, "ssh-keygen", 'case "$*" in *.git_vtag_tmp*) kill -9 $$;; esac')
    error = refusal(repo, commit)
    assert (error.kind, error.retryable) == (Kind.TOOL_FAILED, True)
    assert error.message.startswith("Git could not verify the signature: ")


@pytest.mark.parametrize(
    "said",
    [
        "xmalloc: out of memory",
        "Couldn't read signature file: No space left on device",
        "Signature verification failed: memory allocation failed",
        "",
    ],
)
def test_a_keygen_that_the_device_has_no_room_for_says_nothing(
    repo: FleetRepo, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, said: str
) -> None:
    commit = repo.commit("v1")
    said_so = f"echo 'Could not verify signature.'; echo \"{said}\" >&2; exit 255"
    tool(tmp_path, monkeypatch, "ssh-keygen", said_so)
    error = refusal(repo, commit)
    assert (error.kind, error.retryable) == (Kind.TOOL_FAILED, True)
    assert said in error.message or "Git found no memory" in error.message


def test_without_room_for_temporary_files_nothing_is_said(
    repo: FleetRepo, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    commit, unsigned = repo.commit("v1"), repo.commit("v2", sign=False)
    full = tmp_path / "full"
    full.write_text("a file, so that nothing can be made in it")
    monkeypatch.setenv("TMPDIR", str(full))
    error = refusal(repo, commit)
    assert (error.kind, error.retryable) == (Kind.TOOL_FAILED, True)
    assert "temporary file" in error.message
    # A bad signature is bad all the same.
    assert refusal(repo, unsigned).kind is Kind.SIGNATURE_MISSING


def test_a_keygen_that_cannot_be_started_says_nothing(
    repo: FleetRepo, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    commit = repo.commit("v1")
    tool(tmp_path, monkeypatch, "ssh-keygen", "", interpreter="/nowhere/sh")
    error = refusal(repo, commit)
    assert (error.kind, error.retryable) == (Kind.TOOL_FAILED, True)
    assert "cannot be started" in error.message


def tool(
    folder: Path, monkeypatch: pytest.MonkeyPatch, name: str, first: str, *, interpreter: str = "/bin/sh"
) -> None:
    """The program `name`, which does `first` before what it should."""
    found, tools = shutil.which(name), folder / "tools"
    tools.mkdir()
    (tools / name).write_text(f'#!{interpreter}\n{first}\nexec {found} "$@"\n')
    (tools / name).chmod(0o755)
    monkeypatch.setenv("PATH", f"{tools}:{os.environ['PATH']}")
