"""Benchmarks in turns, in another checkout and here: figures move with the machine, their ratio hardly."""

from __future__ import annotations

import re
import subprocess
import sys
import tempfile
from collections.abc import Sequence
from pathlib import Path
from statistics import median

from tests.bench.table import Row

_HERE = Path(__file__).resolve().parents[2]
_NUMBER = re.compile(r"-?\d[\d,]*(?:\.\d+)?")


def in_turns(other: Path, arguments: Sequence[str], turns: int) -> list[Row]:
    """Run `python -m tests.bench ARGUMENTS` there, then here, `turns` times; medians, and here / there.

    `other` needs an environment of its own (`make setup`). A figure that only one of them has is left out.
    """
    runs: list[tuple[dict[str, float], dict[str, float]]] = []
    for turn in range(turns):
        print(f"turn {turn + 1} of {turns}", file=sys.stderr, flush=True)
        runs.append((_run(other, arguments), _run(_HERE, arguments)))
    return compared(runs)


def compared(runs: Sequence[tuple[dict[str, float], dict[str, float]]]) -> list[Row]:
    """One row for each figure that every run of both sides has."""
    shared = [name for name in runs[0][0] if all(name in side for run in runs for side in run)]
    rows = []
    for name in shared:
        there, here = (median(run[side][name] for run in runs) for side in (0, 1))
        ratio = f"{here / there:.2f}" if there else "-"
        rows.append(Row(name, ratio, f"{there:g} there, {here:g} here"))
    return rows


def figures(table: str) -> dict[str, float]:
    """The first number of each result in a table that `--write` has written, by what was measured."""
    cells = [line.split("|")[1:3] for line in table.splitlines() if line.startswith("| ")]
    return {
        name.strip(): float(number[0].replace(",", ""))
        for name, result in cells
        if (number := _NUMBER.search(result)) is not None
    }


def _run(folder: Path, arguments: Sequence[str]) -> dict[str, float]:
    with tempfile.TemporaryDirectory(prefix="fleet-bench-") as made:
        table = Path(made) / "table.md"
        python = str(folder / ".venv" / "bin" / "python")
        command = [python, "-m", "tests.bench", *arguments, "--write", str(table)]
        subprocess.run(command, cwd=folder, check=True, stdout=subprocess.DEVNULL)
        return figures(table.read_text())
