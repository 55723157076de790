"""The Supabase CLI, as a person would use it. Secrets reach it by files, never as arguments."""

from __future__ import annotations

import re
import shlex
import shutil
import subprocess
from collections.abc import Callable, Sequence
from pathlib import Path

from fleetctl.errors import FleetctlError

#: Since 3, `--remote` names the project; before, `db push` went to the linked project by itself.
_MAJOR = 3
_INSTALL = "Install it, for example with: npm install --global supabase@3"


def shown(arguments: Sequence[str]) -> str:
    """A command as a person can paste it."""
    return shlex.join(["supabase", *arguments])


class SupabaseCli:
    """Runs in the checkout, whose `supabase/` it reads."""

    def __init__(self, checkout: Path, say: Callable[[str], None]) -> None:
        self._checkout = checkout
        self._say = say

    def run(self, *arguments: str) -> None:
        """Its output goes to the terminal. Raises FleetctlError `supabase_cli_failed`."""
        self._say(f"$ {shown(arguments)}")
        done = subprocess.run(
            [self._program(), *arguments], cwd=self._checkout, check=False, stdin=subprocess.DEVNULL
        )
        if done.returncode != 0:
            raise self._failed(arguments, done.returncode)

    def ask(self, *arguments: str) -> str:
        """What it prints, which may be secret and is not shown. Raises `supabase_cli_failed`."""
        self._say(f"$ {shown(arguments)}")
        done = subprocess.run(
            [self._program(), *arguments], cwd=self._checkout, check=False, stdin=subprocess.DEVNULL,
            capture_output=True, text=True,
        )  # fmt: skip
        if done.returncode != 0:
            raise self._failed(arguments, done.returncode, done.stderr)
        return done.stdout

    def require(self) -> None:
        """Raises FleetctlError `supabase_cli_missing`, `supabase_cli_too_old`, `supabase_not_signed_in`."""
        said = self.ask("--version")
        found = re.search(r"(\d+)\.\d+\.\d+", said)
        if found is None or int(found[1]) < _MAJOR:
            raise FleetctlError(
                "supabase_cli_too_old",
                f"The Supabase CLI is version {said.strip() or 'unknown'}; {_MAJOR} or newer is needed.",
                hint=_INSTALL,
            )
        try:
            self.ask("projects", "list")
        except FleetctlError as error:
            if error.kind != "supabase_cli_failed":
                raise
            raise FleetctlError(
                "supabase_not_signed_in",
                f"The Supabase CLI cannot list your projects. {error.message}",
                hint="Sign in: supabase login. In scripts, set SUPABASE_ACCESS_TOKEN.",
                exit_code=4,
            ) from error

    def _program(self) -> str:
        program = shutil.which("supabase")
        if program is None:
            raise FleetctlError(
                "supabase_cli_missing", "The Supabase CLI is not on the PATH.", hint=_INSTALL, exit_code=2
            )
        return program

    @staticmethod
    def _failed(arguments: Sequence[str], code: int, said: str = "") -> FleetctlError:
        last = said.strip().splitlines()[-1:] if said.strip() else []
        return FleetctlError(
            "supabase_cli_failed",
            f"{shown(arguments)} ended with exit code {code}."
            + "".join(f" It said: {line}" for line in last),
            hint="Correct the cause and run the command again: what is done stays done.",
        )
