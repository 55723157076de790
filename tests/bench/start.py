"""How long fleetctl takes to start: processor seconds of a call, apart from what the control plane does."""

from __future__ import annotations

import argparse
import os
import resource
import statistics
import subprocess
import sys

from fleetctl.stack.local_stack import LocalStack
from tests.bench.table import Row
from tests.support.stack import running_stack

#: The processor seconds that each is to stay below on a quiet machine.
AIMS = {("--help",): 0.4, ("device", "list"): 0.6}
CALLS = 7


def run(options: argparse.Namespace) -> list[Row]:
    with running_stack(table_editor=False) as stack:
        return [
            Row(
                f"fleetctl {' '.join(arguments)}",
                f"{_median_s(stack, *arguments):.2f} s",
                f"processor time of a call, the median of {CALLS}",
                f"{aim} s",
            )
            for arguments, aim in AIMS.items()
        ]


def _median_s(stack: LocalStack, *arguments: str) -> float:
    named = {"FLEET_API_URL": stack.api_url, "FLEET_KEY": stack.secret_key}
    taken = []
    for _ in range(CALLS):
        before = resource.getrusage(resource.RUSAGE_CHILDREN)
        subprocess.run(
            [sys.executable, "-m", "fleetctl", *arguments],
            env={**os.environ, **named}, stdout=subprocess.DEVNULL, check=True,
        )  # fmt: skip
        after = resource.getrusage(resource.RUSAGE_CHILDREN)
        taken.append(after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime)
    return statistics.median(taken)
