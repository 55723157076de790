"""Run the benchmarks and print one table.

make bench                                everything, short
make bench BENCH_ARGS="idle --minutes 10" one of them
make bench BENCH_ARGS="policy wake --against ../base --turns 3" in turns with another checkout
"""

from __future__ import annotations

import argparse
import importlib
import pkgutil
import sys
from pathlib import Path

from loguru import logger

from fleetctl.console import out, print_table
from tests.bench._turns import in_turns
from tests.bench.table import CannotRunError, Row, machine, markdown

HELPERS = {"table", "__main__"}


def names() -> list[str]:
    """Every module of this folder that is a benchmark."""
    found = pkgutil.iter_modules([str(Path(__file__).parent)])
    return sorted(
        module.name for module in found if module.name not in HELPERS and not module.name.startswith("_")
    )


def _print(rows: list[Row], write: Path | None) -> None:
    out.width = max(out.width, 150)
    print_table(
        machine(), ["what", "result", "target", "how"], [(r.measure, r.value, r.aim, r.how) for r in rows]
    )
    if write:
        write.write_text(f"{machine()}\n\n{markdown(rows)}\n")


def main() -> int:
    """Run what was asked for; a benchmark that cannot run here says why and the rest goes on."""
    parser = argparse.ArgumentParser(
        prog="make bench", description=__doc__, formatter_class=argparse.RawTextHelpFormatter
    )
    parser.add_argument("names", nargs="*", help=f"some of: {', '.join(names())} (default: all)")
    parser.add_argument("--minutes", type=float, default=1.0, help="how long the idle agent is watched")
    parser.add_argument("--repeats", type=int, default=5)
    parser.add_argument("--write", type=Path, help="also write the table as Markdown to this file")
    parser.add_argument(
        "--against", type=Path, metavar="FOLDER", help="run them in this checkout, too, in turns"
    )
    parser.add_argument("--turns", type=int, default=3, help="how often each checkout has its turn")
    options = parser.parse_args()
    rows: list[Row]
    unknown = set(options.names) - set(names())
    if unknown:
        parser.error(f"no such benchmark: {', '.join(sorted(unknown))}")
    if options.against:
        shared = [*options.names, "--minutes", str(options.minutes), "--repeats", str(options.repeats)]
        rows = in_turns(options.against.resolve(), shared, options.turns)
        _print(rows, options.write)
        return 0
    logger.remove()
    logger.add(sys.stderr, level="ERROR")
    rows = []
    for name in options.names or names():
        print(f"{name} …", file=sys.stderr, flush=True)
        module = importlib.import_module(f"tests.bench.{name}")
        try:
            rows += module.run(options)
        except CannotRunError as reason:
            rows.append(Row(name, "not run", str(reason)))
    _print(rows, options.write)
    return 0


if __name__ == "__main__":
    sys.exit(main())
