"""What a benchmark returns, and how it is printed."""

from __future__ import annotations

import math
import os
import platform
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from statistics import median


class CannotRunError(Exception):
    """This machine lacks a part that the benchmark needs; the message says which."""


@dataclass(frozen=True)
class Row:
    """One figure: what was measured, the value with its unit, how it was taken, and the aim if any."""

    measure: str
    value: str
    how: str = ""
    aim: str = ""


def spread(values: Sequence[float], unit: str, digits: int = 0) -> str:
    """`median (99th percentile)` of the values, in `unit`."""
    return f"{median(values):.{digits}f} {unit} (p99 {percentile(values, 99):.{digits}f})"


def percentile(values: Sequence[float], percent: float) -> float:
    """The nearest-rank percentile of a non-empty sequence."""
    ordered = sorted(values)
    return ordered[max(0, math.ceil(percent / 100 * len(ordered)) - 1)]


def markdown(rows: Iterable[Row]) -> str:
    """The rows as a Markdown table."""
    lines = ["| what | result | aim | how |", "|---|---|---|---|"]
    lines += [f"| {row.measure} | {row.value} | {row.aim} | {row.how} |" for row in rows]
    return "\n".join(lines)


def machine() -> str:
    """One line about where the figures were taken."""
    memory_kib = int(Path("/proc/meminfo").read_text().split(maxsplit=2)[1])
    return (
        f"{os.cpu_count()} cores ({platform.machine()}), {memory_kib / 1024 / 1024:.0f} GiB, "
        f"Linux {platform.release()}, Python {platform.python_version()}"
    )
