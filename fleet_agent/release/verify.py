"""Who signed a commit: its SSH signature against the `allowed_signers` of this device."""

from __future__ import annotations

import re
import shutil
from pathlib import Path

from fleet_agent.errors import Kind, ReleaseError, config_invalid, config_missing, tool_missing
from fleet_agent.release.repository import COMMIT, CorruptError, Repository

_SSH_ARMOUR = b"-----BEGIN SSH SIGNATURE-----"


def verify(repository: Path, commit: str, allowed_signers: Path) -> str:
    """Return the principal (as `allowed_signers` names it) that signed `commit`.

    A key's `valid-after` and `valid-before` are held against the time in the commit, so a device with a wrong
    clock decides as every other does; a key that leaked is taken out of the file, not left to expire.

    Raises ReleaseError: `signature_missing`, `signature_invalid`, `commit_missing`, `release_too_large`,
    `tool_missing` (no ssh-keygen), `config_missing` or `config_invalid` (no usable allowed_signers).
    """
    _check_signers(allowed_signers)
    if not COMMIT.fullmatch(commit):
        raise ReleaseError(Kind.COMMIT_MISSING, f"{commit!r} is not a full commit id.")
    repo = Repository(repository)
    try:
        repo.check_commit(commit)
        signatures = _signatures(repo.read("cat-file", "commit", commit))
    except CorruptError as error:
        raise ReleaseError(
            Kind.COMMIT_MISSING, f"The commit {commit[:12]} is not on this device.", hint="Fetch it again."
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
    return _ask_git(repo, commit, allowed_signers)


def _ask_git(repo: Repository, commit: str, allowed_signers: Path) -> str:
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
    checked = repo.git.local(*options, "verify-commit", commit)
    asked = repo.git.local(
        *options,
        "log",
        "--no-walk",
        "--max-count=1",
        "--no-color",
        "--format=%G?%x00%GT%x00%GS%x00%GG",
        commit,
    )
    verdict, trust, principal, said = [
        *asked.out.decode(errors="replace").strip().split("\0"),
        "",
        "",
        "",
        "",
    ][:4]
    if checked.status != 0 or asked.status != 0 or (verdict, trust) != ("G", "fully") or not principal:
        _check_git(repo)
        raise _invalid(commit, _why(said, checked.err), evidence=[*checked.err.splitlines()[-4:]])
    return principal


def _check_git(repo: Repository) -> None:
    """Git before 2.34 cannot read SSH signatures, and says of each that it is bad."""
    said = repo.git.local("version").out.decode(errors="replace")
    found = re.search(r"(\d+)\.(\d+)", said)
    if found and (int(found[1]), int(found[2])) < (2, 34):
        needed_for = f"signatures cannot be verified (this is {said.strip()})"
        raise tool_missing("Git 2.34 or newer", "git", needed_for=needed_for, error=ReleaseError)


def _why(said: str, complaint: str) -> str:
    text = f"{said}\n{complaint}"
    if "expired" in text or "not yet valid" in text:
        return "the signing key was not valid at the time of the commit"
    if "No principal matched" in text or "No principal" in text:
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


def _signatures(raw: bytes) -> list[bytes]:
    """The commit's signature headers, unfolded."""
    headers = raw.split(b"\n\n", 1)[0].replace(b"\n ", b"\0").split(b"\n")
    return [
        header.split(b" ", 1)[1].replace(b"\0", b"\n")
        for header in headers
        if header.startswith((b"gpgsig ", b"gpgsig-sha256 "))
    ]


def _invalid(commit: str, why: str, evidence: list[str] | None = None) -> ReleaseError:
    return ReleaseError(
        Kind.SIGNATURE_INVALID,
        f"The release {commit[:12]} is not trusted: {why}.",
        hint="Sign it with a key that is in the device's allowed_signers, or add that key there.",
        evidence={"git": evidence} if evidence else None,
    )
