"""Why a release is not taken: found on the device before Compose runs, and by `fleetctl role check`."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import NoReturn

from fleet_agent.errors import Kind, ValidationError


@dataclass(frozen=True)
class Refusal:
    """One thing in a compose file that must not be started. `where` is a file, a line, a service, a key."""

    kind: Kind
    where: str
    message: str
    hint: str
    service: str | None = None


def refuse(refusals: Sequence[Refusal]) -> None:
    """Raise ValidationError for the first, with all as evidence; return if there is none."""
    if refusals:
        _refuse(refusals)


def _refuse(refusals: Sequence[Refusal]) -> NoReturn:
    first, *others = refusals
    more = f" There are {len(others)} more such findings." if others else ""
    raise ValidationError(
        first.kind,
        f"{first.where}: {first.message}",
        hint=f"{first.hint}{more}",
        evidence={"refused": [f"{one.kind}: {one.where}: {one.message}" for one in refusals[:20]]},
    )
