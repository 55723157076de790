"""How long an operator waits: `fleetctl up` to ready, and to the first device enrolled."""

from __future__ import annotations

import argparse
import tempfile
import time
from pathlib import Path

from fleetctl.demo.device import DemoDevice
from fleetctl.stack.local_stack import LocalStack
from tests.bench._fleet import provisioning_token
from tests.bench.table import Row, spread


def run(options: argparse.Namespace) -> list[Row]:
    """Cold: an empty data folder. Warm: one that was used before. Seconds of what `fleetctl up` runs."""
    cold, warm, enrolled = [], [], []
    for _ in range(options.repeats):
        with tempfile.TemporaryDirectory(prefix="fleet-bench-") as folder:
            data = Path(folder) / "data"
            began = time.monotonic()
            with LocalStack.start(data=data, port=0, web=False) as stack:
                cold.append(time.monotonic() - began)
                device = DemoDevice("first", Path(folder) / "device", "simulated")
                device.configure(
                    api_url=stack.api_url,
                    publishable_key=stack.publishable_key,
                    git_url="file:///nowhere",
                    allowed_signers=Path(folder) / "allowed_signers",
                    variables={},
                )
                device.enroll(provisioning_token(stack))
                enrolled.append(time.monotonic() - began)
            began = time.monotonic()
            with LocalStack.start(data=data, port=0, web=False):
                warm.append(time.monotonic() - began)
    how = f"{options.repeats} runs, dashboard built before"
    return [
        Row("stack ready, empty data folder", spread(cold, "s", 1), how),
        Row("stack ready, second start", spread(warm, "s", 1), how),
        Row("first device enrolled, from an empty data folder", spread(enrolled, "s", 1), how),
    ]
