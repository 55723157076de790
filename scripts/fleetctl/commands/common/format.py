"""How values are shown to people."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta

#: Ids in tables are cut to what tells them apart in practice; --json has them whole.
SHORT_ID = 8


def minute(text: str | None) -> str:
    """`2026-12-01 02:00`, of a time as the API writes it; empty for none."""
    return (text or "")[:16].replace("T", " ")


def second(text: str | None) -> str:
    """`2026-12-01 02:00:30`, of a time as the API writes it; empty for none."""
    return (text or "")[:19].replace("T", " ")


def both_clocks(time: datetime) -> str:
    """`2026-12-01 02:00 CET (01:00 UTC)`: on the clock of this machine, and in UTC."""
    here, utc = time.astimezone(), time.astimezone(UTC)
    if here.utcoffset() == timedelta(0):
        return f"{utc:%Y-%m-%d %H:%M} UTC"
    # Some zones have no letters for a name.
    zone = here.tzname() or ""
    zone = zone if zone[:1].isalpha() else f"UTC{here:%z}"
    day = "" if here.date() == utc.date() else f"{utc:%Y-%m-%d} "
    return f"{here:%Y-%m-%d %H:%M} {zone} ({day}{utc:%H:%M} UTC)"


def ago(text: str | None, now: datetime) -> str:
    """`3 min ago`, for a time as the API writes it; empty for none."""
    if not text:
        return ""
    seconds = int((now - datetime.fromisoformat(text)).total_seconds())
    for unit, size in (("d", 86400), ("h", 3600), ("min", 60)):
        if seconds >= 2 * size:
            return f"{seconds // size} {unit} ago"
    return f"{max(0, seconds)} s ago"
