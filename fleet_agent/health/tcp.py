"""A connection opens in time."""

from __future__ import annotations

import socket

from fleet_agent.health.base import CheckContext, CheckOutcome, CheckResult
from fleet_agent.roles.schema import TcpCheck


class TcpOpens:
    def __init__(self, wanted: TcpCheck) -> None:
        self._wanted = wanted
        self.name = f"tcp {wanted.host}:{wanted.port}"

    def look(self, context: CheckContext) -> CheckResult:
        del context
        try:
            with socket.create_connection(
                (self._wanted.host, int(self._wanted.port)), timeout=self._wanted.timeout_s
            ):
                return CheckResult(self.name, CheckOutcome.PASS, f"{self.name} is open")
        except OSError as error:
            why = "timed out" if isinstance(error, TimeoutError) else error.strerror or str(error)
            return CheckResult(self.name, CheckOutcome.FAIL, f"{self.name} cannot be reached ({why})")
