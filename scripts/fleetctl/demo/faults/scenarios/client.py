"""A client of the changed service, to measure its outage."""

from __future__ import annotations

import time

from fleetctl.demo.faults.scenarios.base import Setup
from fleetctl.demo.probe import Probe

#: Often enough to see an outage of 50 ms, and no burden on a small machine.
ASK_EVERY_S = 0.01


class Client:
    """Sends requests all the time. Simulated containers serve nothing, so there it does nothing."""

    def __init__(self, setup: Setup) -> None:
        self._probe = None if setup.simulated else Probe(setup.device.web, every_s=ASK_EVERY_S)
        self._since = 0.0

    def __enter__(self) -> Client:
        if self._probe is not None:
            self._probe.__enter__()
            deadline = time.monotonic() + 5
            while not any(answer.body for answer in list(self._probe.answers)):
                if time.monotonic() > deadline:
                    raise RuntimeError("The release that should be healthy does not respond.")
                time.sleep(0.01)
        self._since = time.monotonic()
        return self

    def __exit__(self, *_: object) -> None:
        if self._probe is not None:
            # The last gap counts once it is over.
            deadline = time.monotonic() + 5
            while self._probe.answers[-1].body is None and time.monotonic() < deadline:
                time.sleep(0.01)
            self._probe.__exit__()

    @property
    def outage_ms(self) -> float | None:
        return None if self._probe is None else self._probe.outage_s(self._since) * 1000
