"""What people type as values: KEY=VALUE, durations, times."""

from __future__ import annotations

import re
from collections.abc import Sequence
from datetime import UTC, datetime, timedelta

from fleetctl.errors import FleetctlError

_UNITS_S = {"s": 1, "m": 60, "h": 3600, "d": 86400, "w": 604800}


def pairs_of(texts: Sequence[str]) -> dict[str, str]:
    """`["site=rome"]` as a dictionary. Raises FleetctlError `pair_malformed`."""
    pairs = {}
    for text in texts:
        name, separator, value = text.partition("=")
        if not separator or not name:
            raise FleetctlError("pair_malformed", f"{text} is not of the form KEY=VALUE.", exit_code=2)
        pairs[name] = value
    return pairs


def duration(text: str) -> timedelta:
    """`90s`, `30m`, `12h`, `7d`, `2w`. Raises FleetctlError `duration_malformed`."""
    parsed = re.fullmatch(r"(\d{1,9})([smhdw])", text.strip())
    if not parsed:
        raise FleetctlError(
            "duration_malformed",
            f"{text} is not a duration.",
            hint="Write it like 90s, 30m, 12h, 7d or 2w.",
            exit_code=2,
        )
    return timedelta(seconds=int(parsed[1]) * _UNITS_S[parsed[2]])


def moment(text: str) -> datetime:
    """An ISO time; without an offset it is UTC. Raises FleetctlError `time_malformed`."""
    try:
        parsed = datetime.fromisoformat(text)
    except ValueError as error:
        raise FleetctlError(
            "time_malformed",
            f"{text} is not a time.",
            hint="Write it like 2026-12-01T02:00:00+01:00.",
            exit_code=2,
        ) from error
    return parsed if parsed.tzinfo else parsed.replace(tzinfo=UTC)
