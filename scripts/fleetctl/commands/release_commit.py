"""The commit of a release, looked up and verified in a clone of the fleet repository."""

from __future__ import annotations

import re
import subprocess
from pathlib import Path

from fleetctl.errors import FleetctlError
from fleetctl.fleet_repo import keys_folder


def resolve(repository: Path | None, revision: str) -> str:
    """The full commit id of a revision. Raises FleetctlError `commit_unknown`, `commit_incomplete`."""
    if repository is None:
        if re.fullmatch(r"[0-9a-fA-F]{40}|[0-9a-fA-F]{64}", revision):
            return revision.lower()
        raise FleetctlError(
            "commit_incomplete",
            f"{revision} is not a full commit id of 40 or 64 hex digits.",
            hint="Give the full id, or --repository with a clone that has the commit.",
            exit_code=2,
        )
    done = _git(repository, "rev-parse", "--verify", "--quiet", "--end-of-options", f"{revision}^{{commit}}")
    if done.returncode != 0:
        raise FleetctlError(
            "commit_unknown",
            f"{repository} has no commit {revision}.",
            hint=f"Fetch it first: git -C {repository} fetch",
            exit_code=5,
        )
    return done.stdout.strip()


def signers_of(repository: Path) -> Path | None:
    """The `allowed_signers` of a repository: what its Git settings name, or the file next to it."""
    named = _git(repository, "config", "--type=path", "gpg.ssh.allowedSignersFile").stdout.strip()
    beside = keys_folder(repository.absolute()) / "allowed_signers"
    for file in (Path(named) if named else None, beside):
        if file is not None and file.is_file():
            return file
    return None


def signer(repository: Path, commit: str, allowed_signers: Path) -> str:
    """Who signed the commit, as a device will see it.

    Raises FleetctlError `signature_missing`, `signature_invalid`.
    """
    raw = _git(repository, "cat-file", "commit", commit).stdout.partition("\n\n")[0]
    if not re.search(r"^gpgsig(-sha256)? ", raw, re.MULTILINE):
        raise FleetctlError(
            "signature_missing",
            f"The commit {commit[:12]} is not signed, so devices will refuse it.",
            hint="Sign it (fleetctl repo commit does), or add --unsigned for a fleet that does not verify.",
        )
    settings = ("-c", "gpg.format=ssh", "-c", f"gpg.ssh.allowedSignersFile={allowed_signers.absolute()}")
    done = _git(repository, *settings, "-c", "gpg.minTrustLevel=fully", "verify-commit", commit)
    found = re.search(r'^Good "git" signature for (\S+)', done.stderr, re.MULTILINE)
    if done.returncode != 0 or found is None:
        raise FleetctlError(
            "signature_invalid",
            f"The commit {commit[:12]} is signed by nobody in {allowed_signers}: devices will refuse it.",
            hint="Sign it with a key in that file, or add the key there and on the devices.",
        )
    return found[1]


def access(repository: Path, commit: str) -> dict[str, dict[str, str]]:
    """What each role of a commit declares to take of its devices; roles that declare nothing are left out."""
    from fleet_agent.errors import FleetError
    from fleet_agent.roles import schema

    found = {}
    for name in _git(repository, "ls-tree", "-z", "--name-only", f"{commit}:roles").stdout.split("\0"):
        done = _git(repository, "cat-file", "blob", f"{commit}:roles/{name}/role.yaml")
        if not name or done.returncode != 0 or len(done.stdout) > schema.ROLE_FILE_LIMIT_BYTES:
            continue
        try:
            declared = schema.parse(done.stdout, name).access
        except FleetError:
            # Devices with this role refuse it, and say why.
            continue
        if declared:
            found[name] = declared
    return found


def _git(repository: Path, *arguments: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        ["git", "-C", str(repository), *arguments], capture_output=True, text=True, check=False
    )
