"""How much of a search or a race is run: less by default, all of it in `.ci/run`, far more in `make soak`.

The rules that are checked are the same each time; only how often they are tried differs.
"""

from __future__ import annotations

import os

import pytest

#: Hours.
SOAK = os.environ.get("FLEET_SOAK") == "1"
#: What `.ci/run` asks for: nothing is left out.
FULL = SOAK or "full" in os.environ.get("FLEET_REQUIRE", "").split(",")


def amount(default: int, *, full: int, soak: int | None = None) -> int:
    """How many rounds, examples or devices this run takes."""
    if SOAK and soak is not None:
        return soak
    return full if FULL else default


#: For a file whose tests are expensive: on PostgreSQL 18 each time, on 15 in `.ci/run`.
OLDER_SERVER_IN_FULL = pytest.mark.parametrize(
    "cluster", ["postgres18", pytest.param("postgres15", marks=pytest.mark.full)], indirect=True
)
