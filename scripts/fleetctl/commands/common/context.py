"""What a command acts on: the control plane it was pointed at, and how its answers are printed."""

from __future__ import annotations

import os
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING

from fleetctl.client.query import Row
from fleetctl.console import out, print_json, print_table, print_warning
from fleetctl.errors import FleetctlError

if TYPE_CHECKING:
    from fleetctl.client.api import Api, Target


@dataclass(frozen=True)
class Context:
    """The fleet that a command acts on, and how it should talk."""

    data: Path
    api_url: str | None
    key: str | None
    as_json: bool

    @cached_property
    def api(self) -> Api:
        """Connects at first use. Raises FleetctlError."""
        # Half a second of imports that --help must not pay.
        from fleetctl.client.api import Api

        return Api(self._target)

    @cached_property
    def _target(self) -> Target:
        return _target(self.data, self.api_url, self.key)

    @property
    def api_address(self) -> str:
        """Where devices reach the control plane."""
        return self._target.api_url

    @property
    def publishable_key(self) -> str | None:
        """The key that devices of this fleet use, if it is known here."""
        from fleetctl.stack.local_stack import LocalStack

        if self._target.key.startswith("sb_publishable_"):
            return self._target.key
        found = LocalStack.status_of(self.data)
        return found.publishable_key if found.api_url == self._target.api_url else None

    def show(
        self,
        title: str,
        columns: Mapping[str, Callable[[Row], object]],
        rows: Sequence[Row],
        *,
        if_none: str,
    ) -> None:
        """A table of `rows` for people, or the rows themselves as JSON."""
        if self.as_json:
            print_json(list(rows))
        elif not rows:
            out.print(if_none)
        else:
            print_table(title, list(columns), ([cell(row) for cell in columns.values()] for row in rows))

    def say(self, sentence: str, result: object) -> None:
        """What was done, as one sentence, or the result as JSON."""
        if self.as_json:
            print_json(result)
        else:
            out.print(sentence, markup=False)


def _target(data: Path, api_url: str | None, key: str | None) -> Target:
    """From the flags, else FLEET_API_URL and FLEET_KEY, else who is signed in, else the stack in `data`.

    Raises FleetctlError: `not_running`, `target_incomplete` when an address comes without a key, and what
    `session.current` raises.
    """
    from fleetctl.client.api import Target

    api_url = api_url or os.environ.get("FLEET_API_URL")
    key = key or os.environ.get("FLEET_KEY")
    if api_url and key:
        return Target(api_url.rstrip("/"), key)
    if key is None and (person := _signed_in(api_url)):
        return person
    if api_url or (key and not data.exists()):
        raise FleetctlError(
            "target_incomplete",
            "A URL needs its secret key, and a key needs its URL.",
            hint="Use both --api-url and --key, set FLEET_API_URL and FLEET_KEY, or sign in: fleetctl login",
            exit_code=2,
        )
    from fleetctl.stack.local_stack import LocalStack

    stack = LocalStack.find(data)
    status = LocalStack.status_of(data)
    if status.state != "running":
        # Whatever else is broken, a fleet can be halted and a device suspended.
        print_warning(
            f"The control plane in {data} runs, with a fault: {status.detail}.", "See fleetctl status."
        )
    return Target(stack.api_url, key or stack.secret_key)


def _signed_in(api_url: str | None) -> Target | None:
    """The session of this terminal, if it is for that address (or no address was given)."""
    from fleetctl.client import session
    from fleetctl.client.api import Target

    found = session.current()
    if found is None or (api_url and api_url.rstrip("/") != found.api_url):
        return None
    return Target(found.api_url, found.publishable_key, found.access_token, found.email, found.user_id)
