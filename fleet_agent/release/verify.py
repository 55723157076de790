"""Who signed a commit: its SSH signature against the `allowed_signers` of this device."""

from __future__ import annotations

import os
import re
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path

from fleet_agent.errors import (
    FleetError,
    Kind,
    ReleaseError,
    config_invalid,
    config_missing,
    disk_full,
    tool_failed,
    tool_missing,
)
from fleet_agent.release.git_command import Output
from fleet_agent.release.origin import committed_at
from fleet_agent.release.repository import COMMIT, CorruptError, Repository
from fleet_agent.support import processes

_SSH_ARMOUR = b"-----BEGIN SSH SIGNATURE-----"
_LIMIT_S = 60.0
#: What ssh-keygen prints of a signature or a key that is not good. Whatever else it prints (about memory,
#: about files, or nothing) is no verdict.
_VERDICT = re.compile(
    r"incorrect signature|namespace|invalid format|incomplete message|string is too large|error in libcrypto"
    r"|no principal matched|key has expired|key is not yet valid|key is not permitted|could not verify"
    r"|unknown or unsupported key type|key type does not match|invalid (key length|elliptic curve)"
    r"|signature algorithm|not a certificate|certificate|couldn't parse",
    re.I,
)
#: What ssh-keygen prints of a good one, and Git passes on. Whom it names, `allowed_signers` does.
_GOOD = re.compile(r'^Good "git" signature for (?P<principal>.+) with \S+ key \S+$', re.M)


def verify(repository: Path, commit: str, allowed_signers: Path) -> str:
    """Return the principal (as `allowed_signers` names it) that signed `commit`.

    A key's `valid-after` and `valid-before` are held against the time in the commit, so a device with a wrong
    clock decides as every other does; a key that leaked is taken out of the file, not left to expire.

    Raises ReleaseError: `signature_missing`, `signature_invalid`, `commit_missing`, `release_too_large`,
    `tool_missing` (no ssh-keygen), `config_missing` or `config_invalid` (no usable allowed_signers);
    `tool_failed`, `timed_out` or `disk_full` if there is no verdict, because a program was killed or the
    device had no room for it.
    """
    _check_signers(allowed_signers)
    if not COMMIT.fullmatch(commit):
        raise ReleaseError(Kind.COMMIT_MISSING, f"{commit!r} is not a full commit id.")
    repo = Repository(repository)
    try:
        signatures, payload = _taken_apart(repo.commit(commit))
    except CorruptError as error:
        raise ReleaseError(
            Kind.COMMIT_MISSING,
            f"The commit {commit[:12]} is not on this device.",
            hint="It will be fetched again.",
            retryable=True,
        ) from error
    if not signatures:
        raise ReleaseError(
            Kind.SIGNATURE_MISSING,
            f"The release {commit[:12]} is not signed.",
            hint="Sign the commit with an SSH key that is in the device's allowed_signers.",
        )
    # Only SSH: a GPG key that happens to be on the device must not decide what it runs.
    if len(signatures) != 1 or not signatures[0].startswith(_SSH_ARMOUR):
        raise _invalid(commit, "it does not have exactly one SSH signature")
    return _ask_git(repo, commit, allowed_signers, _Signed(signatures[0], payload))


@dataclass(frozen=True)
class _Signed:
    """A commit's signature, and the bytes that it is about."""

    signature: bytes
    payload: bytes

    @property
    def time(self) -> str:
        """When it was committed, as ssh-keygen takes it."""
        return f"{committed_at(self.payload) or datetime.fromtimestamp(0, UTC):%Y%m%d%H%M%S}Z"


def _ask_git(repo: Repository, commit: str, allowed_signers: Path, signed: _Signed) -> str:
    keygen = shutil.which("ssh-keygen")
    if keygen is None:
        raise tool_missing(
            "ssh-keygen", "openssh-client", needed_for="signatures cannot be verified", error=ReleaseError
        )
    settings = {
        "gpg.ssh.allowedSignersFile": str(allowed_signers.absolute()),
        "gpg.ssh.program": keygen,
        "gpg.program": "/bin/false",
        "gpg.x509.program": "/bin/false",
        "gpg.minTrustLevel": "fully",
    }
    options = [part for name, value in settings.items() for part in ("-c", f"{name}={value}")]
    checked = _local(repo, *options, "verify-commit", commit)
    if checked.status != 0:
        _check_git(repo)
        _need_verdict(keygen, signed, allowed_signers, checked.err)
    # Status 0: the signature is good, and its key fully trusted.
    signer = _GOOD.search(checked.err) if checked.status == 0 else None
    if signer is None:
        raise _invalid(commit, _why(checked.err), evidence=[*checked.err.splitlines()[-4:]])
    return signer["principal"]


def _local(repo: Repository, *arguments: str) -> Output:
    """A commit is small: if Git finds no memory for one, the device has none."""
    try:
        return repo.git.local(*arguments)
    except ReleaseError as error:
        if error.kind is not Kind.RELEASE_TOO_LARGE:
            raise
        raise tool_failed(
            "Git found no memory to verify the signature", error=ReleaseError, evidence=error.evidence
        ) from error


def _check_git(repo: Repository) -> None:
    """Git before 2.34 cannot read SSH signatures, and says of each that it is bad."""
    said = repo.git.local("version").out.decode(errors="replace")
    found = re.search(r"(\d+)\.(\d+)", said)
    if found and (int(found[1]), int(found[2])) < (2, 34):
        needed_for = f"signatures cannot be verified (this is {said.strip()})"
        raise tool_missing("Git 2.34 or newer", "git", needed_for=needed_for, error=ReleaseError)


def _need_verdict(keygen: str, signed: _Signed, allowed_signers: Path, complaint: str) -> None:
    """Git says the same of a bad signature and of an ssh-keygen that was killed: ask ssh-keygen itself.

    Returns if it finds the signature bad or its key not trusted. Raises ReleaseError if it finds nothing.
    """
    with _in_memory(signed.signature) as file:
        # In the order in which Git asks.
        when = f"-Overify-time={signed.time}"
        sign = ["-n", "git", "-s", file]
        if not _is_good(keygen, ["-Y", "check-novalidate", *sign, when], signed.payload):
            return
        known = ["-f", str(allowed_signers.absolute()), when]
        found = _is_good(keygen, ["-Y", "find-principals", "-s", file, *known], b"")
        if not found:
            return
        for principal in found.splitlines():
            if not _is_good(keygen, ["-Y", "verify", "-I", principal, *sign, *known], signed.payload):
                return
    said = (complaint.strip().splitlines() or ["it gave no reason"])[-1].rstrip(".")
    if processes.NO_SPACE.search(complaint):
        raise disk_full("the signature cannot be verified", error=ReleaseError, retryable=True)
    raise tool_failed(f"Git could not verify the signature: {said[:300]}", error=ReleaseError)


def _is_good(keygen: str, arguments: list[str], payload: bytes) -> str:
    """What ssh-keygen prints if it succeeds; nothing if it finds against it.

    Raises ReleaseError if it does neither.
    """
    try:
        done = processes.run(
            [keygen, *arguments], timeout_s=_LIMIT_S, environment={"PATH": os.defpath}, stdin=payload
        )
    except processes.StoppedError as error:
        sentence = f"ssh-keygen did not finish in {_LIMIT_S:g} s."
        raise ReleaseError(Kind.TIMED_OUT, sentence, retryable=True) from error
    except OSError as error:
        raise _failed(f"ssh-keygen cannot be started: {error.strerror}") from error
    if done.exit_code == 0:
        return done.stdout.strip()
    phrase = processes.killed("ssh-keygen", done.killed_by)
    if phrase is not None:
        raise _failed(phrase)
    lines = [line for line in done.stderr.splitlines() if line.strip()]
    strange = [line for line in lines if not _VERDICT.search(line)]
    if strange or not lines:
        raise _failed(f"ssh-keygen: {strange[0] if strange else f'exit code {done.exit_code}'}")
    return ""


def _failed(why: str) -> FleetError:
    why = why.strip().rstrip(".")[:300]
    return tool_failed(f"The signature could not be verified: {why}", error=ReleaseError)


@contextmanager
def _in_memory(content: bytes) -> Iterator[str]:
    """The path of a file with this content that needs no room on a disk."""
    handle = os.memfd_create("signature")
    try:
        os.write(handle, content + b"\n")
        # By our own process id: what is between us and ssh-keygen may close what it inherits.
        yield f"/proc/{os.getpid()}/fd/{handle}"
    finally:
        os.close(handle)


def _why(complaint: str) -> str:
    if "expired" in complaint or "not yet valid" in complaint:
        return "the signing key was not valid at the time of the commit"
    if "No principal" in complaint:
        return "the key that signed it is not in this device's allowed_signers"
    return "its signature does not match its content"


def _check_signers(file: Path) -> None:
    try:
        text = file.read_text(encoding="utf-8", errors="replace")
    except FileNotFoundError as error:
        hint = "Put the fleet's allowed_signers file there, or give its path in device.json."
        raise config_missing(file, error.strerror, hint=hint, error=ReleaseError) from error
    except OSError as error:
        raise config_invalid(file, f"it cannot be read ({error.strerror})", error=ReleaseError) from error
    if not any(line.strip() and not line.lstrip().startswith("#") for line in text.splitlines()):
        hint = 'Each line is: <principal> namespaces="git" <key type> <key>.'
        raise config_invalid(file, "it does not list a key", hint=hint, error=ReleaseError)


def _taken_apart(raw: bytes) -> tuple[list[bytes], bytes]:
    """The commit's signature headers, unfolded, and the commit without them."""
    head, separator, body = raw.partition(b"\n\n")
    signatures, rest = [], []
    for header in head.replace(b"\n ", b"\0").split(b"\n"):
        if header.startswith((b"gpgsig ", b"gpgsig-sha256 ")):
            signatures.append(header.split(b" ", 1)[1].replace(b"\0", b"\n"))
        else:
            rest.append(header.replace(b"\0", b"\n "))
    return signatures, b"\n".join(rest) + separator + body


def _invalid(commit: str, why: str, evidence: list[str] | None = None) -> ReleaseError:
    return ReleaseError(
        Kind.SIGNATURE_INVALID,
        f"The release {commit[:12]} is not trusted: {why}.",
        hint="Sign it with a key that is in the device's allowed_signers, or add that key there.",
        evidence={"git": evidence} if evidence else None,
    )
