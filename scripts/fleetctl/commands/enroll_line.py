"""The one line that makes a machine a device: `fleet-agent enroll --url … --key … --token …`.

It brings everything that the device's `device.json` needs. The signers come from a file of the operator, not
from the control plane: a device must not let the control plane say whose commits it runs.
"""

from __future__ import annotations

import shlex
import subprocess
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated
from uuid import UUID

import typer

from fleetctl.client.query import Row
from fleetctl.commands.common.context import Context
from fleetctl.commands.release_commit import signers_of
from fleetctl.console import err, out, print_json
from fleetctl.errors import FleetctlError
from fleetctl.fleet_repo import FleetRepo, fleet_id_of

Repository = Annotated[
    Path | None,
    typer.Option(help="A clone of the fleet repository: its address and signers go into the line."),
]
GitUrl = Annotated[
    str | None, typer.Option(help="Where devices fetch releases from; by default the clone's origin.")
]
AllowedSigners = Annotated[
    Path | None, typer.Option(help="Whose commits devices run; by default the file of the repository.")
]
PublishableKey = Annotated[
    str | None,
    typer.Option(envvar="FLEET_PUBLISHABLE_KEY", help="The project's publishable key, if unknown here."),
]


@dataclass(frozen=True)
class EnrollLine:
    """The line without its token."""

    context: Context
    url: str
    key: str | None
    git_url: str | None
    signers: tuple[str, ...]
    fleet_id: UUID | None = None

    def show(self, made: Row, about: str) -> None:
        """Print the line with the token in it to stdout, and what the token is for to stderr."""
        line = self._with(made["token"]) if self.key else None
        if self.context.as_json:
            print_json({**made, "command": line})
            return
        out.print(line, markup=False, soft_wrap=True, highlight=False)
        err.print(about, markup=False)
        if not (self.git_url and self.signers):
            err.print(
                "The device also needs git_url and allowed_signers: from a device.json of its own, "
                "or in this line by --repository.",
                markup=False,
            )

    def _with(self, token: str) -> str:
        words = ["fleet-agent", "enroll", "--url", self.url, "--key", str(self.key), "--token", token]
        if self.git_url:
            words += ["--git-url", self.git_url]
        if self.fleet_id is not None:
            words += ["--fleet-id", str(self.fleet_id)]
        for line in self.signers:
            words += ["--signer", line]
        return shlex.join(words)


def prepare(
    context: Context,
    repository: Path | None,
    git_url: str | None,
    allowed_signers: Path | None,
    publishable_key: str | None,
) -> EnrollLine:
    """Everything but the token, before one is made.

    Raises FleetctlError: `publishable_key_needed`, `no_repository`, `signers_unreadable`, `fleet_id_invalid`.
    """
    key = publishable_key or context.publishable_key
    if key is None and not context.as_json:
        raise FleetctlError(
            "publishable_key_needed",
            "The publishable key of this control plane is not known here, and a device needs it.",
            hint="Give --publishable-key, set FLEET_PUBLISHABLE_KEY, or sign in: fleetctl login",
            exit_code=2,
        )
    fleet_id = None
    if repository is not None:
        git_url = git_url or _address(repository)
        allowed_signers = allowed_signers or signers_of(repository)
        fleet_id = fleet_id_of(repository)
    return EnrollLine(context, context.api_address, key, git_url, _lines(allowed_signers), fleet_id)


def _address(repository: Path) -> str:
    """What a device fetches from: the clone's origin, else the folder itself (a device on this machine)."""
    if not (repository / ".git").exists():
        raise FleetRepo.missing(repository)
    asked = ["git", "-C", str(repository), "remote", "get-url", "origin"]
    origin = subprocess.run(asked, capture_output=True, text=True, check=False).stdout.strip()
    return origin or repository.resolve().as_uri()


def _lines(file: Path | None) -> tuple[str, ...]:
    if file is None:
        return ()
    try:
        text = file.read_text()
    except (OSError, ValueError) as error:
        raise FleetctlError(
            "signers_unreadable",
            f"{file} cannot be read: {error}.",
            hint="Name the allowed_signers file of the fleet with --allowed-signers.",
            exit_code=2,
        ) from error
    return tuple(line.strip() for line in text.splitlines() if line.strip() and not line.startswith("#"))
