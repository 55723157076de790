"""A connection opens in time."""

from __future__ import annotations

import socket

from fleet_agent.health.base import Answer, Reading, Sight
from fleet_agent.roles.schema import TcpCheck


class TcpOpens:
    def __init__(self, wanted: TcpCheck) -> None:
        self._wanted = wanted
        self.name = f"tcp {wanted.host}:{wanted.port}"

    def look(self, sight: Sight) -> Reading:
        del sight
        try:
            with socket.create_connection(
                (self._wanted.host, int(self._wanted.port)), timeout=self._wanted.timeout_s
            ):
                return Reading(self.name, Answer.PASS, f"{self.name} opens")
        except OSError as error:
            why = "timed out" if isinstance(error, TimeoutError) else error.strerror or str(error)
            return Reading(self.name, Answer.FAIL, f"{self.name} does not open ({why})")
