"""Benchmarks of two checkouts are compared by the medians of what both measured."""

from __future__ import annotations

from tests.bench._turns import compared, figures
from tests.bench.table import Row, markdown


def test_figures_of_both_are_compared_by_their_medians() -> None:
    def run(calls: str, wake: str) -> dict[str, float]:
        return figures(
            "2 cores, 23 GiB\n\n"
            + markdown([Row("calls", calls, "3 times", "500/s"), Row("wake", wake), Row("idle", "not run")])
        )

    there = [
        run("1,200 calls/s", "8.5 ms (p99 20)"),
        run("1,000 calls/s", "9.5 ms"),
        run("10 calls/s", "99 ms"),
    ]
    here = [run("1,500 calls/s", "9.5 ms"), run("1,700 calls/s", "19 ms"), {"calls": 1400.0, "new": 1.0}]
    found = compared(list(zip(there, here, strict=True)))
    assert [(row.measure, row.value, row.how) for row in found] == [
        ("calls", "1.50", "1000 there, 1500 here")
    ]
    assert compared([(there[0], here[0])])[1] == Row("wake", "1.12", "8.5 there, 9.5 here")
