"""What people type as values: KEY=VALUE, durations, times."""

from __future__ import annotations

import re
from collections.abc import Sequence
from datetime import UTC, datetime, timedelta

from fleetctl.commands.common.format import both_clocks
from fleetctl.errors import FleetctlError

_LONGEST_S = 100 * 366 * 86400
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
    seconds = int(parsed[1]) * _UNITS_S[parsed[2]]
    if seconds > _LONGEST_S:
        raise FleetctlError(
            "duration_malformed", f"{text} is longer than 100 years.", hint="Give a shorter one.", exit_code=2
        )
    return timedelta(seconds=seconds)


def moment(text: str) -> datetime:
    """An ISO time; without an offset it is on this machine's clock. Raises FleetctlError `time_malformed`."""
    try:
        typed = datetime.fromisoformat(text)
        here = typed.astimezone()
    except (ValueError, OverflowError, OSError) as error:
        raise _no_time(f"{text} is not a time.") from error
    # In the hour that a clock skips in spring.
    if typed.tzinfo is None and here.replace(tzinfo=None, fold=0) != typed.replace(fold=0):
        raise _no_time(f"There is no {text} in the time zone of this machine: its clock skips that hour.")
    return here


def end_of(for_: str | None, until: str | None) -> datetime | None:
    """When what is set for a while ends: after `--for`, or at `--until`; None without either.

    Raises FleetctlError: `end_said_twice`, `date_in_the_past`, and what `duration` and `moment` raise.
    """
    if for_ is not None and until is not None:
        raise FleetctlError("end_said_twice", "Give --for or --until, not both.", exit_code=2)
    now = datetime.now(UTC)
    if for_ is not None:
        end = (now + duration(for_)).astimezone()
    elif until is not None:
        end = moment(until)
    else:
        return None
    if end <= now:
        raise FleetctlError(
            "date_in_the_past",
            f"{both_clocks(end)} has passed already.",
            hint="Give a time to come. Without an offset it is read on this machine's clock.",
            exit_code=2,
        )
    return end


def _no_time(message: str) -> FleetctlError:
    hint = "Write it like 2026-12-01T02:00 (this machine's clock) or 2026-12-01T02:00:00+01:00."
    return FleetctlError("time_malformed", message, hint=hint, exit_code=2)
