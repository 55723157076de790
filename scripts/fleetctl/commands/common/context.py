"""What a command acts on: the control plane it was pointed at, and how its answers are printed."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING

from fleetctl.client.query import Row
from fleetctl.client.target import Target
from fleetctl.commands.common.aim import Around, Typed, choose, resolve, say_which
from fleetctl.console import out, print_json, print_table
from fleetctl.stack.connection import address_of, publishable_key_of
from fleetctl.stack.layout import DEFAULT_DATA

if TYPE_CHECKING:
    from fleetctl.client.api import Api


@dataclass(frozen=True)
class Context:
    """The fleet that a command acts on, as it was typed, and how it should talk."""

    data: Path | None
    api_url: str | None
    key: str | None
    as_json: bool
    fleet: str | None = None

    @cached_property
    def api(self) -> Api:
        """Connects at first use. Raises FleetctlError."""
        # Half a second of imports that --help must not pay.
        from fleetctl.client.api import Api

        return Api(self._target)

    @cached_property
    def _target(self) -> Target:
        around = Around.here()
        target = resolve(choose(Typed(self.data, self.fleet, self.api_url, self.key), around), around)
        say_which(target, around)
        return target

    @property
    def api_address(self) -> str:
        """Where devices reach the control plane."""
        return self._target.api_url

    @property
    def publishable_key(self) -> str | None:
        """The key that devices of this fleet use, if it is known here."""
        target = self._target
        if target.key.startswith("sb_publishable_"):
            return target.key
        if target.publishable_key is None and target.api_url == address_of(DEFAULT_DATA):
            return publishable_key_of(DEFAULT_DATA)
        return target.publishable_key

    @property
    def written(self) -> tuple[int, bool]:
        """How many rows this command changed, and whether a change is open. Does not connect."""
        api: Api | None = vars(self).get("api")
        return (api.written, api.writing) if api is not None else (0, False)

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
