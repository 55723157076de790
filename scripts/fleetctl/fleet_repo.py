"""A fleet repository on this machine, with signed commits: for the demo, for tests, and to start a real one.

Example:
    repo = FleetRepo.create(folder)  # roles/ of this checkout; key and allowed_signers lie beside it
    v1 = repo.commit("v1")  # a signed commit's id
    repo.url, repo.allowed_signers  # for device.json
"""

from __future__ import annotations

import json
import os
import shutil
import subprocess
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Self
from uuid import UUID, uuid4

from fleetctl.errors import FleetctlError

PRINCIPAL = "release@fleet.example"
ROLES = Path(__file__).resolve().parents[2] / "roles"


#: Devices fetch exactly one commit and only the files of their role; a Git host allows both.
_SETTINGS = """\
[user]
\tname = fleetctl
\temail = {email}
[commit]
\tgpgsign = false
[uploadpack]
\tallowFilter = true
\tallowReachableSHA1InWant = true
"""


@dataclass(frozen=True)
class SigningKey:
    """An SSH key pair that signs commits, known to devices as `principal`."""

    private: Path
    principal: str = PRINCIPAL

    @classmethod
    def create(cls, folder: Path, name: str = "signing_key", principal: str = PRINCIPAL) -> SigningKey:
        """Make an Ed25519 key pair `folder/name`, without passphrase; an existing one is used as it is."""
        key = cls(folder / name, principal)
        if not key.private.exists():
            folder.mkdir(parents=True, exist_ok=True)
            _run(
                ["ssh-keygen", "-q", "-t", "ed25519", "-N", "", "-C", principal, "-f", str(key.private)],
                folder,
            )
        return key

    @property
    def public(self) -> str:
        """`ssh-ed25519 AAAA…` without the comment."""
        return " ".join(self.private.with_name(f"{self.private.name}.pub").read_text().split()[:2])

    def signer_line(self, *, valid_after: str = "", valid_before: str = "") -> str:
        """This key's line in `allowed_signers`; times as YYYYMMDD or YYYYMMDDHHMMSS[Z]."""
        options = ['namespaces="git"']
        options += [f'valid-after="{valid_after}"'] if valid_after else []
        options += [f'valid-before="{valid_before}"'] if valid_before else []
        return f"{self.principal} {','.join(options)} {self.public}\n"


class FleetRepo:
    """A Git repository with a work tree at `path`; `key` signs unless a commit says otherwise."""

    def __init__(self, path: Path, key: SigningKey) -> None:
        self.path = path.resolve()
        self.key = key

    @classmethod
    def create(
        cls, path: Path, key: SigningKey | None = None, *, branch: str = "main", roles: Path | None = ROLES
    ) -> Self:
        """Make the repository with a copy of `roles` (not committed yet; None for an empty one).

        With `roles` it has a fleet id of its own (`roles/common/fleet.json`). Without a `key` one is made in
        the folder `<path>.keys`, beside the repository and never in it; the `allowed_signers` for devices
        lies there too. Raises FleetctlError if `path` is not empty.
        """
        path = path.resolve()
        if path.exists() and any(path.iterdir()):
            raise FleetctlError(
                "folder_not_empty", f"{path} is not empty.", hint="Give a new or empty folder.", exit_code=2
            )
        if roles is not None and not roles.is_dir():
            raise FleetctlError(
                "roles_missing",
                f"There is no folder {roles} to copy roles from.",
                hint="Run this from a checkout of Metrica Fleet.",
            )
        path.mkdir(parents=True, exist_ok=True)
        repo = cls(path, key or SigningKey.create(keys_folder(path)))
        repo.git("init", "--quiet", f"--initial-branch={branch}")
        with (path / ".git" / "config").open("a", encoding="utf-8") as config:
            config.write(_SETTINGS.format(email=_quoted(repo.key.principal)))
        repo.allow([repo.key])
        if roles is not None:
            shutil.copytree(roles, path / "roles", dirs_exist_ok=True)
            # The copied one is of the examples.
            _fleet_file(path).unlink(missing_ok=True)
            adopt(path)
        return repo

    @classmethod
    def open(cls, path: Path, key: SigningKey | None = None) -> Self:
        """An existing repository, with the key that `create` made unless another is given."""
        if not (path / ".git").exists():
            raise cls.missing(path)
        return cls(path, key or SigningKey.create(keys_folder(path.resolve())))

    @staticmethod
    def missing(path: Path) -> FleetctlError:
        """The error for a folder that is not a repository."""
        return FleetctlError(
            "no_repository",
            f"{path} is not a Git repository.",
            hint=f"Create one: fleetctl repo init {path}",
            exit_code=5,
        )

    @property
    def url(self) -> str:
        """What a device on this machine fetches from."""
        return self.path.as_uri()

    @property
    def allowed_signers(self) -> Path:
        """The file that devices verify signatures against."""
        return keys_folder(self.path) / "allowed_signers"

    @property
    def head(self) -> str:
        """The commit checked out now."""
        return self.git("rev-parse", "HEAD")

    def allow(self, keys: Iterable[SigningKey]) -> None:
        """Make `keys` the only ones in `allowed_signers`."""
        self.allowed_signers.parent.mkdir(parents=True, exist_ok=True)
        self.allowed_signers.write_text("".join(key.signer_line() for key in keys))

    def commit(
        self,
        version: str,
        edits: Mapping[str, str | bytes | None] | None = None,
        *,
        sign: bool = True,
        key: SigningKey | None = None,
        branch: str | None = None,
        date: str | None = None,
    ) -> str:
        """Write `edits` (path to content; None removes), commit everything, return the commit's id.

        An edited file keeps its mode; a new one that starts with `#!` is executable. `branch` is created if
        it is missing. `date` is the commit's time in any form Git reads.
        """
        if branch is not None and branch != self.git("branch", "--show-current"):
            exists = self.git("branch", "--list", branch) != ""
            self.git("switch", "--quiet", *([] if exists else ["--create"]), branch)
        for name, content in (edits or {}).items():
            self._write(name, content)
        self.git("add", "--all")
        signing = key or self.key
        options = ["-c", "gpg.format=ssh", "-c", f"user.signingkey={signing.private}"] if sign else []
        self.git(
            *options,
            "commit", "--quiet", "--allow-empty", *(["--gpg-sign"] if sign else ["--no-gpg-sign"]),
            "--message", f"release {version}",
            env={"GIT_AUTHOR_DATE": date, "GIT_COMMITTER_DATE": date} if date else {},
        )  # fmt: skip
        return self.head

    def git(self, *arguments: str, env: Mapping[str, str] | None = None) -> str:
        """Run git in the repository and return its output. Raises FleetctlError (`git_failed`)."""
        return _run(["git", *arguments], self.path, env)

    def _write(self, name: str, content: str | bytes | None) -> None:
        file = self.path / name
        if content is None:
            file.unlink()
            return
        file.parent.mkdir(parents=True, exist_ok=True)
        data = content.encode() if isinstance(content, str) else content
        new = not file.exists()
        file.write_bytes(data)
        if new and data.startswith(b"#!"):
            file.chmod(0o755)


def _fleet_file(path: Path) -> Path:
    # A tenth of a second of imports that --help must not pay.
    from fleet_agent.model import FLEET_FILE

    return path / FLEET_FILE


def fleet_id_of(path: Path) -> UUID | None:
    """The fleet of the repository at `path`; None without a file.

    Raises FleetctlError (`fleet_id_invalid`).
    """
    from fleet_agent.model import FleetFile

    file = _fleet_file(path)
    try:
        return FleetFile.model_validate_json(file.read_bytes()).fleet_id
    except FileNotFoundError:
        return None
    except (OSError, ValueError) as error:
        raise FleetctlError(
            "fleet_id_invalid",
            f"{file} does not contain a fleet id.",
            hint='It must contain {"fleet_id": "<uuid>"}. Remove it to have `repo init --adopt` write one.',
        ) from error


def adopt(path: Path) -> UUID:
    """Give the repository at `path` a fleet id, unless it has one; nothing is committed. Returns the id.

    Raises FleetctlError (`fleet_id_invalid`).
    """
    known = fleet_id_of(path)
    examples = fleet_id_of(ROLES.parent) if path.resolve() != ROLES.parent else None
    if known is not None and known != examples:
        return known
    fleet_id = uuid4()
    file = _fleet_file(path)
    file.parent.mkdir(parents=True, exist_ok=True)
    file.write_text(json.dumps({"fleet_id": str(fleet_id)}, indent=2) + "\n", encoding="utf-8")
    return fleet_id


def _quoted(value: str) -> str:
    """As a value in a file of Git's settings."""
    return '"' + value.replace("\\", "\\\\").replace('"', '\\"') + '"'


def keys_folder(repository: Path) -> Path:
    """Where the keys of a repository live: beside it, so that they are never committed."""
    return repository.with_name(f"{repository.name}.keys")


def _run(command: list[str], folder: Path, env: Mapping[str, str] | None = None) -> str:
    # The caller's own Git settings (signing, hooks, templates) must not change what is made here.
    clean = {name: value for name, value in os.environ.items() if not name.startswith("GIT_")}
    clean |= {
        "GIT_CONFIG_NOSYSTEM": "1",
        "GIT_CONFIG_GLOBAL": os.devnull,
        "GIT_TERMINAL_PROMPT": "0",
        **(env or {}),
    }
    try:
        done = subprocess.run(command, cwd=folder, env=clean, capture_output=True, text=True, check=False)
    except FileNotFoundError as error:
        raise FleetctlError(
            "tool_missing", f"{command[0]} is not installed.", hint="Install git and openssh-client."
        ) from error
    if done.returncode != 0:
        said = (done.stderr or done.stdout).strip()
        raise FleetctlError("git_failed", f"`{' '.join(command[:3])} …` failed: {said}")
    return done.stdout.strip()
